// A Docker engine of our own: started for a benchmark or a test, and gone with it.
import { spawn, type ChildProcess } from "node:child_process";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { program as hostProgram } from "./detect.js";
import { tryProgram } from "./run-program.js";
import type { Site } from "./site.js";

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

/** Below the launcher, which ends it if we die. */
export async function startEngine(site: Site, client: string): Promise<Engine> {
  const folder = join(site.folder, "docker");
  mkdirSync(folder);
  const socket = `unix://${join(folder, "socket")}`;
  const pidFile = join(folder, "pid");
  const flags = [
    ...["--iptables=false", "--ip6tables=false", "--bridge=none", "--storage-driver=vfs", "--log-level=error"],
    ...["--data-root", join(folder, "data"), "--exec-root", join(folder, "exec"), "--pidfile", pidFile, "-H", socket],
  ];
  const child = spawn(
    site.launcher,
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
    // Asked to end, it unmounts and tidies; killed by the launcher, it cannot.
    if (pid !== undefined && child.exitCode === null) process.kill(Number(pid), "SIGTERM");
    await Promise.race([ended, delay(ENGINE_STOPS_MS)]);
    child.stdin.end();
    await ended;
  };
  const host = ["--host", socket];
  const started = performance.now();
  while (!tryProgram(client, [...host, "version"])) {
    if (child.exitCode !== null || site.signal.aborted || performance.now() - started > ENGINE_STARTS_MS) {
      await stop();
      throw new Error(`dockerd did not start: ${/"errors":"(.*)"/.exec(said)?.[1] ?? "it does not answer"}`);
    }
    await delay(POLL_MS);
  }
  return { host, process: child, stop };
}
