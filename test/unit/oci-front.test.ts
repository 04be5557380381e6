// Needs: gcc. The runtime's front: what it does by itself, and what it leaves to Node. A container's monitor is a socket of this
// process's; dist/vmlet-runtime.js, a program that prints what it was given.
import assert from "node:assert/strict";
import { execFileSync, spawn, spawnSync, type ChildProcessByStdio } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { frontText } from "../../vmm/oci/front-file.js";
import { Container, type ContainerRecord } from "../../vmm/oci/state.js";
import { processes } from "../helpers/container-leftovers.js";
import { ownIdentity, type ProcessIdentity } from "../../vmm/sdk/process-identity.js";

interface Outcome {
  readonly status: number | null;
  /** Words that Node was given; undefined: it was not needed. */
  readonly node: readonly string[] | undefined;
}

describe("the runtime's front", function () {
  this.timeout(60_000);
  let folder = "";
  let front = "";
  let root = "";
  const servers: Server[] = [];

  before(() => {
    folder = mkdtempSync(join(tmpdir(), "vmlet-front-"));
    front = join(folder, "vmlet-runtime");
    root = join(folder, "state");
    const flags = ["-std=gnu11", "-Os", "-Wall", "-Wextra", "-Werror", "-static", '-DNODE_FLAGS="--no-warnings",'];
    execFileSync("gcc", [...flags, "-o", front, "vmm/oci/front/front.c"]);
    const told =
      "[process.argv.slice(2),process.env.NODE_EXTRA_CA_CERTS??'',process.env.VMLET_SIGIGN,process.execArgv]";
    const early = "['monitor','relay'].includes(process.argv[2])";
    const monitor =
      "fs.writeFileSync(process.argv[3]+'.told',`${process.argv.slice(2)} in ${process.cwd()}`);" +
      // The kernel closes what its command had before it ends this one.
      "if(fs.readSync(Number(process.env.VMLET_EARLY),Buffer.alloc(1))>0)fs.writeFileSync(process.argv[3]+'.left','')";
    const print = `console.log(JSON.stringify(${told}));process.exitCode=42`;
    writeFileSync(
      join(folder, "vmlet-runtime.js"),
      `const fs=require("node:fs");if(${early}){${monitor}}else{${print}; setTimeout(()=>0,Number(process.env.STAYS??0))}\n`,
    );
  });

  beforeEach(() => {
    mkdirSync(root);
  });

  afterEach(() => {
    for (const server of servers.splice(0)) server.close();
    rmSync(root, { recursive: true });
  });

  after(() => {
    rmSync(folder, { recursive: true });
  });

  const begin = (words: readonly string[], stays = 0): ChildProcessByStdio<null, Readable, null> =>
    spawn(front, words, {
      stdio: ["ignore", "pipe", "inherit"],
      env: { ...process.env, NODE_EXTRA_CA_CERTS: "/none", STAYS: String(stays) },
    });

  const call = async (...words: readonly string[]): Promise<Outcome> => {
    const child = begin(words);
    let text = "";
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
    const status = await new Promise<number | null>((resolve) => child.once("close", resolve));
    if (text === "") return { status, node: undefined };
    const [argv, certificates, ignored, flags] = JSON.parse(text) as [string[], string, string, string[]];
    assert.deepEqual([certificates, flags], ["", ["--no-warnings", "--"].slice(0, flags.length)]);
    assert.match(ignored, /^[0-9a-f]{16}$/);
    return { status, node: argv };
  };

  const ofFront: Outcome = { status: 0, node: undefined };
  const ofNode = (...argv: readonly string[]): Outcome => ({ status: 42, node: argv });
  const gone = (): ProcessIdentity => ({ ...ownIdentity(), pid: spawnSync("true").pid, startTicks: 1 });

  /** A container as `create` leaves it. */
  const make = (id: string, some: Partial<ContainerRecord> = {}, more = ""): Container => {
    const container = new Container(root, id);
    container.make();
    const record = {
      monitor: ownIdentity(),
      hooks: {},
      role: { kind: "alone" },
      cgroups: {},
      ...some,
    } as unknown as ContainerRecord;
    container.write(record);
    const text = frontText(record);
    assert.ok(text !== undefined);
    container.writeFront(text + more);
    return container;
  };

  /** Answers each request with the line; the result has what it was asked. */
  const listen = async (container: Container, reply: string): Promise<string[]> => {
    const asked: string[] = [];
    const server = createServer((socket) => {
      socket.on("data", (text) => {
        asked.push(String(text).trim());
        socket.end(`${reply}\n`);
      });
      socket.on("error", () => undefined);
    });
    servers.push(server);
    await new Promise<void>((done) => server.listen(join(container.folder, "control.sock"), done));
    return asked;
  };

  it("starts a container: its monitor is asked, once it listens", async () => {
    const container = make("one");
    const started = call("--root", root, "--log", "/dev/null", "--log-format=json", "--systemd-cgroup", "start", "one");
    await new Promise((resolve) => setTimeout(resolve, 50));
    const asked = await listen(container, '{"ok":true}');
    assert.deepEqual(await started, ofFront);
    assert.deepEqual(asked, ['{"start":true}']);
  });

  it("leaves it to Node to tell why a container does not start, and not to ask again", async () => {
    const asked = await listen(make("one"), '{"error":"no such \\"file\\""}');
    assert.deepEqual(
      await call("--root", root, "start", "one"),
      ofNode("--root", root, "start", "--answer", '{"error":"no such \\"file\\""}\n', "one"),
    );
    assert.equal(asked.length, 1);
  });

  it("starts none with hooks, none whose monitor has ended, none that is not created to its end, none of a pod's end", async () => {
    const hook = { path: "/bin/true" };
    for (const kind of ["startContainer", "poststart"]) {
      const asked = await listen(make(kind, { hooks: { [kind]: [hook] } }), '{"ok":true}');
      assert.deepEqual(await call("--root", root, "start", kind), ofNode("--root", root, "start", kind));
      assert.deepEqual(asked, []);
    }
    make("ended", { monitor: gone() });
    assert.deepEqual(await call("--root", root, "start", "ended"), ofNode("--root", root, "start", "ended"));
    rmSync(join(make("half").folder, "front"));
    assert.deepEqual(await call("--root", root, "start", "half"), ofNode("--root", root, "start", "half"));
    make("earlier", { monitor: { ...ownIdentity(), boot: "00000000-0000-0000-0000-000000000000" } });
    assert.deepEqual(await call("--root", root, "start", "earlier"), ofNode("--root", root, "start", "earlier"));
  });

  it("sends signals by number and name", async () => {
    const asked = await listen(make("one"), '{"ok":true}');
    for (const words of [["one"], ["one", "9"], ["one", "KILL"], ["one", "SIGUSR1"]]) {
      assert.deepEqual(await call("--root", root, "kill", ...words), ofFront);
    }
    assert.deepEqual(
      asked,
      [15, 9, 9, 10].map((signal) => JSON.stringify({ signal })),
    );
    for (const words of [
      ["one", "0"],
      ["one", "SIGWHAT"],
      ["--all", "one", "9"],
      ["one", "9", "9"],
      ["none", "9"],
    ]) {
      assert.deepEqual(await call("--root", root, "kill", ...words), ofNode("--root", root, "kill", ...words));
    }
    assert.equal(asked.length, 4);
  });

  it("deletes a container that has ended as it should, with its control groups", async () => {
    const group = join(root, "group");
    mkdirSync(group);
    const cgroups = { cpu: group, memory: join(root, "no-such-group") };
    const { folder: own } = make("one", { monitor: gone(), cgroups });
    for (const name of ["config.json", "phase.json", "agent.sock", "control.sock"]) writeFileSync(join(own, name), "");
    mkdirSync(join(own, "share"));
    assert.deepEqual(await call("--root", root, "delete", "one"), ofFront);
    assert.deepEqual(readdirSync(root), []);
    assert.deepEqual(await call("--root", root, "delete", "--force", "one"), ofFront);
    assert.deepEqual(await call("--root", root, "delete", "one"), ofNode("--root", root, "delete", "one"));
  });

  it("leaves to Node, whole, what is not as it should be", async () => {
    const group = join(root, "full");
    mkdirSync(join(group, "child"), { recursive: true });
    writeFileSync(join(folder, "outside"), "");
    const cases: Readonly<Record<string, (container: Container) => void>> = {
      network: ({ folder: own }) => {
        writeFileSync(join(own, "network.json"), "{}");
      },
      relay: ({ folder: own }) => {
        writeFileSync(join(own, "relay-7.json"), "{}");
      },
      another: ({ folder: own }) => {
        writeFileSync(join(own, "deleter.json"), "{}");
      },
      shared: ({ folder: own }) => {
        mkdirSync(join(own, "share/root"), { recursive: true });
      },
    };
    for (const [id, change] of Object.entries(cases)) {
      const container = make(id, { monitor: gone() });
      change(container);
      const before = readdirSync(container.folder).sort();
      assert.deepEqual(
        await call("--root", root, "delete", "--force", id),
        ofNode("--root", root, "delete", "--force", id),
      );
      assert.deepEqual(readdirSync(container.folder).sort(), before);
    }
    const others: Readonly<Record<string, Container>> = {
      lives: make("lives"),
      group: make("group", { monitor: gone(), cgroups: { cpu: group } }),
      hook: make("hook", { monitor: gone(), hooks: { poststop: [{ path: "/bin/true" }] } }),
      pod: make("pod", { monitor: gone(), role: { kind: "sandbox" } }),
      unknown: make("unknown", { monitor: gone() }, "else\n"),
      long: make("long", { monitor: gone() }, "x".repeat(20_000)),
    };
    for (const [id, container] of Object.entries(others)) {
      const before = readdirSync(container.folder).sort();
      assert.deepEqual(await call("--root", root, "delete", id), ofNode("--root", root, "delete", id));
      assert.deepEqual(readdirSync(container.folder).sort(), before);
    }
    symlinkSync(make("target", { monitor: gone() }).folder, join(root, "link"));
    assert.deepEqual(await call("--root", root, "delete", "link"), ofNode("--root", root, "delete", "link"));
    assert.deepEqual(
      await call("--root", root, "delete", "../state/target"),
      ofNode("--root", root, "delete", "../state/target"),
    );
    assert.ok(existsSync(join(root, "target")) && existsSync(join(folder, "outside")));
  });

  it("starts a monitor beside create, which ends with that if it is not admitted", async () => {
    const words = ["--root", root, "create", "-b", "/bundle", "--pid-file=/none", "one"];
    const { node = [] } = await call(...words);
    assert.deepEqual(
      node.filter((word) => !word.startsWith("--early=")),
      words,
    );
    assert.match(node[3] ?? "", /^--early=\d+,\d+$/);
    const create = begin([...words.slice(0, -1), "two"], 60_000);
    const told = join(root, "two.told");
    // A file is there before its contents are.
    const hasTold = (): boolean => existsSync(told) && readFileSync(told).length > 0;
    const alive = (): string[] => processes(join(root, "two"));
    try {
      for (let turn = 0; turn < 1000 && !hasTold(); turn++) await new Promise((done) => setTimeout(done, 10));
      assert.equal(readFileSync(told, "utf8"), `monitor,${join(root, "two")} in /`);
      assert.equal(alive().length, 1);
    } finally {
      create.kill("SIGKILL");
    }
    for (let turn = 0; turn < 1000 && alive().length > 0; turn++) await new Promise((done) => setTimeout(done, 10));
    assert.deepEqual(alive(), []);
    assert.ok(!existsSync(join(root, "two.left")));
  });

  it("starts a relay beside a detached exec", async () => {
    make("one");
    const words = ["--root", root, "exec", "-d", "--process", "/none", "--pid-file", "/none", "one", "sh", "-d"];
    const { node = [] } = await call(...words);
    assert.match(node[3] ?? "", /^--early=\d+,\d+$/);
    assert.deepEqual(
      node.filter((word) => !word.startsWith("--early=")),
      words,
    );
    for (const options of [[], ["-d", "--console-socket", "/none"], ["-d", "-t"]]) {
      const others = ["--root", root, "exec", ...options, "one", "sh", "-d"];
      assert.deepEqual(await call(...others), ofNode(...others));
    }
  });

  it("leaves the monitor to create where it has a terminal, and where its words are not plain", async () => {
    mkdirSync(join(root, "there"));
    for (const words of [
      ["create", "--console-socket", "/none", "one"],
      ["create", "--what", "one"],
      ["create", "--", "one"],
      ["create", "one", "two"],
      ["create", "there"],
      ["create", "-b"],
    ]) {
      assert.deepEqual(await call("--root", root, ...words), ofNode("--root", root, ...words));
    }
    const crooked = join(root, "..") + "/./state";
    assert.deepEqual(await call("--root", crooked, "create", "one"), ofNode("--root", crooked, "create", "one"));
  });

  it("gives Node every other command as it is", async () => {
    for (const words of [
      [],
      ["--version"],
      ["--root"],
      ["--root", root, "state", "one"],
      ["--root", root, "exec", "--detach", "one", "sh", "-c", "a b"],
      ["--rootless", "true", "--root", root, "delete", "--force", "none"],
      ["--log-format", "xml", "--root", root, "delete", "--force", "none"],
      ["--root", root, "delete", "--help"],
    ]) {
      assert.deepEqual(await call(...words), ofNode(...words));
    }
  });
});
