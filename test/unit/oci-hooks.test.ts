// Needs: nothing. Hooks of a container: what they are given, when they are late, what they leave.
import assert from "node:assert/strict";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { hookFiles, runHooks } from "../../vmm/oci/hooks.js";
import { endFound, readersOf } from "../../vmm/oci/left-processes.js";
import type { OciHook } from "../../vmm/oci/runtime-spec.js";
import { Container, type ContainerRecord } from "../../vmm/oci/state.js";
import { processes } from "../helpers/container-leftovers.js";

describe("oci hooks", () => {
  let folder = "";
  let container: Container;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "vmlet-hooks-"));
    container = new Container(folder, "one");
    container.make();
  });
  afterEach(async () => {
    await endFound(() => processes(folder).map((line) => Number(/\d+/.exec(line)?.[0])), 1000);
    rmSync(folder, { recursive: true, force: true });
  });

  const shell = (script: string, more: Partial<OciHook> = {}): OciHook => ({
    path: "/bin/sh",
    args: ["sh", "-c", script],
    ...more,
  });
  const record = (hooks: readonly OciHook[]): ContainerRecord => ({
    id: "one",
    ociVersion: "1.0.2",
    bundle: folder,
    rootfs: folder,
    annotations: { a: "b" },
    created: "",
    owner: "root",
    cgroups: {},
    hooks: { prestart: hooks },
    memoryMib: 64,
    cpus: 1,
    shared: [],
    namespaces: 0,
    group: [],
    role: { kind: "alone" },
    joined: 0,
    steps: [],
    filter: [],
    jail: "on",
  });
  const run = (...hooks: readonly OciHook[]): Promise<void> =>
    runHooks("prestart", container, record(hooks), "creating");

  it("each has the state on its standard input, its own variables and no others, and its own name", async () => {
    const out = join(folder, "out");
    await run(
      shell(`cat >${out}; echo >>${out}; env >>${out}; echo "$0 $1" >>${out}`, {
        args: [
          "sh",
          "-c",
          `cat >${out}; echo >>${out}; env | grep -v ^PWD= | grep -v ^_= | grep -v ^SHLVL= >>${out}; echo "$0 $1" >>${out}`,
          "x",
          "y z",
        ],
        env: ["A=b=c", "D="],
      }),
      shell(`echo second >>${out}`),
    );
    const [state = "", ...rest] = readFileSync(out, "utf8").trim().split("\n");
    assert.deepEqual(JSON.parse(state), {
      ociVersion: "1.0.2",
      id: "one",
      status: "creating",
      pid: 0,
      bundle: folder,
      annotations: { a: "b" },
    });
    assert.deepEqual(rest.sort(), ["A=b=c", "D=", "second", "x y z"]);
    assert.deepEqual(readdirSync(container.folder), []);
  });

  it("the first that fails ends it, with what it has said last; one that says a lot may", async () => {
    const mark = join(folder, "mark");
    await assert.rejects(
      run(shell("head -c 3000000 /dev/zero | tr '\\0' x; echo last words >&2; exit 7"), shell(`touch ${mark}`)),
      /error running prestart hook #0: exit status 7, stdout: x{1024}, stderr: last words\n/,
    );
    assert.equal(existsSync(mark), false);
    await assert.rejects(run(shell("kill -USR1 $$")), /prestart hook #0: ended by SIGUSR1/);
    await assert.rejects(run(shell("true"), { path: "/nosuch/hook" }), /prestart hook #1: \/nosuch\/hook: ENOENT/);
    assert.deepEqual(readdirSync(container.folder), []);
  });

  it("one that is late ends with all that it has started", async () => {
    const begun = performance.now();
    await assert.rejects(run(shell(`sleep 100 & sleep 100 # ${folder}`, { timeout: 1 })), /it has taken more than 1 s/);
    assert.ok(performance.now() - begun < 20_000);
    assert.deepEqual(processes(folder), []);
  });

  it("one that leaves a program behind, which keeps its output open, is not waited for", async () => {
    await run(shell(`sleep 100 & echo $! >${folder}/pid`));
    const pid = Number(readFileSync(join(folder, "pid"), "utf8"));
    assert.equal(existsSync(`/proc/${String(pid)}`), true);
    process.kill(pid, "SIGKILL");
  });

  it("one whose runtime has gone is found by its standard input, with its children", async () => {
    const running = run(shell(`sleep 100 & sleep 100 # ${folder}`)).catch(() => undefined);
    const files = hookFiles(container);
    assert.equal(files.length, 1);
    // In a shell without job control, what it starts in the background has /dev/null there.
    while (readersOf(files).length < 1) await new Promise((resolve) => setTimeout(resolve, 5));
    await endFound(() => readersOf(files), 5000);
    await running;
    assert.deepEqual(readersOf(files), []);
  });
});
