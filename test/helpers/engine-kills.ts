// A Docker engine of the test's own whose processes are killed at random moments, decided by a seed: the engine, containerd, the
// shim, vmlet-runtime's commands, the monitor. What is left once the engine has been started again, and has removed the container.
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { closeSync, existsSync, mkdirSync, mkdtempSync, openSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { unmountBelow } from "../../bench/ladder/leftovers.js";
import { Random, caseSeed } from "../fuzz/random.js";
import { busyboxTree } from "./busybox-image.js";
import {
  leftovers,
  makeParentGroups,
  processes,
  removeParentGroups,
  temporaryFiles,
  type ContainerPlaces,
} from "./container-leftovers.js";
import { storageDriver } from "../../bench/ladder/rungs/docker-engine.js";

interface Answer {
  readonly status: number | null;
  readonly said: string;
}

const COMMAND_LIMIT_MS = 120_000;
const START_LIMIT_MS = 90_000;
/** From a kill to the engine's own clearing up. */
const SETTLE_MS = 20_000;
const RETRY_MS = 200;
const IMAGE = "vmlet-kills:1";
const VICTIMS = {
  engine: "dockerd ",
  containerd: "/containerd/containerd.toml",
  shim: "containerd-shim-runc-v2 -namespace",
  runtime: "vmlet-runtime --root",
  monitor: "vmlet-runtime.js monitor",
} as const;
export type Victim = keyof typeof VICTIMS;
const VICTIM_NAMES = Object.keys(VICTIMS) as Victim[];
const MOMENTS = ["run", "run", "exec", "kill", "pause", "rm"] as const;

export class EngineKills {
  readonly folder: string;
  readonly #places: ContainerPlaces;
  readonly #seed: number;
  #engine: ChildProcess | undefined;

  readonly #victims: readonly Victim[];

  constructor(seed: number, victims: readonly Victim[] = VICTIM_NAMES) {
    this.#seed = seed;
    this.#victims = victims;
    this.folder = mkdtempSync(join(tmpdir(), "vmlet-kills-"));
    this.#places = {
      folder: this.folder,
      root: join(this.folder, "exec/runtime-runc/moby"),
      cgroupParent: basename(this.folder),
      networks: [],
      temporary: temporaryFiles(),
    };
    makeParentGroups(this.#places.cgroupParent);
  }

  async open(): Promise<void> {
    await this.#start();
    const tree = busyboxTree(this.folder);
    const archive = join(this.folder, "image.tar");
    spawnSync("tar", ["-C", tree, "-cf", archive, "."], { timeout: COMMAND_LIMIT_MS });
    const made = await this.#docker("import", archive, IMAGE);
    if (made.status !== 0) throw new Error(`docker import: ${made.said}`);
  }

  async round(index: number): Promise<{ readonly what: string; readonly left: readonly string[] }> {
    const random = new Random(caseSeed(this.#seed, index));
    const moment = random.pick(MOMENTS);
    const victim = random.pick(this.#victims);
    const ms = random.below(moment === "run" ? 2500 : 500);
    const name = `c${String(index)}`;
    const run = ["run", "-d", "--name", name, "--runtime", "vmlet", "--network", "none", IMAGE, "sleep", "1000"];
    if (moment !== "run") await this.#docker(...run);
    const commands = {
      run,
      exec: ["exec", name, "sleep", "100"],
      kill: ["kill", name],
      pause: ["pause", name],
      rm: ["rm", "-f", name],
    };
    const command = this.#docker(...commands[moment]);
    await sleep(ms);
    const killed = this.#kill(VICTIMS[victim]);
    if (moment === "exec" && (victim === "runtime" || killed === 0)) this.#kill("docker --host");
    await command;
    const left = await this.#removed(name);
    return { what: `kill ${String(index)}: ${victim} (${String(killed)}) in ${moment} after ${String(ms)} ms`, left };
  }

  async close(): Promise<void> {
    await this.#stop();
    for (const line of processes(this.folder)) this.#killPid(Number(/^process (\d+)/.exec(line)?.[1]));
    await sleep(100);
    removeParentGroups(this.#places.cgroupParent);
    unmountBelow(this.folder);
    rmSync(this.folder, { recursive: true, force: true });
  }

  /** What is left once the engine, started again if it has ended, has removed the container; a restart may be needed. */
  async #removed(name: string): Promise<string[]> {
    if ((await this.#removedBy(name)).length === 0) return [];
    await this.#stop();
    if ((await this.#removedBy(name)).length === 0) return [];
    // Docker 20.10 forgets a container that it was about to start, or to remove: with any runtime it is containerd's then.
    await this.#removeForgotten();
    // What containerd has forgotten, too, its shim alone knows: that one is containerd's, the rest is the runtime's.
    if (this.#leftovers().length > 0) await this.#deleteByForce();
    return this.#leftovers();
  }

  async #deleteByForce(): Promise<void> {
    const { root } = this.#places;
    for (const id of existsSync(root) ? readdirSync(root) : []) {
      await this.#call(resolve("dist/vmlet-runtime"), "--root", root, "delete", "--force", id);
    }
    this.#kill(VICTIMS.shim);
    for (const id of this.#bundles()) rmSync(join(this.#tasks, id), { recursive: true, force: true });
    await sleep(RETRY_MS);
  }

  async #removeForgotten(): Promise<void> {
    const containerd = ["--address", join(this.folder, "exec/containerd/containerd.sock"), "--namespace", "moby"];
    for (const id of this.#bundles()) {
      await this.#call("ctr", ...containerd, "tasks", "delete", "--force", id);
      await this.#call("ctr", ...containerd, "containers", "delete", id);
    }
  }

  #bundles(): string[] {
    return existsSync(this.#tasks) ? readdirSync(this.#tasks) : [];
  }

  get #tasks(): string {
    return join(this.folder, "exec/containerd/daemon/io.containerd.runtime.v2.task/moby");
  }

  async #removedBy(name: string): Promise<string[]> {
    let left: string[] = [];
    for (const begun = performance.now(); performance.now() - begun < SETTLE_MS;) {
      if (!(await this.#answers())) await this.#start();
      const { status, said } = await this.#docker("rm", "-f", name);
      left = this.#leftovers();
      if (status !== 0 && !said.includes("No such container")) left.unshift(`docker rm -f: ${said}`);
      if (left.length === 0) return [];
      await sleep(RETRY_MS);
    }
    return left;
  }

  #leftovers(): string[] {
    const isEngine = (line: string): boolean =>
      [VICTIMS.engine, VICTIMS.containerd].some((text) => line.includes(text));
    const mounts = readFileSync("/proc/self/mounts", "utf8").split("\n");
    return [
      ...leftovers(this.#places).filter((line) => !isEngine(line) && !line.startsWith("socket")),
      ...this.#bundles().map((id) => `bundle ${id}`),
      ...mounts.filter((line) => line.includes(this.folder) && line.includes("/merged")).map((line) => `mount ${line}`),
    ];
  }

  async #stop(): Promise<void> {
    const engine = this.#engine;
    if (engine?.exitCode !== null || engine.signalCode !== null) return;
    engine.kill("SIGTERM");
    const timer = setTimeout(() => engine.kill("SIGKILL"), SETTLE_MS);
    await once(engine, "exit");
    clearTimeout(timer);
  }

  async #start(): Promise<void> {
    if (this.#engine?.exitCode === null && this.#engine.signalCode === null) {
      // Its containerd comes again by itself.
      for (let turn = 0; turn < 100; turn++) if (await this.#answers()) return;
      this.#engine.kill("SIGKILL");
      await once(this.#engine, "exit");
    }
    mkdirSync(join(this.folder, "exec"), { recursive: true });
    rmSync(join(this.folder, "pid"), { force: true });
    const flags = [
      ...["--iptables=false", "--ip6tables=false", "--ip-forward=false", "--userland-proxy=false", "--bridge=none"],
      ...[
        "--log-level=error",
        "--storage-driver",
        storageDriver(this.folder),
        "--cgroup-parent",
        `/${this.#places.cgroupParent}`,
      ],
      ...["--data-root", join(this.folder, "data"), "--exec-root", join(this.folder, "exec")],
      ...["--pidfile", join(this.folder, "pid"), "--host", this.#host],
      ...["--add-runtime", `vmlet=${resolve("dist/vmlet-runtime")}`],
    ];
    for (const begun = performance.now(); performance.now() - begun < START_LIMIT_MS;) {
      // It gives up where its containerd takes long to look after what is left, and is started again.
      if (this.#engine?.exitCode !== null || this.#engine.signalCode !== null) {
        const log = openSync(join(this.folder, "log"), "a");
        this.#engine = spawn("dockerd", flags, { stdio: ["ignore", log, log] });
        closeSync(log);
      }
      if (await this.#answers()) return;
      await sleep(RETRY_MS);
    }
    throw new Error(`dockerd does not answer: ${readFileSync(join(this.folder, "log"), "utf8").slice(-500)}`);
  }

  get #host(): string {
    return `unix://${join(this.folder, "socket")}`;
  }

  async #answers(): Promise<boolean> {
    const { status } = await this.#docker("version");
    return status === 0;
  }

  #docker(...words: readonly string[]): Promise<Answer> {
    return this.#call("docker", "--host", this.#host, ...words);
  }

  async #call(program: string, ...words: readonly string[]): Promise<Answer> {
    const child = spawn(program, words, { stdio: ["ignore", "ignore", "pipe"] });
    let said = "";
    child.stderr.setEncoding("utf8").on("data", (text: string) => (said = (said + text).slice(-1000)));
    const timer = setTimeout(() => child.kill("SIGKILL"), COMMAND_LIMIT_MS);
    if (child.exitCode === null && child.signalCode === null) await once(child, "close");
    clearTimeout(timer);
    return { status: child.exitCode, said: said.trim() };
  }

  /** All of the test's own processes with the text in their command line; how many. */
  #kill(text: string): number {
    const found = processes(this.folder).filter((line) => line.includes(text));
    for (const line of found) this.#killPid(Number(/^process (\d+)/.exec(line)?.[1]));
    return found.length;
  }

  #killPid(pid: number): void {
    try {
      if (pid > 1) process.kill(pid, "SIGKILL");
    } catch {
      // It has ended by itself.
    }
  }
}
