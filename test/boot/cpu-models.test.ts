// Needs: QEMU. Two emulated hosts with different AMD processors: what is saved on the newer one is refused on the older one,
// with what is missing; a CPU template of both makes it fit, in both directions.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { timeLimit } from "../../vmm/host/time-limit.js";
import { V8_FLAGS } from "../../vmm/host/v8-flags.js";
import { LAB_CLI, packageInputs } from "../../vmm/lab/checkout.js";
import { missingLabPrograms } from "../../vmm/lab/programs.js";
import { labDiskPath } from "../../vmm/lab/disks.js";
import { LabSession } from "../../vmm/lab/session.js";
import { countBoot } from "../helpers/booted.js";
import { PROGRAM } from "../helpers/program.js";
import { skip } from "../helpers/skip.js";

const LIMIT_MS = 400_000;
const OLDER = "Opteron_G3";
const NEWER = "EPYC";
const MEMORY_MIB = 1024;
const DISK_BYTES = 400 << 20;
const EXIT_DATA = 65;
/** `vmlet`, the disk that both have, and `save FOLDER OPTION...`: a guest that waits for a line is saved there. */
const TOOLS = `set -e
vmlet() { node ${V8_FLAGS.join(" ")} ${LAB_CLI} "$@"; }
mkdir -p /run/shared
mount -t ext4 ${labDiskPath(0)} /run/shared
trap 'cd /; umount /run/shared' EXIT
cd /run/shared
save() {
  folder=$1; shift
  mkfifo /run/in; : >/run/out
  vmlet boot --accel kvm --quiet --control /run/control "$@" -- sh -c 'echo up; read line; echo got $line; exit 5' </run/in >/run/out &
  exec 9>/run/in
  until grep -q up /run/out; do sleep 0.1; done
  vmlet snapshot create --stop /run/control $folder >/dev/null
  exec 9>&-
  wait || true
  rm /run/in /run/out
}
`;

describe("boot: snapshots between two models of processor", function () {
  this.timeout(timeLimit("two labs", LIMIT_MS));
  // An emulated host can hang, now and then: that says nothing about snapshots.
  this.retries(1);
  let folder = "";
  const labs: LabSession[] = [];

  before(function () {
    const missing = missingLabPrograms("amd");
    if (missing.length > 0) skip(this, `the lab lacks ${missing.join(", ")}`);
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
  });

  afterEach(async () => {
    for (const lab of labs.splice(0)) await lab.close();
  });
  after(() => {
    if (folder !== "") rmSync(folder, { recursive: true });
  });

  async function start(model: string, disk: string): Promise<LabSession> {
    const packageRoot = resolve(".");
    const inputs = [
      ...packageInputs(packageRoot),
      { from: "guest/out/default/vmlinux", to: "vmlet/guest/out/default/vmlinux" },
      { from: "guest/out/initramfs.cpio", to: "vmlet/guest/out/initramfs.cpio" },
    ];
    const disks = [{ path: disk, isReadonly: false, cache: "writeback", lock: false }] as const;
    // One processor: two emulated ones can hang each other.
    const lab = await LabSession.start({ packageRoot, memoryMib: MEMORY_MIB, cpus: 1, model, inputs, disks });
    labs.push(lab);
    return lab;
  }

  it("refused with what is missing, made to fit by a template, and moved there and back", async () => {
    const disk = join(folder, "shared.img");
    writeFileSync(disk, "");
    truncateSync(disk, DISK_BYTES);
    execFileSync("mke2fs", ["-q", "-F", "-t", "ext4", disk]);
    const [older, newer] = [await start(OLDER, disk), await start(NEWER, disk)];
    const shell = async (lab: LabSession, script: string, stdin = "") => {
      const { status, stdout, stderr } = await lab.run({ argv: ["sh", "-c", TOOLS + script], stdin });
      return { status, stdout: stdout.toString("utf8"), stderr: stderr.toString("utf8") };
    };

    const files: string[] = [];
    for (const [lab, name] of [
      [older, "older.json"],
      [newer, "newer.json"],
    ] as const) {
      const { status, stdout, stderr } = await shell(lab, "vmlet doctor --json");
      assert.equal(status, 0, stderr);
      files.push(join(folder, name));
      writeFileSync(join(folder, name), stdout);
    }
    const template = spawnSync(PROGRAM, ["snapshot", "cpu-template", ...files], { encoding: "utf8" });
    assert.equal(template.status, 0, template.stderr);

    const saved = await shell(
      newer,
      "cat >ours.json; save plain; save fitting --cpu-template ours.json",
      template.stdout,
    );
    assert.deepEqual([saved.status, saved.stdout], [0, ""], saved.stderr);
    const here = await shell(older, "vmlet snapshot restore plain </dev/null");
    assert.deepEqual([here.status, here.stdout], [EXIT_DATA, ""], here.stderr);
    for (const feature of ["sse4_1", "sse4_2", "aes", "bmi1"])
      assert.match(here.stderr, new RegExp(`\\b${feature}\\b`));
    const fits = await shell(
      older,
      "echo moved | vmlet snapshot restore fitting || echo $?; save old --cpu-template ours.json",
    );
    assert.deepEqual([fits.status, fits.stdout], [0, "got moved\n5\n"], fits.stderr);
    const back = await shell(newer, "echo back | vmlet snapshot restore old || echo $?");
    assert.deepEqual([back.status, back.stdout], [0, "got back\n5\n"], back.stderr);
    countBoot();
  });
});
