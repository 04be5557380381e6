// Containers whose commands and processes are killed at random moments, decided by a seed, and what `delete --force` leaves of
// them. vmlet-runtime's own commands, without an engine.
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { statFields } from "../../vmm/sdk/process-identity.js";
import { findProgram } from "../../vmm/host/programs.js";
import { Random, caseSeed } from "../fuzz/random.js";
import { busyboxTree } from "./busybox-image.js";
import {
  leftovers,
  makeParentGroups,
  removeParentGroups,
  temporaryFiles,
  type ContainerPlaces,
} from "./container-leftovers.js";
import { RUNTIME, whyNoContainers } from "./oci-runtime.js";

const COMMAND_LIMIT_MS = 120_000;
/** From the end of `delete --force` to that of what the kernel has killed with its parent, on a host that is busy. */
const SETTLE_MS = 5000;
const LOOK_MS = 20;

/** Who is killed, and when: from the beginning of the command that it belongs to. */
const VICTIMS: readonly { readonly name: string; readonly withinMs: number }[] = [
  { name: "create", withinMs: 250 },
  { name: "create in a hook", withinMs: 400 },
  { name: "monitor in create", withinMs: 600 },
  { name: "file server", withinMs: 400 },
  { name: "stopped monitor", withinMs: 400 },
  { name: "stopped file server", withinMs: 400 },
  { name: "start", withinMs: 400 },
  { name: "monitor in start", withinMs: 600 },
  { name: "exec", withinMs: 300 },
  { name: "relay", withinMs: 300 },
  { name: "monitor in exec", withinMs: 300 },
  { name: "kill", withinMs: 100 },
  { name: "delete", withinMs: 120 },
  { name: "pause", withinMs: 150 },
  { name: "monitor in pause", withinMs: 150 },
  { name: "run", withinMs: 900 },
];

/** Why nobody can be killed here; undefined if somebody can. */
export function whyNoKills(): string | undefined {
  return (
    whyNoContainers() ??
    (findProgram("ip") !== undefined && findProgram("tc") !== undefined ? undefined : "iproute2 is not installed")
  );
}

export class ContainerKills {
  readonly folder: string;
  readonly #places: ContainerPlaces;
  readonly #seed: number;
  readonly #children = new Set<ChildProcess>();

  constructor(seed: number) {
    this.#seed = seed;
    this.folder = mkdtempSync(join(tmpdir(), "vmlet-kills-"));
    const name = basename(this.folder);
    this.#places = {
      folder: this.folder,
      root: join(this.folder, "state"),
      cgroupParent: name,
      networks: [name],
      temporary: temporaryFiles(),
    };
    mkdirSync(this.#places.root);
    makeParentGroups(name);
    this.#ip("netns", "add", name);
    this.#ip("-n", name, "link", "add", "eth0", "type", "veth", "peer", "name", "peer0");
    this.#ip("-n", name, "link", "set", "eth0", "up");
    const path = busyboxTree(this.folder);
    this.#bundle("plain", path, {});
    const hook = { path: "/bin/sh", args: ["sh", "-c", `sleep 3 # ${this.folder}`] };
    this.#bundle("hook", path, { createRuntime: [hook] });
  }

