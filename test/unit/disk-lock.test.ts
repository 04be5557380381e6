// Needs: a temporary directory; QEMU for one test, a loop device and root for another, skipped without.
import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { closeSync, linkSync, mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { openDiskFile } from "../../vmm/virtio/backends/disk-file.js";
import { DiskError } from "../../vmm/errors.js";
import { skip } from "../helpers/skip.js";

const folder = mkdtempSync(join(tmpdir(), "vmlet-lock-"));
const path = join(folder, "disk");

function open(isReadonly: boolean, isLocked = true, name = path): number {
  return openDiskFile({ path: name, isReadonly, blockSize: 512, isLocked }).fd;
}

function refusal(isReadonly: boolean, name = path): DiskError {
  try {
    closeSync(open(isReadonly, true, name));
  } catch (error) {
    assert.ok(error instanceof DiskError);
    return error;
  }
  assert.fail("was opened");
}

/** Another process that has the disk. */
async function holder(isReadonly: boolean): Promise<ChildProcess> {
  const module = resolve("build/vmm/virtio/backends/disk-file.js");
  const options = JSON.stringify({ path, isReadonly, blockSize: 512 });
  const script = `import { openDiskFile } from ${JSON.stringify(module)};
    openDiskFile(${options}); console.log("open"); setInterval(() => {}, 1000);`;
  const child = spawn(process.execPath, ["--input-type=module", "-e", script], {
    stdio: ["ignore", "pipe", "inherit"],
  });
  await once(child.stdout, "data");
  return child;
}

async function end(child: ChildProcess): Promise<void> {
  child.kill("SIGKILL");
  await once(child, "exit");
}

describe("disk lock", () => {
  before(() => {
    writeFileSync(path, "");
    truncateSync(path, 4096);
    linkSync(path, join(folder, "same"));
  });
  after(() => rmSync(folder, { recursive: true }));

  for (const [first, second] of [
    ["writer", "writer"],
    ["writer", "reader"],
    ["reader", "writer"],
  ] as const) {
    it(`a ${first} keeps a ${second} of another process out, which hears of its pid, until it is killed`, async () => {
      const child = await holder(first === "reader");
      try {
        const { message, cure } = refusal(second === "reader");
        assert.ok(message.startsWith(`${path}: in use by process ${String(child.pid)} (`), message);
        assert.match(message, first === "writer" ? /may write to it$/ : /wants it to stay as it is$/);
        assert.match(cure ?? "", /end that one first/);
        // On one's own risk.
        closeSync(open(second === "reader", false));
      } finally {
        await end(child);
      }
      closeSync(open(second === "reader"));
    });
  }

  it("takes QEMU's bytes: what it does from 100 on, what others may not do from 200 on", () => {
    // Neighbours are one range to the kernel.
    for (const [isReadonly, expected] of [
      [true, ["READ 100 100", "READ 201 201"]],
      [false, ["READ 100 101", "READ 201 201"]],
    ] as const) {
      const fd = open(isReadonly);
      const locks = readFileSync(`/proc/self/fdinfo/${String(fd)}`, "utf8").match(/^lock:.*$/gm) ?? [];
      closeSync(fd);
      assert.deepEqual(
        locks.map((line) => line.replace(/.* (READ|WRITE) .* (\d+) (\d+)$/, "$1 $2 $3")).sort(),
        expected,
      );
    }
  });

  it("readers share", async () => {
    const child = await holder(true);
    try {
      assert.doesNotThrow(() => closeSync(open(true)));
    } finally {
      await end(child);
    }
  });

  it("the same image under two names in one process is one image", () => {
    const fd = open(false);
    for (const isReadonly of [false, true]) {
      assert.match(refusal(isReadonly, join(folder, "same")).message, /same: attached already, by this process$/);
    }
    closeSync(fd);
    closeSync(open(false, true, join(folder, "same")));
  });

  it("a refused opening leaves no lock behind", () => {
    const reader = open(true);
    assert.match(refusal(false).message, /attached already, by this process$/);
    // A writer's lock would keep the second reader out, any lock the last writer.
    assert.doesNotThrow(() => closeSync(open(true)));
    closeSync(reader);
    assert.doesNotThrow(() => closeSync(open(false)));
  });

  it("keeps out of QEMU's images, and QEMU out of ours", async function () {
    this.timeout(20_000);
    const qemu = "qemu-system-x86_64";
    if (spawnSync(qemu, ["--version"]).status !== 0) skip(this, "needs QEMU");
    const command = [
      ...["-M", "microvm", "-accel", "tcg", "-nodefaults", "-display", "none", "-S"],
      ...["-blockdev", `driver=file,filename=${path},node-name=a`],
      ...["-device", "virtio-blk-device,drive=a"],
    ];
    const child = spawn(qemu, command, { stdio: "ignore" });
    try {
      let message: string | undefined;
      for (let tries = 0; message === undefined && tries < 100; tries++) {
        await sleep(100);
        try {
          closeSync(open(true));
        } catch (error) {
          message = (error as DiskError).message;
        }
      }
      assert.match(message ?? "", new RegExp(`in use by process ${String(child.pid)} \\(qemu-system-x86\\)`));
    } finally {
      await end(child);
    }

    for (const isReadonly of [false, true]) {
      const fd = open(isReadonly);
      const { status, stderr } = spawnSync(qemu, command, { encoding: "utf8", timeout: 15_000 });
      closeSync(fd);
      assert.equal(status, 1, stderr);
      assert.match(stderr, /Failed to get .*lock/);
    }
  });

  it("a block device that is mounted is not written", function () {
    const image = join(folder, "mounted");
    writeFileSync(image, "");
    truncateSync(image, 4 * 2 ** 20);
    const point = mkdtempSync(join(folder, "mnt-"));
    let device: string;
    try {
      execFileSync("mke2fs", ["-q", image], { stdio: "pipe" });
      execFileSync("mount", ["-o", "loop", image, point], { stdio: "pipe" });
      device = execFileSync("findmnt", ["-no", "SOURCE", point], { encoding: "utf8" }).trim();
    } catch {
      skip(this, "cannot mount a loop device");
    }
    try {
      assert.match(refusal(false, device).message, /in use by this host: mounted/);
      closeSync(open(true, true, device));
      closeSync(open(false, false, device));
    } finally {
      execFileSync("umount", [point]);
    }
  });
});
