// Needs: what the lab needs, the built guest. The lab from its saved state, which it makes in a cache of its own.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { labBase } from "../../vmm/lab/image.js";
import { missingLabPrograms } from "../../vmm/lab/programs.js";
import { hashOf, type StateRecord } from "../../vmm/lab/saved-state.js";
import { timeLimit } from "../../vmm/host/time-limit.js";
import { countBoot } from "../helpers/booted.js";
import { skip } from "../helpers/skip.js";

const LIMIT_MS = 400_000;
const MADE = /its host boots, once/;
/** A program of the lab that a machine which has booted does not have there. */
const WAITING = "/run/vmlet/dist/vmlet.js";
const SEED_SCRIPT = `test -e ${WAITING} && cat /proc/sys/kernel/random/uuid && date +%s`;

interface Ended {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

describe("boot: the lab's saved state", function () {
  this.timeout(LIMIT_MS + 10_000);
  let folder = "";
  let states = "";

  async function vmlet(...argv: string[]): Promise<Ended> {
    const child = spawn("dist/vmlet.js", argv, {
      env: { ...process.env, VMLET_CACHE: join(folder, "cache"), TMPDIR: join(folder, "tmp") },
      stdio: ["ignore", "pipe", "pipe"],
      timeout: timeLimit("the lab", LIMIT_MS),
    });
    let [stdout, stderr] = ["", ""];
    child.stdout.setEncoding("latin1").on("data", (text: string) => (stdout += text));
    child.stderr.setEncoding("latin1").on("data", (text: string) => (stderr += text));
    const status = await new Promise<number | null>((done) => child.once("close", done));
    return { status, stdout, stderr };
  }

  const stateNames = (): string[] => readdirSync(states).filter((name) => /^[0-9a-f]+$/.test(name));

  before(async function () {
    const missing = missingLabPrograms();
    if (missing.length > 0) skip(this, `the lab lacks ${missing.join(", ")}`);
    const unbuilt = ["dist/vmlet.js", "guest/out/default/vmlinux"].find((file) => !existsSync(file));
    if (unbuilt !== undefined) skip(this, `${unbuilt} is not built`);
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    states = join(folder, "cache/lab/states");
    // The base is the one that every lab has here.
    const base = await labBase(resolve("."));
    for (const path of ["cache/lab", "tmp"]) mkdirSync(join(folder, path), { recursive: true });
    symlinkSync(base.folder, join(folder, "cache/lab", base.folder.split("/").at(-1) ?? ""));
  });
  after(() => {
    if (folder !== "") rmSync(folder, { recursive: true });
  });

  it("two at once make one, and both go on from it, with their own randomness and the right time", async () => {
    // Of a try before.
    rmSync(states, { recursive: true, force: true });
    const started = Math.floor(Date.now() / 1000);
    const labs = await Promise.all([
      vmlet("lab", "--", "sh", "-c", SEED_SCRIPT),
      vmlet("lab", "--", "sh", "-c", SEED_SCRIPT),
    ]);
    const now = Date.now() / 1000;
    assert.deepEqual(
      labs.map(({ status }) => status),
      [0, 0],
      labs.map(({ stderr }) => stderr).join("\n"),
    );
    assert.equal(labs.filter(({ stderr }) => MADE.test(stderr)).length, 1);
    assert.equal(stateNames().length, 1);
    const record = readFileSync(join(states, stateNames()[0] ?? "", "record.json"), "utf8");
    assert.ok(((JSON.parse(record) as StateRecord).vmletStream ?? 0) > 0, record);
    const lines = labs.map(({ stdout }) => stdout.trim().split("\n"));
    assert.match(lines[0]?.[0] ?? "", /^[0-9a-f-]{36}$/);
    assert.notEqual(lines[0]?.[0], lines[1]?.[0]);
    for (const [, time] of lines) assert.ok(Number(time) >= started && Number(time) <= now + 1, String(time));
  });

  it("the next ones start from it, with their disks, and leave nothing", async () => {
    const disks = ["one", "two, and a comma"].map((name) => join(folder, name));
    for (const [index, path] of disks.entries()) {
      writeFileSync(path, `disk ${String(index)}`);
      truncateSync(path, (index + 1) * 2 ** 20);
    }
    const script = "head -c 6 /dev/vda; head -c 6 /dev/vdb; cat /sys/block/vd?/size; printf W >/dev/vdb; cat; exit 7";
    const spec = disks.flatMap((path) => ["--disk", `path=${path.replaceAll(",", ",,")}`]);
    const { status, stdout, stderr } = await vmlet("boot", "--accel", "lab", "-q", ...spec, "--", "sh", "-c", script);
    countBoot();
    assert.deepEqual([status, stdout], [7, "disk 0disk 12048\n4096\n"], stderr);
    assert.doesNotMatch(stderr, /once|the lab boots/);
    assert.equal(readFileSync(disks[1] ?? "", "latin1").slice(0, 6), "Wisk 1");
    assert.deepEqual(readdirSync(join(folder, "tmp")), []);
  });

  it("where no machine goes on from it, the lab boots, with a word, and the state is gone", async () => {
    const [name = ""] = stateNames();
    const [machine, record] = ["machine", "record.json"].map((file) => join(states, name, file)) as [string, string];
    writeFileSync(machine, "QEMU cannot read this");
    const words = JSON.parse(readFileSync(record, "utf8")) as Record<string, unknown>;
    writeFileSync(record, JSON.stringify({ ...words, machine: hashOf(machine) }));
    const { status, stdout, stderr } = await vmlet("lab", "--", "sh", "-c", `test -e ${WAITING} || echo booted`);
    assert.deepEqual([status, stdout], [0, "booted\n"], stderr);
    assert.match(
      stderr,
      /^vmlet: the lab boots, because it could not go on from its saved state, which is removed: QEMU/m,
    );
    assert.deepEqual(stateNames(), []);
    assert.deepEqual(readdirSync(join(folder, "tmp")), []);
  });
});