  /** One kill; the result tells what it was and what is left. */
  async round(index: number): Promise<{ readonly what: string; readonly left: readonly string[] }> {
    const random = new Random(caseSeed(this.#seed, index));
    const { name, withinMs } = random.pick(VICTIMS);
    const ms = random.below(withinMs);
    const id = `c${String(index)}`;
    const what = `kill ${String(index)}: ${name} after ${String(ms)} ms`;
    let why: string[] = [];
    try {
      await this.#kill(name, id, ms);
    } catch (error) {
      why = [String(error)];
    }
    const { status, said } = await this.#ended(this.#begin("delete", "--force", id));
    const left = [...why, ...(await this.#settled())];
    return { what, left: status === 0 ? left : [`delete --force: ${String(status)}: ${said}`, ...left] };
  }

  /** A process that was told to end with its command may still wait for a processor. */
  async #settled(): Promise<string[]> {
    for (const begun = performance.now(); ;) {
      const left = leftovers(this.#places);
      if (left.every((line) => !line.startsWith("process ")) || performance.now() - begun > SETTLE_MS) return left;
      await sleep(LOOK_MS);
    }
  }

  /** What the test itself has made. */
  close(): void {
    for (const child of this.#children) child.kill("SIGKILL");
    for (const id of readdirSync(this.#places.root)) {
      spawnSync(RUNTIME, ["--root", this.#places.root, "delete", "--force", id], { timeout: COMMAND_LIMIT_MS });
    }
    spawnSync("ip", ["netns", "delete", this.#places.cgroupParent], { timeout: COMMAND_LIMIT_MS });
    removeParentGroups(this.#places.cgroupParent);
    rmSync(this.folder, { recursive: true });
  }

  async #kill(victim: string, id: string, ms: number): Promise<void> {
    const create = ["create", "-b", join(this.folder, victim === "create in a hook" ? "hook" : "plain"), id];
    if (victim === "run") return this.#after(this.#begin("run", ...create.slice(1)), ms);
    if (victim.startsWith("create")) return this.#after(this.#begin(...create), ms);
    if (victim === "monitor in create") {
      const command = this.#begin(...create);
      await sleep(ms);
      this.#monitor(id)?.kill("SIGKILL");
      await this.#ended(command);
      return;
    }
    await this.#done(create);
    if (/file server|stopped/.test(victim)) {
      await sleep(ms);
      const [, target] = /(monitor|file server)/.exec(victim) ?? [];
      const signal = victim.startsWith("stopped") ? "SIGSTOP" : "SIGKILL";
      if (target === "monitor") this.#monitor(id)?.kill(signal);
      else for (const pid of this.#servers(id)) process.kill(pid, signal);
      return;
    }
    if (victim === "start") return this.#after(this.#begin("start", id), ms);
    if (victim === "monitor in start") {
      const command = this.#begin("start", id);
      await sleep(ms);
      this.#monitor(id)?.kill("SIGKILL");
      await this.#ended(command);
      return;
    }
    if (victim === "delete" && ms % 2 === 0) return this.#after(this.#begin("delete", "--force", id), ms);
    await this.#done(["start", id]);
    const commands: Readonly<Record<string, readonly string[]>> = {
      exec: ["exec", id, "sleep", "100"],
      relay: ["exec", "--detach", id, "sleep", "100"],
      "monitor in exec": ["exec", id, "sleep", "100"],
      kill: ["kill", id, "KILL"],
      delete: ["delete", "--force", id],
      pause: ["pause", id],
      "monitor in pause": ["pause", id],
    };
    const command = this.#begin(...(commands[victim] ?? []));
    if (victim === "relay") {
      await this.#ended(command);
      for (const pid of this.#processesOf(`relay ${join(this.#places.root, id)} `))
        process.kill(pid, ms % 2 === 0 ? "SIGKILL" : "SIGSTOP");
      return;
    }
    if (!victim.startsWith("monitor")) return this.#after(command, ms);
    await sleep(ms);
    this.#monitor(id)?.kill("SIGKILL");
    await this.#ended(command);
  }

  async #after(command: ChildProcess, ms: number): Promise<void> {
    await sleep(ms);
    command.kill("SIGKILL");
    await this.#ended(command);
  }

  #bundle(name: string, root: string, hooks: object): void {
    const process = { user: { uid: 0, gid: 0 }, args: ["sleep", "1000"], cwd: "/", env: ["PATH=/bin"] };
    const network = [{ type: "network", path: `/run/netns/${this.#places.cgroupParent}` }];
    const linux = { namespaces: network, cgroupsPath: `/${this.#places.cgroupParent}/container` };
    const spec = { ociVersion: "1.0.2", process, root: { path: root }, mounts: [], hooks, linux };
    mkdirSync(join(this.folder, name));
    writeFileSync(join(this.folder, name, "config.json"), JSON.stringify(spec));
  }

  #begin(...args: readonly string[]): ChildProcess {
    const child = spawn(RUNTIME, ["--root", this.#places.root, "--log", join(this.folder, "log"), ...args], {
      stdio: "ignore",
    });
    this.#children.add(child);
    child.once("exit", () => this.#children.delete(child));
    return child;
  }

  async #ended(command: ChildProcess): Promise<{ readonly status: number | null; readonly said: string }> {
    const timer = setTimeout(() => command.kill("SIGKILL"), COMMAND_LIMIT_MS);
    if (command.exitCode === null && command.signalCode === null) await once(command, "exit");
    clearTimeout(timer);
    const log = join(this.folder, "log");
    return {
      status: command.exitCode,
      said: existsSync(log) ? (readFileSync(log, "utf8").trim().split("\n").at(-1) ?? "") : "",
    };
  }

  async #done(args: readonly string[]): Promise<void> {
    const { status, said } = await this.#ended(this.#begin(...args));
    if (status !== 0) throw new Error(`${args.join(" ")}: ${String(status)}: ${said}`);
  }

  #monitor(id: string): { kill(signal: NodeJS.Signals): void } | undefined {
    const [pid] = this.#processesOf(`monitor ${join(this.#places.root, id)} `);
    return pid === undefined ? undefined : { kill: (signal) => process.kill(pid, signal) };
  }

  #servers(id: string): number[] {
    return this.#processesOf(`${join(this.#places.root, id)}/share`);
  }

  #processesOf(text: string): number[] {
    return readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name))
      .map(Number)
      .filter((pid) => {
        try {
          const command = readFileSync(`/proc/${String(pid)}/cmdline`, "utf8").replaceAll("\0", " ");
          return command.includes(text) && statFields(pid)?.[0] !== "Z";
        } catch {
          return false;
        }
      });
  }

  #ip(...words: readonly string[]): void {
    const { status, stderr } = spawnSync("ip", words, { encoding: "utf8", timeout: COMMAND_LIMIT_MS });
    if (status !== 0) throw new Error(`ip ${words.join(" ")}: ${stderr}`);
  }
}
