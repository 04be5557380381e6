// Needs: root, gcc, and a static busybox. The guest's real agent, in a root of its own on this host, makes containers: namespaces,
// their first processes, control groups, and who joins them.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { NAMESPACES, steps, type ContainerRequest } from "../../vmm/agent/container-request.js";
import type { Agent } from "../../vmm/agent/agent.js";
import type { GuestProcess } from "../../vmm/agent/exec.js";
import { AgentProgram, type RealAgent } from "../helpers/real-agent.js";
import { skip } from "../helpers/skip.js";

const BUSYBOX = "/bin/busybox";
/** The program's folder becomes the root, as a guest has one. */
const IN_ROOT_OF_ITS_OWN = `
mount --make-rprivate / && cd "\${0%/*}" && mount --bind . . && cd "$PWD" &&
mkdir -p bin proc sys dev root old box/bin box/proc box/tmp box/dev && echo -n >box/dev/null && cp ${BUSYBOX} bin/busybox && cp ${BUSYBOX} box/bin/busybox &&
for name in sh sleep cat ls kill ps hostname id tty readlink head echo ipcmk; do ln -s busybox bin/$name; ln -s busybox box/bin/$name; done &&
mount -t proc proc proc && mount --rbind /dev dev && mount -t sysfs sysfs sys && pivot_root . old && /bin/busybox umount -l old && exec /init "$@"`;
const OWN = NAMESPACES.mount | NAMESPACES.pid | NAMESPACES.ipc | NAMESPACES.uts | NAMESPACES.cgroup;
const BOX = [...steps.enter("/box"), ...steps.mount("proc", "proc", "/proc", 0, "")];
/** Its end is heard of early. */
const WATCHED = { steps: BOX, made: OWN, endsGuest: true };
/** Nobody else's on this host, whose processes the agent sees. */
const LONG_SLEEP = `sleep ${String(1_000_000 + process.pid)}`;
const GROUP = `vmlet-test-${String(process.pid)}`;

