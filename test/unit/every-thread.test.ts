// Needs: nothing. System calls that all threads of a process make, and what becomes of the memory that they find them in.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";

const LIMIT_MS = 100_000;
const ROUNDS = 3000;
const moduleOf = (name: string): string =>
  JSON.stringify(new URL(`../../vmm/jail/${name}.js`, import.meta.url).pathname);

/** Of a process of its own, which ends with it if a thread meets memory that has gone. */
function run(body: string): { readonly status: number | null; readonly stdout: string; readonly stderr: string } {
  const script = [
    `import { readdirSync, stat } from "node:fs";`,
    `const { ThreadCalls } = await import(${moduleOf("every-thread")});`,
    `const { Scratch } = await import(${moduleOf("scratch")});`,
    // Node's pool, too.
    `await new Promise((done) => stat("/", done));`,
    `const others = readdirSync("/proc/self/task").map(Number).filter((thread) => thread !== process.pid);`,
    body,
  ].join("\n");
  const { status, stdout, stderr, signal } = spawnSync(process.execPath, ["--input-type=module", "-e", script], {
    encoding: "utf8",
    timeout: LIMIT_MS,
  });
  return { status, stdout: `${stdout}${signal ?? ""}`, stderr };
}

describe("jail: calls on every thread", () => {
  const SYS_GETPID = 39;
  const SYS_CLOSE = 3;

  it("each thread makes those of its list, and says how many have failed", () => {
    const { status, stdout, stderr } = run(`
const scratch = new Scratch();
const calls = new ThreadCalls(scratch);
const all = calls.begin(others, [{ number: ${String(SYS_GETPID)}, arguments: [] }, { number: ${String(SYS_CLOSE)}, arguments: [-1] }]);
calls.wait();
const own = calls.begin([process.pid], [{ number: ${String(SYS_CLOSE)}, arguments: [-1] }]);
calls.wait();
console.log(JSON.stringify([others.length > 4, all()[0], all()[1] === others.length, own()]));
calls.end();
scratch.remove();`);
    assert.deepEqual([status, stdout.trim(), stderr], [0, "[true,0,true,[1]]", ""]);
  });

  it(`${String(ROUNDS)} times over, no thread comes back to memory that has gone`, () => {
    const { status, stdout, stderr } = run(`
for (let round = 0; round < ${String(ROUNDS)}; round++) {
  const scratch = new Scratch();
  const calls = new ThreadCalls(scratch);
  calls.begin(others, [{ number: ${String(SYS_GETPID)}, arguments: [] }]);
  calls.wait();
  calls.end();
  scratch.remove();
}
console.log("done");`);
    assert.deepEqual([status, stdout.trim(), stderr], [0, "done", ""]);
  });
});
