// Needs: root, virtiofsd, a /dev/kvm on which guests run, a built program, busybox. The jail of a container's monitor from inside, by an
// attacker who owns that process once its program has begun (test/programs/attack.cjs); and how it is turned off.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { countBoot } from "../helpers/booted.js";
import { busyboxTree } from "../helpers/busybox-image.js";
import { leftovers, makeParentGroups, removeParentGroups, temporaryFiles } from "../helpers/container-leftovers.js";
import { attackEnvironment, expectedOn, TRIES } from "../helpers/jail-tries.js";
import { callRuntime, RUNTIME, RUNTIME_LIMIT_MS, whyNoContainers } from "../helpers/oci-runtime.js";
import { skip } from "../helpers/skip.js";

/** Another run of this test may be at work on the host. */
const GROUP = `vmlet-jail-${String(process.pid)}`;
const EXIT_JAIL = 148;
/** What tries would make beside the file that they are given. */
const MADE = ["file.new", "file.folder", "file.link"];

/** One or more of each kind. */
const TRIED = [
  ...["a file is read", "a file is made", "a file is renamed", "a file is removed", "a process is forked"],
  ...["memory of another process is read", "a program is started", "another process is signalled"],
  ...["another process is traced", "a socket is made", "a namespace is entered", "something is mounted"],
  ...["capabilities are set", "a VM is made", "machine code becomes memory", "another thread makes a socket"],
];