describe("agent, containers", () => {
  const program = new AgentProgram(["unshare", "-m", "sh", "-c", IN_ROOT_OF_ITS_OWN]);
  let running: RealAgent;
  const agent = (): Agent => running.agent;
  const run = (script: string, container: ContainerRequest) => agent().run(["sh", "-c", script], { container });
  const begun: GuestProcess[] = [];
  /** One that says "ready", and stays. */
  const begin = async (script: string, container: ContainerRequest, terminal = false): Promise<GuestProcess> => {
    const argv = ["sh", "-c", `${script}\necho ready; while :; do sleep 1; done`];
    const child = await agent().exec(argv, { container, terminal });
    begun.push(child);
    for await (const chunk of child.stdout) if (String(chunk).includes("ready")) return child;
    throw new Error("it has ended");
  };

  before(function () {
    if (process.getuid?.() !== 0) skip(this, "not root");
    if (!existsSync(BUSYBOX)) skip(this, `no ${BUSYBOX}`);
    const problem = program.build();
    if (problem !== undefined) skip(this, problem);
    const programs = join(dirname(program.path), "box/bin");
    mkdirSync(programs, { recursive: true });
    const words = ["-O1", "-Wall", "-Werror", "-static", "-pthread", "-o", join(programs, "ends")];
    const { status, stderr } = spawnSync("gcc", [...words, resolve("test/programs/ends.c")]);
    assert.equal(status, 0, String(stderr));
    running = program.start();
  });

  afterEach(async () => {
    for (const child of begun.splice(0)) {
      child.kill("SIGKILL");
      await child.exit;
    }
  });

  after(async () => {
    await program.close();
  });

  it("the program is process 1 of its own, with its parent 0, and sees no process of others", async () => {
    const { stdout, stderr, exitCode } = await run("echo $$ $PPID; ps -o pid,args; exit 7", { steps: BOX, made: OWN });
    const [numbers, , ...processes] = stdout.trim().split("\n");
    assert.deepEqual([numbers, exitCode, stderr], ["1 0", 7, ""]);
    assert.deepEqual(
      processes.map((line) => line.trim().split(" ")[0]),
      ["1", "2"],
    );
  });

  it("process 1 ends by no signal that it does not handle, but by KILL, and all its processes end with it", async () => {
    const first = await begin(`${LONG_SLEEP} &`, { steps: BOX, made: OWN });
    first.kill("SIGTERM");
    first.kill("SIGHUP");
    const { stdout } = await run("kill -9 1; kill -15 1; ps -o args", { steps: [], join: first.pid, joined: OWN });
    assert.ok(stdout.includes(LONG_SLEEP), stdout);
    const all = async (): Promise<number> =>
      (await agent().guest.processes()).filter(({ command }) => command.join(" ").includes(LONG_SLEEP)).length;
    assert.ok((await all()) >= 2);
    first.kill("SIGKILL");
    assert.deepEqual(await first.exit, { exitCode: 137, signal: "SIGKILL" });
    assert.equal(await all(), 0);
  });

  it("a handler of process 1 gets its signal, and the exit code is the program's", async () => {
    const child = await begin("trap 'exit 5' TERM", { steps: BOX, made: OWN });
    child.kill("SIGTERM");
    assert.deepEqual(await child.exit, { exitCode: 5, signal: null });
  });

  it("a program whose end is heard of early has the exit code of all its threads", async () => {
    const ends = (...words: readonly string[]) => agent().run(["ends", ...words], { container: WATCHED });
    for (let i = 0; i < 5; i++) {
      const other = await ends("other", "9");
      assert.deepEqual([other.exitCode, other.signal], [9, null]);
      const signal = await ends("signal");
      assert.deepEqual([signal.exitCode, signal.signal], [139, "SIGSEGV"]);
      // The first thread's end is not the program's.
      const first = await ends("first", "3");
      assert.deepEqual([first.exitCode, first.stdout], [3, "later\n"]);
    }
  });

  it("a program gets each of its signals, few or many, and one that stops it", async () => {
    for (const total of [3, 40]) {
      const child = await agent().exec(["ends", "counting", String(total)], { container: WATCHED });
      begun.push(child);
      let said = "";
      for await (const chunk of child.stdout) {
        said += String(chunk);
        const last = said.trim().split("\n").at(-1);
        if (last === "2") {
          child.kill("SIGSTOP");
          child.kill("SIGCONT");
        }
        if (last !== String(total)) child.kill("SIGUSR1");
      }
      assert.deepEqual(await child.exit, { exitCode: 6, signal: null });
    }
  });

  it("whoever comes into a container can trace its program", async () => {
    const first = await begin("true", WATCHED);
    const container = { steps: [], join: first.pid, joined: OWN };
    const { exitCode } = await agent().run(["ends", "tracing", "1"], { container });
    assert.equal(exitCode, 0);
  });

  it("a program with a terminal leads its session as process 1, and ^C is its own", async () => {
    const { stdout, exitCode } = await agent().run(["sh", "-c", "tty; ps -o pid,tty,args; read x; echo got $x"], {
      container: { steps: [...BOX, ...steps.terminal("/dev/console")], made: OWN },
      terminal: true,
      stdin: "word\n",
    });
    assert.match(stdout, /got word/);
    assert.equal(exitCode, 0);
    // Before its trap is set it would not hear it, as process 1.
    const interrupted = await begin("trap 'exit 9' INT", { steps: BOX, made: OWN }, true);
    interrupted.stdin.write("\x03");
    assert.deepEqual(await interrupted.exit, { exitCode: 9, signal: null });
  });

  it("exec is in the same namespaces: processes, names, messages, mounts", async () => {
    const first = await begin("mkdir -p /tmp/here", {
      steps: [...BOX, ...steps.hostname("first"), ...steps.mount("tmpfs", "tmpfs", "/tmp", 0, "")],
      made: OWN,
    });
    const all = "for n in mnt pid ipc uts cgroup; do readlink /proc/1/ns/$n; readlink /proc/self/ns/$n; done";
    const { stdout, stderr } = await run(`echo $PPID; hostname; ls /tmp; ${all}`, {
      steps: [],
      join: first.pid,
      joined: OWN,
    });
    const [parent, name, ...rest] = stdout.trim().split("\n");
    assert.deepEqual([parent, name, stderr], ["0", "first", ""]);
    assert.equal(rest.length, 11, stdout);
    for (let at = 1; at < rest.length; at += 2) assert.equal(rest[at], rest[at + 1]);
    assert.notEqual((await agent().run(["hostname"])).stdout.trim(), "first");
  });

  it("a second container shares what it joins, and has the rest to itself", async () => {
    const first = await begin("ipcmk -Q >/dev/null", { steps: [...BOX, ...steps.hostname("pod")], made: OWN });
    const shared = NAMESPACES.ipc | NAMESPACES.uts;
    const { stdout } = await run("hostname; ps -o args | grep -c sleep; readlink /proc/self/ns/ipc", {
      steps: BOX,
      made: OWN & ~shared,
      join: first.pid,
      joined: shared,
    });
    const [name, , ipc] = stdout.trim().split("\n");
    const [own = ""] = (
      await run("readlink /proc/self/ns/ipc", { steps: [], join: first.pid, joined: OWN })
    ).stdout.split("\n");
    assert.deepEqual([name, ipc], ["pod", own]);
    assert.doesNotMatch(stdout, /echo ready/);
    const both = await run("echo $$; ps -o args", {
      steps: BOX,
      made: NAMESPACES.mount,
      join: first.pid,
      joined: shared | NAMESPACES.pid,
    });
    assert.match(both.stdout, /echo ready/);
    assert.notEqual(both.stdout.split("\n")[0], "1");
    // Its end is not the first one's.
    assert.equal((await run("exit 0", { steps: [], join: first.pid, joined: OWN })).exitCode, 0);
  });

  it("a control group counts the container, shows only itself, and ends it with all that it has", async function () {
    const group = [...steps.cgroup(`${GROUP}/one`), ...BOX, ...steps.mount("cgroup2", "cgroup2", "/tmp", 0, "")];
    const first = await begin("sleep 1000 & cat /proc/self/cgroup; ls /tmp", { steps: group, made: OWN });
    const list = async (): Promise<string[]> =>
      (await agent().files.readText(`/sys/fs/cgroup/${GROUP}/one/cgroup.procs`)).trim().split("\n");
    const before = await list();
    assert.ok(before.length >= 2, before.join());
    assert.ok(before.includes(String(first.pid)));
    const { stdout } = await run("cat /proc/self/cgroup", {
      steps: [...steps.cgroup(`${GROUP}/one`)],
      join: first.pid,
      joined: OWN,
    });
    assert.match(stdout, /^0::\/$/m);
    await agent().files.write(`/sys/fs/cgroup/${GROUP}/one/cgroup.kill`, "1");
    assert.equal((await first.exit).exitCode, 137);
    await agent().files.remove(`/sys/fs/cgroup/${GROUP}/one`);
    await agent().files.remove(`/sys/fs/cgroup/${GROUP}`);
  });

  it("what cannot be is refused, with its reason, and nothing of it goes on", async () => {
    const refused = async (container: ContainerRequest): Promise<string> => {
      try {
        await run("exit 0", container);
      } catch (error) {
        return (error as Error).message;
      }
      return "";
    };
    const first = await begin(":", { steps: BOX, made: OWN });
    first.kill("SIGKILL");
    await first.exit;
    assert.match(await refused({ steps: [], join: first.pid, joined: OWN }), /first process is not there/);
    assert.match(await refused({ steps: BOX, made: 0x8000_0000 }), /no such namespace/);
    for (const name of ["../out", "/top", "a//b", "", "a/..", "a b"]) {
      assert.match(await refused({ steps: [...steps.cgroup(name), ...BOX] }), /step g/, name);
    }
    assert.match(await refused({ steps: [...steps.cgroupLimit("pids.max", "1")] }), /step q/);
    assert.match(await refused({ steps: [...steps.cgroup("a"), ...steps.cgroupLimit("../pids.max", "1")] }), /step q/);
    assert.match(
      await refused({ steps: [...BOX, ...steps.mount("none", "x", "/y", 0, "")], made: OWN }),
      /step m\): \/y/,
    );
    await agent().files.remove("/sys/fs/cgroup/a");
  });
});
