// Needs: nothing. Signals as events, and those that this program was started to ignore.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { resolve } from "node:path";
import { ignoringAlike, readIgnored, toIgnoreAgain } from "../../vmm/host/inherited-signals.js";
import { endSignals } from "../../vmm/sys/end-signals.js";

/** A program of its own, in which `onEndSignals` and the rest are at hand. */
function program(body: string): {
  readonly status: number | null;
  readonly signal: string | null;
  readonly stdout: string;
  readonly stderr: string;
} {
  const module = (path: string): string => JSON.stringify(resolve("build/vmm/sys", path));
  const code = `
    const { onEndSignals } = await import(${module("end-signals.js")});
    const { catchSignals } = await import(${module("signals.js")});
    const { execFileSync } = await import("node:child_process");
    const kill = (signal, pid = process.pid) => execFileSync("/bin/kill", ["-" + signal, String(pid)]);
    const turn = () => new Promise((resolve) => setTimeout(resolve, 20));
    ${body}`;
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, ["--input-type=module", "-e", code], {
    encoding: "utf8",
    timeout: 30_000,
  });
  return { status, signal, stdout, stderr };
}

describe("signals", function () {
  this.timeout(40_000);

  it("all that end a program are caught, up to the last real-time one", () => {
    const { stdout } = program(`
      const seen = [];
      onEndSignals((number) => seen.push(number));
      for (const signal of ${JSON.stringify(endSignals())}) kill(signal);
      await turn();
      console.log(JSON.stringify(seen));`);
    assert.deepEqual(JSON.parse(stdout), endSignals());
    assert.ok(endSignals().includes(64) && !endSignals().includes(40), "40 is the kick of vCPUs");
  });

  it("once nobody listens, a signal has its default action again", () => {
    const { signal } = program(`onEndSignals(() => undefined)(); kill(12); await turn();`);
    assert.equal(signal, "SIGUSR2");
  });

  it("a program that answers nothing is ended by the third", () => {
    const busy = `onEndSignals(() => undefined);
      for (let count = 0; count < 3; count++) kill(15);
      for (const end = Date.now() + 10_000; Date.now() < end; );`;
    assert.equal(program(busy).status, 143);
  });

  it("two that are not answered yet do not end it", () => {
    const { status, stdout } = program(`let seen = 0;
      onEndSignals(() => seen++);
      kill(15); kill(15); await turn(); kill(15); await turn();
      console.log(seen);`);
    assert.deepEqual([status, stdout], [0, "2\n"]);
  });

  it("a fault of the processor is no signal to answer: it ends the program", () => {
    const { signal } = program(`onEndSignals(() => undefined);
      const { viewMemory } = await import(${JSON.stringify(resolve("build/vmm/sys/memory.js"))});
      new Uint8Array(viewMemory(4096, 16))[0] = 1;`);
    assert.equal(signal, "SIGSEGV");
  });

  it("Node's abort ends the program with the reason that it keeps to itself; a SIGABRT from outside is a signal", () => {
    const { signal, stderr } = program(`onEndSignals(() => undefined); process.abort();`);
    assert.equal(signal, "SIGABRT");
    assert.match(stderr, /^vmlet: Node has aborted; .*raise ulimit -u, or the cgroup's pids\.max\n$/m);
    const sent = program(`onEndSignals((number) => console.log(number)); kill(6); await turn();`);
    assert.deepEqual([sent.status, sent.stdout, sent.stderr], [0, "6\n", ""]);
  });

  it("SIGCONT and SIGTSTP come as often as they like", () => {
    const { status, stdout } = program(`let seen = 0;
      catchSignals([18, 20], () => seen++, { ends: false });
      for (let count = 0; count < 5; count++) { kill(18); kill(20); }
      await turn();
      console.log(seen);`);
    assert.deepEqual([status, stdout], [0, "2\n"]);
  });

  it("what was ignored at the start is read from the program's first line, once", () => {
    const environment = { VMLET_SIGIGN: "8000000001001005" };
    assert.deepEqual([...readIgnored(environment)], [1, 3, 13, 25, 64]);
    assert.deepEqual(environment, {});
    for (const text of ["", "x", "-1", "12345678901234567"]) {
      assert.deepEqual([...readIgnored({ VMLET_SIGIGN: text })], [], text);
    }
    assert.deepEqual(toIgnoreAgain(), []);
  });

  it("the C library's own signals, which posix_spawn(3) leaves ignored, are none of ours", () => {
    assert.deepEqual([...readIgnored({ VMLET_SIGIGN: "0000000181001000" })], [13, 25]);
  });

  it("a program that is started ignores alike", () => {
    assert.deepEqual(ignoringAlike(["make", "-C", "a b"]), ["make", "-C", "a b"]);
    const code = `import(${JSON.stringify(resolve("build/vmm/host/inherited-signals.js"))}).then(({ ignoringAlike }) =>
      console.log(JSON.stringify(ignoringAlike(["grep", "SigIgn", "/proc/self/status"]))))`;
    const env = { ...process.env, VMLET_SIGIGN: "0000000000001003" };
    const [file = "", ...argv] = JSON.parse(
      execFileSync(process.execPath, ["-e", code], { env, encoding: "utf8" }),
    ) as string[];
    const mask = /SigIgn:\s+([\da-f]{16})\n/.exec(execFileSync(file, argv, { encoding: "utf8" }))?.[1] ?? "";
    // Without 32 and 33, the C library's own, which posix_spawn(3) leaves ignored.
    assert.equal(BigInt(`0x${mask}`) & ~(3n << 31n), 3n);
  });
});
