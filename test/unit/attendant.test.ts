// Needs: `make build`, with gcc. The attendant of a process in the jail: what it does at the end, whatever brings that about, and what it does
// not do any more behind the seal.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readlinkSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { start } from "../helpers/program.js";
import { placeOf } from "../../vmm/jail/attendant.js";
import { skip } from "../helpers/skip.js";

const LAUNCHER = resolve("dist/vmlet-jailer");
const ATTENDANT = JSON.stringify(resolve("build/vmm/jail/attendant.js"));

interface Record {
  readonly id: string;
  readonly exitCode: number;
  readonly finished: string;
  readonly error?: string;
}

describe("attendant", function () {
  this.timeout(30_000);
  let folder = "";

  before(function () {
    const { stdout } = spawnSync(LAUNCHER, ["--version"], { encoding: "utf8" });
    if (!stdout.startsWith("Jailer")) skip(this, "no dist/vmlet-jailer (make build, with gcc)");
  });

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "vmlet-attendant-"));
    mkdirSync(join(folder, "vm"));
    for (const name of ["vm/record", "vm/socket", "file", "other"]) writeFileSync(join(folder, name), "");
    symlinkSync("vm", join(folder, "link"));
    symlinkSync("elsewhere", join(folder, "others-link"));
  });

  afterEach(() => {
    rmSync(folder, { recursive: true });
  });

  const at = (name: string): string => join(folder, name);
  const program = (text: string): string =>
    `const { Attendant } = await import(${ATTENDANT}); const attendant = Attendant.own; const folder = ${JSON.stringify(folder)};
     const { readdirSync, writeSync, readFileSync } = await import("node:fs"); ${text}`;
  /** As dist/vmlet.js starts it: the launcher looks for the words behind Node's "--" and the script. */
  const words = (text: string): string[] => [
    "around",
    "node",
    "--input-type=module",
    "-e",
    program(text),
    "--",
    "",
    "run",
  ];

  function run(text: string): { readonly status: number | null; readonly stdout: string; readonly stderr: string } {
    return spawnSync(LAUNCHER, words(text), { encoding: "utf8", timeout: 20_000 });
  }

  const REMOVES = `attendant.removesAtEnd(folder + "/file"); attendant.removesAtEnd(folder + "/vm");
    attendant.removesLinkAtEnd(folder + "/others-link", "vm"); attendant.removesLinkAtEnd(folder + "/link", "vm");`;

  function assertRemoved(): void {
    for (const name of ["file", "vm", "vm/record"]) assert.equal(existsSync(at(name)), false, name);
    assert.throws(() => readlinkSync(at("link")));
    assert.equal(readlinkSync(at("others-link")), "elsewhere");
    assert.equal(existsSync(at("other")), true);
  }

  it("removes files, folders and links by the time that the process has ended, and is gone itself", () => {
    const { status, stderr, stdout } = run(
      `${REMOVES} attendant.sealed(); console.log(process.env.VMLET_ATTENDANT.split(" ")[2]); attendant.end(0);`,
    );
    assert.equal(status, 0, stderr);
    assertRemoved();
    assert.equal(existsSync(`/proc/${stdout.trim()}`), false);
  });

  it("does nothing that was not settled", () => {
    const { status } = run(`attendant.end(0);`);
    assert.equal(status, 0);
    assert.equal(existsSync(at("vm/record")), true);
  });

  it("takes nothing more behind the seal", () => {
    const { status, stderr } = run(
      `attendant.removesAtEnd(folder + "/file"); attendant.sealed(); attendant.removesAtEnd(folder + "/other");
       attendant.writesAtEnd(folder + "/other", {}); attendant.keepsLog(folder + "/other");
       let error = ""; try { attendant.turnLog(); } catch ({ message }) { error = message; }
       attendant.end(0); if (error !== "The log cannot be turned") throw new Error(error);`,
    );
    assert.equal(status, 0, stderr);
    assert.equal(existsSync(at("file")), false);
    assert.equal(readFileSync(at("other"), "utf8"), "");
  });

  it("connects to what listens for the guest at a port of the settled path, and to nothing else", async () => {
    const [own, other] = ["vsock", "other.sock"].map((name) => at(name));
    const servers = [`${own ?? ""}_52`, `${own ?? ""}_4294967295`, other].map((path) =>
      createServer((socket) => socket.end("served")).listen(path),
    );
    const asking = start([
      LAUNCHER,
      ...words(`const { Socket } = await import("node:net"); attendant.connectsFor(folder + "/vsock"); attendant.sealed();
        attendant.connectsFor(folder + "/other"); const found = [];
        for (const port of [52, 53, 4294967295, "52\\0", "", "../other.sock", "/../other.sock", "052", "00000000052", -1, "5 2"]) {
          const fd = attendant.connection(port);
          if (fd === undefined) { found.push(0); continue; }
          const socket = new Socket({ fd });
          found.push((await socket.setEncoding("latin1").toArray()).join(""));
        }
        console.log(JSON.stringify(found)); attendant.end(0);`),
    ]);
    const { stdout, stderr } = await asking.ended;
    for (const server of servers) server.close();
    assert.equal(stderr, "");
    assert.deepEqual(JSON.parse(stdout), ["served", 0, "served", "served", 0, 0, 0, 0, 0, 0, 0]);
  });

  it("hears of a process that is killed, also if what that has started lives on", async () => {
    const killed = start([
      LAUNCHER,
      ...words(`const { spawn } = await import("node:child_process");
        ${REMOVES} attendant.writesAtEnd(folder + "/other", { id: "a" }); attendant.sealed();
        const other = spawn("sleep", ["1000"]); console.log(other.pid + "."); setInterval(() => undefined, 1000);`),
    ]);
    await killed.until(".\n");
    killed.child.kill("SIGKILL");
    const { stdout } = await killed.ended;
    while (existsSync(at("link")) || existsSync(at("vm"))) await sleep(10);
    process.kill(Number.parseInt(stdout), "SIGKILL");
    assertRemoved();
    const { id, exitCode, error } = JSON.parse(readFileSync(at("other"), "utf8")) as Record;
    assert.deepEqual([id, exitCode, error], ["a", 137, "the process in which it lived was killed"]);
  });

  it("finishes a record with a code, the time and an error that may be anything", () => {
    const before = Date.now();
    const { status, stderr } = run(
      `attendant.writesAtEnd(folder + "/other", { id: "ä\\"\\\\" }); attendant.sealed();
       attendant.end(7, 'a "quoted" \\\\ text\\n\\0 and more' + "x".repeat(5000));`,
    );
    assert.equal(status, 0, stderr);
    const text = readFileSync(at("other"), "utf8");
    const { id, exitCode, finished, error = "" } = JSON.parse(text) as Record;
    assert.deepEqual([id, exitCode], ['ä"\\', 7]);
    assert.match(error, /^a \?quoted\? \? text\?$/);
    assert.ok(Date.parse(finished) >= before && Date.parse(finished) <= Date.now(), finished);
  });

  it("turns a log", () => {
    const { status, stderr } = run(
      `attendant.keepsLog(folder + "/other"); attendant.sealed();
       const first = attendant.turnLog(); writeSync(first, "first"); const second = attendant.turnLog(); writeSync(second, "second");
       if (first === second) throw new Error("the same"); attendant.end(0);`,
    );
    assert.equal(status, 0, stderr);
    assert.equal(readFileSync(at("other"), "utf8"), "second");
    assert.equal(readFileSync(at("other.1"), "utf8"), "first");
  });

  it("is no other process's: one that has inherited the variable has none", () => {
    assert.equal(placeOf("10 3 11", 12), undefined);
    assert.equal(placeOf(undefined, 12), undefined);
    assert.deepEqual(placeOf("12 3 11", 12), { fd: 3, process: 11 });
  });

  it("has nothing open that its VM has, and ends with it without a word", () => {
    const { stdout, status } = run(
      `const pid = process.env.VMLET_ATTENDANT.split(" ")[2];
       console.log(readdirSync("/proc/" + pid + "/fd").join(), readFileSync("/proc/" + pid + "/comm", "utf8").trim());`,
    );
    assert.equal(status, 0);
    assert.equal(stdout, "0,1,2,3,4 vmlet-attendant\n");
  });

  it("is not there for a VM without a jail", () => {
    const text = program("console.log(attendant)");
    const jail = ["--jail", "off"];
    const given = ["around", "node", "--input-type=module", "-e", text, "--", ""];
    for (const asked of [["run", ...jail], ["boot"], ["boot", "--jail=off"], ["monitor", "--jail=off"]]) {
      assert.equal(execFileSync(LAUNCHER, [...given, ...asked], { encoding: "utf8" }), "undefined\n", asked.join(" "));
    }
  });
});
