// Needs: a /dev/kvm on which a guest can run, gcc. Linux's own drivers over a snapshot of a guest that is at work with
// its devices: a disk in the middle of writes, a stream to the host, a console on virtio.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { connect, createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createVm, type Machine, type VmConfig } from "../../vmm/index.js";
import { timeLimit } from "../../vmm/host/time-limit.js";
import { createSnapshot } from "../../vmm/snapshot/create.js";
import { OpenSnapshot } from "../../vmm/snapshot/restore.js";
import { allOpeners } from "../../vmm/virtio/attach/all.js";
import { deviceSupport } from "../../vmm/virtio/device-support.js";
import { countBoot } from "../helpers/booted.js";
import { withVsockProgram } from "../helpers/guest-programs.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { skip } from "../helpers/skip.js";

/** Emulated, on a machine that may be busy with other tests, `ms`. */
const LIMIT_MS = timeLimit("a guest", 400_000);
const TICKS = 3;

const SCRIPT = `set -e
mkdir -p /mnt && mount /dev/vda /mnt
(set +e; vsock connect 1234 </dev/null 2>&1; echo "stream: $?") &
vsock echo 5000 &
i=0
while [ $i -lt ${String(TICKS)} ]; do
  dd if=/dev/urandom of=/mnt/$i bs=16k count=2 conv=fsync 2>/dev/null
  md5sum /mnt/$i >>/mnt/sums
  head -c 64 /dev/hwrng >/dev/null
  i=$((i + 1))
  echo tick $i
done
wait %2
umount /mnt && echo 3 >/proc/sys/vm/drop_caches && mount -o ro /dev/vda /mnt
md5sum -c /mnt/sums | grep -c OK
dmesg | grep -icE 'I/O error|virtio.*(fail|broken)' || true
`;

describe("boot: devices over a snapshot", function () {
  this.timeout(LIMIT_MS + 10_000);
  let folder = "";
  /** What a test that fails would leave behind. */
  const closers: (() => unknown)[] = [];

  before(function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
  });
  after(async () => {
    for (const close of closers.splice(0).reverse()) await close();
    if (folder !== "") rmSync(folder, { recursive: true });
  });

  /** What a guest prints, and a wait for some of it. */
  class Output {
    text = "";
    #look: () => void = () => undefined;

    readonly output = (bytes: Uint8Array, done: () => void): void => {
      this.text += Buffer.from(bytes).toString("latin1");
      this.#look();
      done();
    };

    async until(pattern: RegExp): Promise<void> {
      await new Promise<void>((resolve) => {
        this.#look = () => {
          if (pattern.test(this.text)) resolve();
        };
        this.#look();
      });
    }
  }

  async function listen(path: string): Promise<Server> {
    // The guest says at once that it has nothing to send; it waits for what never comes.
    const server = createServer({ allowHalfOpen: true }).listen(path);
    closers.push(() => server.close());
    await once(server, "listening");
    return server;
  }

  /** Connects to the guest's port 5000 and sends a line; what comes back. */
  async function echo(path: string): Promise<string> {
    const socket = connect({ path, allowHalfOpen: true });
    socket.write("CONNECT 5000\n");
    let text = "";
    for await (const bytes of socket) {
      const hadNone = !text.includes("\n");
      text += String(bytes);
      if (hadNone && text.includes("\n")) socket.end("hello\n");
    }
    return text;
  }

  it("a disk, an entropy device and a balloon go on where they were; an open stream ends, and a new one opens at once", async () => {
    const disk = join(folder, "disk");
    const socket = join(folder, "vsock");
    const snapshotFolder = join(folder, "snapshot");
    writeFileSync(disk, "");
    truncateSync(disk, 4 << 20);
    execFileSync("mke2fs", ["-q", "-F", disk]);
    const command = ["sh", "-c", SCRIPT].join("\0");
    const config: VmConfig = {
      kernel: "guest/out/fast/vmlinux",
      initrd: withVsockProgram(folder),
      cmdline: `vmlet.exec=${Buffer.from(command).toString("base64url")} vmlet.tty=raw`,
      memoryMib: 64,
      quiet: true,
      console: "virtio",
      disks: [{ path: disk }],
      vsock: { cid: 5, path: socket },
      rng: true,
      balloon: { targetMib: 4 },
    };
    const before = new Output();
    let server = await listen(`${socket}_1234`);
    const stream = once(server, "connection");
    const vm: Machine = createVm(config, before);
    closers.push(() => vm.close());
    const run = vm.start();
    await stream;
    countBoot();
    await before.until(/tick 2\n/);
    await vm.pause();
    await createSnapshot(vm, snapshotFolder);
    vm.stop();
    await run;
    await vm.close();
    server.close();

    server = await listen(`${socket}_1234`);
    const snapshot = OpenSnapshot.open(snapshotFolder);
    const after = new Output();
    closers.push(() => {
      snapshot.close();
    });
    const restored = snapshot.restore(after, { deviceSupport: deviceSupport(allOpeners) });
    closers.push(() => restored.close());
    const answer = echo(socket);
    const { outcome, exitStatus, devices } = await restored.start();
    assert.match(await answer, /^OK \d+\nhello\n$/);
    await restored.close();
    server.close();

    const lines = after.text.split(/\r?\n/);
    assert.match(after.text, /^read: Connection reset by peer$/m);
    assert.ok(lines.includes("stream: 1"), after.text);
    const ticks = [...`${before.text}${after.text}`.matchAll(/^tick (\d+)\r?$/gm)].map(([, tick]) => Number(tick));
    assert.deepEqual(
      ticks,
      Array.from({ length: TICKS }, (_, index) => index + 1),
    );
    assert.deepEqual(lines.slice(-3), [String(TICKS), "0", ""], after.text);
    assert.deepEqual([outcome, exitStatus], ["poweroff", 0]);
    for (const counters of Object.values(devices)) assert.equal(counters["failures"], 0);
    assert.equal(restored.state, "closed");
  });
});
