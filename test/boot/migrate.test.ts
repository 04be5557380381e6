// Needs: a /dev/kvm on which a guest can run. Linux moves while it reads and writes a disk: its memory is the same at the
// other end to the last page, and its file system whole.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createVm, type Machine, type VmExit } from "../../vmm/index.js";
import { consoleParameter, OWN_KERNEL_CMDLINE } from "../../vmm/config/defaults.js";
import { defaultInitrd, fastKernel } from "../../vmm/host/guest-files.js";
import { timeLimit } from "../../vmm/host/time-limit.js";
import { parseMigrationAddress } from "../../vmm/snapshot/migration/address.js";
import { GuestListener } from "../../vmm/snapshot/migration/receive.js";
import { migrateVm } from "../../vmm/snapshot/migration/send.js";
import { viewMemory } from "../../vmm/sys/memory.js";
import { allOpeners } from "../../vmm/virtio/attach/all.js";
import { deviceSupport } from "../../vmm/virtio/device-support.js";
import { countBoot } from "../helpers/booted.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { skip } from "../helpers/skip.js";

/** Emulated, on a machine that may be busy with other tests, `ms`. */
const LIMIT_MS = timeLimit("a guest", 400_000);
const MOVES = 2;
const ROUNDS = 3;
/** kvm-clock's two structures, which KVM writes anew when their MSRs are set: so many bytes of each, of a page of its own. */
const CLOCK_PAGES = 2;
const CLOCK_BYTES = 32;
const SCRIPT = `i=0
while [ $i -lt ${String(ROUNDS)} ]; do
  i=$((i + 1))
  dd if=/dev/urandom of=/dev/vda bs=4k count=4 conv=fsync 2>/dev/null
  head -c 64 /dev/hwrng >/dev/null
  x=abcdefgh; for n in 1 2 3 4 5 6 7 8 9 10 11 12; do x=$x$x; done
  echo round $i
done
md5sum </dev/vda
echo 3 >/proc/sys/vm/drop_caches
md5sum </dev/vda
`;

describe("boot: a guest that moves", function () {
  this.timeout(LIMIT_MS + 10_000);
  let folder = "";
  const vms: Machine[] = [];

  before(function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
  });
  after(async () => {
    for (const vm of vms) await vm.close();
    if (folder !== "") rmSync(folder, { recursive: true });
  });

  async function memoryOf(vm: Machine): Promise<Buffer> {
    return vm.whileOpen(({ memory }) =>
      Promise.resolve(Buffer.from(new Uint8Array(viewMemory(memory.hostAddress, memory.size)))),
    );
  }

  it("twice, under load: every page is the same, and what it has on its disk too", async () => {
    const disk = join(folder, "disk.img");
    writeFileSync(disk, "");
    truncateSync(disk, 2 ** 18);
    let text = "";
    const host = {
      output: (bytes: Uint8Array, done: () => void): void => {
        text += Buffer.from(bytes).toString("latin1");
        done();
      },
    };
    const until = async (isSo: () => boolean): Promise<void> => {
      for (let waited = 0; !isSo(); waited += 20) {
        assert.ok(waited < LIMIT_MS, text);
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    };
    const exec = Buffer.from(["sh", "-c", SCRIPT].join("\0")).toString("base64url");
    const support = deviceSupport(allOpeners);
    let vm = createVm(
      {
        kernel: fastKernel(),
        initrd: defaultInitrd(),
        memoryMib: 64,
        quiet: true,
        bareCmdline: true,
        cmdline: `${consoleParameter("serial")} ${OWN_KERNEL_CMDLINE} vmlet.exec=${exec} vmlet.tty=raw`,
        disks: [{ path: disk }],
        rng: true,
      },
      host,
    );
    vms.push(vm);
    let run: Promise<VmExit> = vm.start();
    for (let move = 1; move <= MOVES; move++) {
      await until(() => text.includes(`round ${String(move)}`));
      const address = parseMigrationAddress(`unix:${join(folder, "moves.sock")}`);
      const listener = await GuestListener.listen(address);
      const software = await vm.whileOpen(({ quirks }) => Promise.resolve(quirks !== undefined));
      const moving = migrateVm(vm, address);
      const received = await listener.accept({ software });
      const next = received.restore(host, { deviceSupport: support });
      vms.push(next);
      const [stays, moved] = [await memoryOf(vm), await memoryOf(next)];
      const pages = Array.from({ length: stays.length / 4096 }, (_, page) => page * 4096)
        .filter((at) => stays.compare(moved, at, at + 4096, at, at + 4096) !== 0)
        .map((at) => stays.subarray(at, at + 4096).filter((byte, index) => byte !== moved[at + index]).length);
      assert.ok(pages.length <= CLOCK_PAGES && pages.every((bytes) => bytes <= CLOCK_BYTES), pages.join());
      await received.takeOver();
      await moving;
      vm.stop();
      await run;
      vm = next;
      run = next.start();
    }
    const { outcome } = await run;
    assert.equal(outcome, "poweroff", text);
    const [first, second, ...more] = text.match(/^[0-9a-f]{32}/gm) ?? [];
    assert.deepEqual([first, more], [second, []], text);
    assert.equal(text.match(/^round/gm)?.length, ROUNDS);
    countBoot();
  });
});
