// Needs: a /dev/kvm on which a guest can run, and the right to make a TAP interface; skipped without. One guest, whose own drivers see what changes while it runs, and its metadata service.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createVm, createSnapshot, inspectSnapshot, type Machine } from "../../vmm/index.js";
import { timeLimit } from "../../vmm/host/time-limit.js";
import { countBoot } from "../helpers/booted.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { skip } from "../helpers/skip.js";
import { tapProblem } from "../helpers/tap-guard.js";

/** Emulated, on a machine that may be busy with other tests, `ms`. */
const LIMIT_MS = timeLimit("a guest", 200_000);
const MIB = 2 ** 20;

/** Goes on with each line that it is given. */
const SCRIPT = `
ip link set eth0 up && ip addr add 169.254.1.2/16 dev eth0
get() { wget -qO- "http://169.254.169.254/$1"; echo; }
get latest/; get latest/meta-data/id; get long | wc -c
echo "size $(cat /sys/block/vda/size) first $(head -c 3 /dev/vda)"
echo ready 1; read line
echo "size $(cat /sys/block/vda/size) first $(dd if=/dev/vda iflag=direct bs=512 count=1 2>/dev/null | head -c 3)"
echo "written $(echo new | dd of=/dev/vda oflag=direct conv=notrunc,sync bs=512 seek=16383 count=1 2>&1 | grep -c records.out)"
get latest/meta-data/id
echo ready 2; read line
echo "size $(cat /sys/block/vda/size)"
dmesg | grep -icE 'I/O error|virtio.*(fail|broken)'
`;

describe("boot: what changes while a guest runs", function () {
  this.timeout(LIMIT_MS + 10_000);
  let folder = "";
  let vm: Machine | undefined;

  before(function () {
    const reason = whyNoKvm() ?? tapProblem();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
  });
  after(async () => {
    await vm?.close();
    if (folder !== "") rmSync(folder, { recursive: true });
  });

  function image(name: string, size: number): string {
    const path = join(folder, name);
    writeFileSync(path, name);
    truncateSync(path, size);
    return path;
  }

  it("another disk, its growth, limits, balloon, free pages, and metadata of the moment", async () => {
    let text = "";
    let look = (): void => undefined;
    const until = (pattern: RegExp): Promise<void> =>
      new Promise((resolve) => {
        look = () => {
          if (pattern.test(text)) resolve();
        };
        look();
      });
    const document = { latest: { "meta-data": { id: "one" } }, long: "x".repeat(5000) };
    const command = ["sh", "-c", SCRIPT].join("\0");
    const limiter = { operations: { size: 100_000, oneTimeBurst: 0, refillTimeMs: 1000 } };
    const machine = createVm(
      {
        kernel: "guest/out/fast/vmlinux",
        initrd: "guest/out/initramfs.cpio",
        cmdline: `vmlet.exec=${Buffer.from(command).toString("base64url")} vmlet.tty=raw`,
        memoryMib: 64,
        quiet: true,
        console: "virtio",
        disks: [{ path: image("one", 4 * MIB), rateLimiter: limiter }],
        nets: [{ tap: "auto", mmds: true }],
        balloon: { targetMib: 0, hinting: true, statisticsIntervalS: 1 },
      },
      {
        output: (bytes, done) => {
          text += Buffer.from(bytes).toString("latin1");
          look();
          done();
        },
        metadata: () => document,
      },
    );
    vm = machine;
    const run = machine.start();
    const limit = setTimeout(() => machine.stop(), LIMIT_MS);
    try {
      await Promise.race([until(/ready 1\r?\n/), run]);
      countBoot();
      const two = image("two", 8 * MIB);
      machine.updateDisk("vda", { path: two, rateLimiter: { operations: { ...limiter.operations, size: 0 } } });
      machine.updateNet("net0", { txRateLimiter: limiter });
      machine.setBalloon(8);
      machine.startBalloonHinting();
      document.latest["meta-data"].id = "two";
      machine.input(Buffer.from("\n"));
      await Promise.race([until(/ready 2\r?\n/), run]);
      // The guest's driver gives pages and hints when it comes to it.
      for (let tries = 0; tries < 400 && machine.state === "running"; tries++) {
        const { balloon } = machine.statistics();
        const { hostCommand } = machine.balloonHinting();
        if (balloon?.actualBytes === 8 * MIB && hostCommand === 1 && balloon.guest !== undefined) break;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      const { balloon, devices } = machine.statistics();
      assert.equal(balloon?.actualBytes, 8 * MIB, text);
      assert.ok((balloon.guest?.totalMemory ?? 0) > 30 * MIB);
      assert.deepEqual(machine.balloonHinting(), { hostCommand: 1, guestCommand: 0 });
      assert.ok((devices["balloon0"]?.["hintedBytes"] ?? 0) > MIB);
      await machine.pause();
      await createSnapshot(machine, join(folder, "snapshot"));
      machine.resume();
      truncateSync(two, 16 * MIB);
      machine.updateDisk("vda", { path: two });
      machine.input(Buffer.from("\n"));
      const { outcome, exitStatus, devices: counters } = await run;
      const lines = text.split(/\r?\n/).filter((line) => line !== "");
      assert.deepEqual(lines, [
        ...["meta-data/", "one", "5001"],
        ...["size 8192 first one", "ready 1"],
        ...["size 16384 first two", "written 1", "two", "ready 2"],
        ...["size 32768", "0"],
      ]);
      assert.deepEqual([outcome, exitStatus], ["poweroff", 1]);
      assert.ok((counters["net0"]?.["txAside"] ?? 0) > 10);
    } finally {
      clearTimeout(limit);
    }
    const { config } = inspectSnapshot(join(folder, "snapshot"));
    const [disk] = config.disks;
    assert.deepEqual([disk?.path, disk?.rateLimiter?.operations?.size], [join(folder, "two"), 0]);
    const [net] = config.nets;
    assert.deepEqual([net?.txRateLimiter?.operations?.size, net?.rxRateLimiter], [100_000, undefined]);
    assert.deepEqual([config.mmds?.version, config.balloon?.targetMib], ["V1", 8]);
  });
});
