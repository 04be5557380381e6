// Docker: the engine that runs here, or one of the benchmark's own, started and stopped by it.
import { spawn, type ChildProcess } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { detectRootProgram, program as hostProgram } from "../detect.js";
import { findProgram } from "../../../vmm/host/programs.js";
import { timeLimit } from "../../../vmm/host/time-limit.js";
import { CONTAINER_TIMEOUT_MS, CPUS, MEMORY_MIB } from "../limits.js";
import type { OpenRung, Rung } from "../rung.js";
import { runProgram, tryProgram } from "../run-program.js";
import type { Workspace } from "../workspace.js";

const ENGINE_STARTS_MS = 30_000;
const ENGINE_STOPS_MS = 10_000;
const POLL_MS = 100;
const DAY_MS = 86_400_000;

export interface Engine {
  /** Options of the client. */
  readonly host: readonly string[];
  /** The launcher above the engine: what descends from it is Docker's. */
  readonly process?: ChildProcess;
  stop(): Promise<void>;
}

/** Below the launcher, which ends it if we die. "vfs" works on every file system, and copies every layer whole. `more`: options. */
export async function startEngine(
  workspace: Workspace,
  client: string,
  storageDriver = "vfs",
  more: readonly string[] = [],
): Promise<Engine> {
  const folder = join(workspace.folder, "docker");
  mkdirSync(folder);
  const socket = `unix://${join(folder, "socket")}`;
  const pidFile = join(folder, "pid");
  // Without addresses to masquerade and ports to forward, it need not touch the host's packet filter.
  const bridge = workspace.network.joints.bridge?.device ?? "none";
  const flags = [
    ...["--iptables=false", "--ip6tables=false", "--ip-forward=false", "--userland-proxy=false", `--bridge=${bridge}`],
    ...[`--storage-driver=${storageDriver}`, "--log-level=error"],
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
    if (pid !== undefined && child.exitCode === null) process.kill(Number(pid), "SIGTERM");
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

async function open(workspace: Workspace): Promise<OpenRung> {
  const client = hostProgram("docker");
  const running = tryProgram(client, ["version"]);
  const engine: Engine = running ? { host: [], stop: () => Promise.resolve() } : await startEngine(workspace, client);
  const image = `${workspace.run}:1`;
  try {
    const archive = join(workspace.folder, "docker-root.tar");
    runProgram("tar", ["-C", workspace.root, "-cf", archive, "."]);
    runProgram(client, [...engine.host, "import", archive, image]);
  } catch (error) {
    await engine.stop();
    throw error;
  }
  const limits = ["--memory", `${String(MEMORY_MIB)}m`, "--cpus", String(CPUS), "--cgroup-parent", `/${workspace.run}`];
  const pid = engine.process?.pid;
  return {
    command: ({ name, program, network }) => [
      client,
      ...engine.host,
      ...["run", "--rm", "--name", name, "--network", network === undefined ? "none" : "bridge", ...limits],
      ...[image, ...program],
    ],
    ...(running ? { noNetwork: "the engine that runs here has a network of its own, which stays as it is" } : {}),
    remove: (names) => {
      tryProgram(client, [...engine.host, "rm", "--force", ...names]);
    },
    ...(pid === undefined ? {} : { engine: pid }),
    close: async () => {
      tryProgram(client, [...engine.host, "image", "rm", "--force", image]);
      await engine.stop();
    },
  };
}

export const docker: Rung = {
  name: "docker",
  adds: "an engine with a daemon: images, layers, an API",
  family: "engine",
  limits: "own",
  network: "bridge",
  debianPackage: "docker.io",
  timeoutMs: CONTAINER_TIMEOUT_MS,
  detect: () => {
    const client = detectRootProgram("docker", "docker.io");
    if ("missing" in client || findProgram("dockerd") !== undefined) return client;
    return tryProgram(hostProgram("docker"), ["version"])
      ? client
      : { missing: "no engine runs, and dockerd is not installed (Debian: docker.io)" };
  },
  open,
};