describe("oci runtime's jail", function () {
  this.timeout(RUNTIME_LIMIT_MS);
  let folder = "";
  let root = "";
  let count = 0;
  let temporary: readonly string[] = [];
  const inFolder = (name: string): string => join(folder, name);
  const text = (name: string): string => readFileSync(inFolder(name), "utf8");

  before(function () {
    const why = whyNoContainers();
    if (why !== undefined) return skip(this, why);
    folder = mkdtempSync(join(tmpdir(), "vmlet-oci-"));
    root = inFolder("state");
    temporary = temporaryFiles();
    makeParentGroups(GROUP);
    busyboxTree(folder);
    countBoot();
  });

  after(() => {
    if (root !== "" && existsSync(root))
      for (const id of readdirSync(root)) callRuntime(root, ["delete", "--force", id]);
    removeParentGroups(GROUP);
    if (folder !== "") rmSync(folder, { recursive: true });
  });

  function writeConfig(args: readonly string[], annotations: Readonly<Record<string, string>>): void {
    const namespaces = ["network", "pid", "ipc", "uts", "mount"].map((type) => ({ type }));
    const spec = {
      ociVersion: "1.0.2",
      hostname: "box",
      annotations,
      process: { user: { uid: 0, gid: 0 }, args, cwd: "/", env: ["PATH=/bin"] },
      mounts: [{ destination: "/proc", type: "proc", source: "proc" }],
      root: { path: "root" },
      linux: { namespaces, cgroupsPath: `/${GROUP}/c` },
    };
    writeFileSync(inFolder("config.json"), JSON.stringify(spec));
  }

  /** Standard output and error are files, which Node writes to by the function that the attacker waits for. */
  async function attack(
    names: readonly string[],
    annotations = {},
    more: NodeJS.ProcessEnv = {},
  ): Promise<number | null> {
    writeConfig(["echo", "up"], annotations);
    for (const name of ["file", "log"]) writeFileSync(inFolder(name), "");
    for (const made of MADE) rmSync(inFolder(made), { recursive: true, force: true });
    const victim = spawn("sleep", ["1000"]);
    const env = { ...attackEnvironment(names, victim.pid ?? 0, inFolder("file")), ...more };
    const [out, err] = ["out", "err"].map((name) => openSync(inFolder(name), "w"));
    const words = ["--root", root, "--log", inFolder("log"), "--log-format", "json", "run", "-b", folder];
    const child = spawn(RUNTIME, [...words, `c${String(count++)}`], { env, stdio: ["ignore", out, err] });
    const [status] = (await once(child, "exit")) as [number | null];
    for (const fd of [out, err]) if (fd !== undefined) closeSync(fd);
    victim.kill("SIGKILL");
    return status;
  }

  function assertNothingLeft(): void {
    const places = { folder, root, cgroupParent: GROUP, networks: [], temporary };
    assert.deepEqual(leftovers(places), []);
  }

  function assertRefused(name: string, status: number | null): void {
    const expected = expectedOn(name);
    assert.ok(!("answer" in expected));
    const message = `vmlet: the jail has ended this VM: system call ${expected.call}, thread ${expected.thread}`;
    assert.deepEqual([text("err"), status], [`${message}\n`, EXIT_JAIL]);
    assert.deepEqual(text("log").trim().split("\n"), [JSON.stringify({ level: "error", msg: message })]);
    for (const made of MADE) assert.ok(!existsSync(inFolder(made)), made);
  }

  it("without it, all of it goes through: these tries can fail", async () => {
    const status = await attack(TRIED, { "io.vmlet.jail": "off" });
    const lines = text("out").trim().split("\n");
    assert.deepEqual([lines, status], [TRIED.map((name) => `${name}: reached`), 0], text("err"));
  });

  for (const name of TRIED) {
    it(`${name}: ${TRIES[name]?.call ?? ""} is refused, and nothing stays`, async () => {
      const status = await attack([name]);
      const expected = expectedOn(name);
      if ("answer" in expected) {
        assert.deepEqual([text("out"), text("err"), status], [`${name}: ${expected.answer}\n`, "", 0]);
      } else assertRefused(name, status);
      assertNothingLeft();
    });
  }

  it("a call that is refused before start has answered ends it in the same way", async () => {
    assertRefused("a socket is made", await attack(["a socket is made"], {}, { VMLET_MOMENT: "seal" }));
    assertNothingLeft();
  });

  /** Of each thread that is a program's: its state, and its network namespace. */
  function threadsOf(pid: number): readonly (readonly [string, string])[] {
    const PF_USER_WORKER = 0x4000;
    return readdirSync(`/proc/${String(pid)}/task`)
      .map((thread) => `/proc/${String(pid)}/task/${thread}`)
      .filter((task) => {
        const fields = readFileSync(`${task}/stat`, "latin1")
          .replace(/^.*\) /s, "")
          .split(" ");
        return (Number(fields[6]) & PF_USER_WORKER) === 0;
      })
      .map((task) => [readFileSync(`${task}/status`, "latin1"), readlinkSync(`${task}/ns/net`)]);
  }

  function create(id: string, options: readonly string[] = []): ReturnType<typeof callRuntime> {
    const words = ["--root", root, ...options, "create", "-b", folder, "--pid-file", inFolder("pid"), id];
    const err = openSync(inFolder("err"), "w");
    const { status } = spawnSync(RUNTIME, words, {
      stdio: ["ignore", "ignore", err],
      timeout: RUNTIME_LIMIT_MS,
    });
    closeSync(err);
    return { status, stdout: "", stderr: text("err") };
  }

  it("every thread has no rights, the filter, and the container's network; an option or an annotation turns it off", () => {
    for (const [options, annotations, isSealed] of [
      [[], {}, true],
      [["--jail", "off"], { "io.vmlet.jail": "on" }, true],
      [["--jail=on"], {}, true],
      [["--jail", "off"], {}, false],
      [[], { "io.vmlet.jail": "off" }, false],
    ] as const) {
      writeConfig(["sleep", "1000"], annotations);
      const id = `t${String(count++)}`;
      assert.equal(create(id, options).status, 0);
      assert.equal(callRuntime(root, ["start", id]).status, 0);
      const pid = Number(text("pid"));
      const what = JSON.stringify([options, annotations]);
      const threads = threadsOf(pid);
      const own = readlinkSync(`/proc/${String(pid)}/ns/net`);
      assert.notEqual(own, readlinkSync("/proc/self/ns/net"));
      for (const [state, network] of threads) {
        for (const [field, value] of [
          ["NoNewPrivs", 1],
          ["Seccomp", 2],
        ] as const) {
          const found = Number(new RegExp(`^${field}:\\s*(\\d+)$`, "m").exec(state)?.[1]);
          assert.equal(found, isSealed ? value : 0, `${what}: ${field}`);
        }
        assert.equal(/^CapPrm:\s*0+$/m.test(state), isSealed, what);
        if (isSealed) assert.equal(network, own, what);
      }
      assert.equal(callRuntime(root, ["exec", id, "true"]).status, 0, what);
      assert.equal(callRuntime(root, ["delete", "--force", id]).status, 0);
    }
  });

  it("what is neither on nor off, and what the option forbids, is refused before anything is made", () => {
    writeConfig(["true"], { "io.vmlet.jail": "strict" });
    assert.match(create("no").stderr, /annotations\.io\.vmlet\.jail: \\"strict\\" is neither on nor off/);
    writeConfig(["true"], { "io.vmlet.jail": "off" });
    assert.match(
      create("no", ["--jail", "on"]).stderr,
      /io\.vmlet\.jail: off: the runtime's option --jail on forbids it/,
    );
    assert.match(create("no", ["--jail", "maybe"]).stderr, /invalid jail: maybe/);
    assert.deepEqual(readdirSync(root), []);
  });
});
