// Docker's engine: the one that runs here, or one of the benchmark's own, which all rungs of Docker share.
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { existsSync, mkdirSync, readFileSync, statfsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { packageRoot } from "../../../vmm/host/guest-files.js";
import { findProgram } from "../../../vmm/host/programs.js";
import { timeLimit } from "../../../vmm/host/time-limit.js";
import { program as hostProgram } from "../detect.js";
import { runProgram, tryProgram } from "../run-program.js";
import type { Workspace } from "../workspace.js";

const ENGINE_STARTS_MS = 30_000;
const ENGINE_STOPS_MS = 10_000;
const CLIENT_LIMIT_MS = 10_000;
const POLL_MS = 100;
const DAY_MS = 86_400_000;

export interface Engine {
  /** Options of the client. */
  readonly host: readonly string[];
  /** The launcher above the engine: what descends from it is Docker's. */
  readonly process?: ChildProcess;
  stop(): Promise<void>;
}

/** Of struct statfs: linux/magic.h. */
const OVERLAYFS_SUPER_MAGIC = 0x794c7630;

/**
 * What Docker takes itself, whose containers have an image's files in common. An overlay on an overlay, as in a container,
 * does not work; "vfs" does everywhere, and copies every layer whole for each container.
 */
export function storageDriver(folder: string): "overlay2" | "vfs" {
  const knowsOverlay = /^nodev\toverlay$/m.test(readFileSync("/proc/filesystems", "latin1"));
  return knowsOverlay && statfsSync(folder).type !== OVERLAYFS_SUPER_MAGIC ? "overlay2" : "vfs";
}

/** Below the launcher, which ends it if we die. `more`: options. */
export async function startEngine(workspace: Workspace, client: string, more: readonly string[] = []): Promise<Engine> {
  const folder = join(workspace.folder, "docker");
  mkdirSync(folder);
  const socket = `unix://${join(folder, "socket")}`;
  const pidFile = join(folder, "pid");
  // Without addresses to masquerade and ports to forward, it need not touch the host's packet filter.
  const bridge = workspace.network.joints.bridge?.device ?? "none";
  const flags = [
    ...["--iptables=false", "--ip6tables=false", "--ip-forward=false", "--userland-proxy=false", `--bridge=${bridge}`],
    ...[`--storage-driver=${storageDriver(workspace.folder)}`, "--log-level=error"],
    ...["--data-root", join(folder, "data"), "--exec-root", join(folder, "exec"), "--pidfile", pidFile, "-H", socket],
    ...more,
  ];
  const child = spawn(
    workspace.launcher,
    ["-t", String(DAY_MS), "-m", "an engine prints no marker", "--", hostProgram("dockerd"), ...flags],
    { stdio: ["pipe", "pipe", "ignore"] },
  );
  let said = "";
  child.stdout.setEncoding("latin1").on("data", (text: string) => (said += text));
  const ended = new Promise<void>((resolve) => {
    child.once("close", () => {
      resolve();
    });
  });
  const stop = async (): Promise<void> => {
    const pid = /"pid":(\d+)/.exec(said)?.[1];
    // SIGTERM lets it unmount and clean up; the launcher would kill it before that.
    if (pid !== undefined && child.exitCode === null) terminate(Number(pid));
    await Promise.race([ended, delay(ENGINE_STOPS_MS)]);
    child.stdin.end();
    await ended;
  };
  const host = ["--host", socket];
  const limitMs = timeLimit("the start of Docker", ENGINE_STARTS_MS);
  const started = performance.now();
  while (!tryProgram(client, [...host, "version"])) {
    if (child.exitCode !== null || workspace.signal.aborted || performance.now() - started > limitMs) {
      await stop();
      throw new Error(`dockerd did not start: ${/"errors":"(.*)"/.exec(said)?.[1] ?? "it does not answer"}`);
    }
    await delay(POLL_MS);
  }
  return { host, process: child, stop };
}

/** Ctrl-C reaches the launcher, too: it may have ended the engine, and we have not heard of it yet. */
function terminate(pid: number): void {
  try {
    process.kill(pid, "SIGTERM");
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

/** The runtimes that an engine of the benchmark's own is given: name and program, for those that are installed. */
function installedRuntimes(): [string, string][] {
  const vmlet = vmletRuntime();
  const runsc = findProgram("runsc");
  const kata = findProgram("kata-runtime");
  return [
    ...(existsSync(vmlet) ? [["vmlet", vmlet] as [string, string]] : []),
    ...(runsc === undefined ? [] : [["runsc", runsc] as [string, string]]),
    ...(kata === undefined ? [] : [["kata", kata] as [string, string]]),
  ];
}

export function vmletRuntime(): string {
  return join(packageRoot(), "dist/vmlet-runtime");
}

/** Name and program (or, of a shim, its type) of each runtime of the engine that runs here, or would be started. */
export function runtimesHere(client: string): { readonly isRunning: boolean; readonly runtimes: [string, string][] } {
  const argv = ["info", "--format", "{{json .Runtimes}}"];
  const { status, stdout } = spawnSync(client, argv, { encoding: "utf8", timeout: CLIENT_LIMIT_MS });
  const found = status === 0 ? parsed(stdout) : undefined;
  if (found === undefined) return { isRunning: false, runtimes: installedRuntimes() };
  const runtimes = Object.entries(found).map(([name, { path, runtimeType }]): [string, string] => [
    name,
    path ?? runtimeType ?? "",
  ]);
  return { isRunning: true, runtimes };
}

/** Undefined for what an engine that does not answer has said. */
function parsed(text: string): Readonly<Record<string, { path?: string; runtimeType?: string }>> | undefined {
  try {
    return (JSON.parse(text) ?? undefined) as ReturnType<typeof parsed>;
  } catch {
    return undefined;
  }
}

export interface SharedEngine extends Pick<Engine, "host" | "process"> {
  /** The engine was there before, and has a network of its own. */
  readonly isRunning: boolean;
  /** With the run's root directory. */
  readonly image: string;
  /** What the last one leaves goes, too. */
  leave(): Promise<void>;
}

interface Use {
  readonly engine: Promise<Omit<SharedEngine, "leave"> & { close(): Promise<void> }>;
  users: number;
}

const uses = new WeakMap<Workspace, Use>();

/** Whoever comes first starts it. */
export async function joinEngine(workspace: Workspace): Promise<SharedEngine> {
  const use = uses.get(workspace) ?? { engine: openEngine(workspace), users: 0 };
  uses.set(workspace, use);
  use.users++;
  const leave = async (): Promise<void> => {
    if (--use.users > 0) return;
    uses.delete(workspace);
    await (await use.engine).close();
  };
  try {
    return { ...(await use.engine), leave };
  } catch (error) {
    uses.delete(workspace);
    throw error;
  }
}

async function openEngine(workspace: Workspace): Promise<Omit<SharedEngine, "leave"> & { close(): Promise<void> }> {
  const client = hostProgram("docker");
  const isRunning = tryProgram(client, ["version"]);
  const runtimes = installedRuntimes().flatMap(([name, path]) => ["--add-runtime", `${name}=${path}`]);
  const engine: Engine = isRunning
    ? { host: [], stop: () => Promise.resolve() }
    : await startEngine(workspace, client, runtimes);
  const image = `${workspace.run}:1`;
  try {
    const archive = join(workspace.folder, "docker-root.tar");
    runProgram("tar", ["-C", workspace.root, "-cf", archive, "."]);
    runProgram(client, [...engine.host, "import", archive, image]);
  } catch (error) {
    await engine.stop();
    throw error;
  }
  return {
    host: engine.host,
    ...(engine.process === undefined ? {} : { process: engine.process }),
    isRunning,
    image,
    close: async () => {
      tryProgram(client, [...engine.host, "image", "rm", "--force", image]);
      await engine.stop();
    },
  };
}
