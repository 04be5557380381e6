// Guests that take what they can, with or without control groups around them. Memory and processes: Linux (bench/c/bomb.c), booted and
// saved once, when its program waits for its word. Devices: kernels of a few instructions (test/helpers/flood-kernels.ts).
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync, readdirSync, rmdirSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { consoleFlood, diskFlood, packetFlood, vsockFlood } from "../../test/helpers/flood-kernels.js";
import type { MiniKernel } from "../../test/helpers/mini-kernel.js";
import { bootWords, PROGRAM } from "../../test/helpers/program.js";
import { tapProblem } from "../../test/helpers/tap-guard.js";
import { userNetProblem } from "../../test/helpers/user-net-guard.js";
import { timeLimit } from "../../vmm/host/time-limit.js";
import { cgroupLayout } from "../ladder/cgroup.js";
import { initramfsWith } from "../programs.js";

const GUEST_MIB = 128;
/** What its monitor needs beside the guest's memory, with room. */
const MONITOR_MIB = 128;
const DISK_MIB = 256;
const DISK = "disk";
const SNAPSHOT = "snapshot";
const LOOK_MS = 20;
const MAX_LOOKS = 250;
const READS_MS = 1000;
const BOOT_LIMIT_MS = 300_000;
/** Of /proc/PID/stat, `Hz`. */
const USER_HZ = 100;
const LIMITS_PERIOD_US = 100_000;

export interface Bomb {
  readonly name: string;
  /** What is started in the folder of the saved guest. */
  readonly command: (at: (file: string) => string) => readonly string[];
  /** What it is told then. */
  readonly words?: string;
  /** Why it cannot be had here. */
  readonly why?: () => string | undefined;
}

function linux(name: string, words: string): Bomb {
  return { name, words, command: (at) => [PROGRAM, "snapshot", "restore", "--quiet", at(SNAPSHOT)] };
}

const floods: MiniKernel[] = [];

/** The kernel is made when it is first started. */
function device(name: string, make: () => MiniKernel, options: Bomb["command"], why?: Bomb["why"]): Bomb {
  let kernel: MiniKernel | undefined;
  return {
    name,
    command: (at) => {
      if (kernel === undefined || !existsSync(kernel.path)) floods.push((kernel = make()));
      return bootWords(kernel.path, "--quiet", ...options(at));
    },
    ...(why === undefined ? {} : { why }),
  };
}

export const IDLE: Bomb = linux("an idle VM", "idle");
export const BOMBS: readonly Bomb[] = [
  // No guest, for comparison.
  { name: "a program that counts", command: () => ["sh", "-c", "while :; do :; done"] },
  linux("memory", "memory"),
  linux("processes", "forks"),
  device("a disk", diskFlood, (at) => ["--disk", `path=${at(DISK)}`]),
  device("packets, user mode", packetFlood, () => ["--net", "user,vhost=off"], userNetProblem),
  device("packets, TAP", packetFlood, () => ["--net", "tap=auto,ip=192.0.2.1/24,vhost=off"], tapProblem),
  device("vsock", vsockFlood, (at) => ["--vsock", `cid=3,path=${at("vsock")}`]),
  device("the console", consoleFlood, () => []),
];

/** Of a control group. */
export interface Limits {
  /** Of one processor. */
  readonly cpuPercent: number;
}

/** Half a processor, and the guest's memory with room for its monitor. */
export const LIMITS: Limits = { cpuPercent: 50 };

/** Ticks of the thread that runs the devices, and of all others: those of the guest's processors, and Node's, which hardly count. */
interface Ticks {
  readonly atMs: number;
  readonly main: number;
  readonly vcpus: number;
}

export interface RunningBomb {
  ticks(): Ticks;
  end(): Promise<void>;
}

/** Percent of one core. */
export function shares(before: Ticks, after: Ticks): { readonly main: number; readonly vcpus: number } {
  const percent = (ticks: number): number => (ticks / USER_HZ / ((after.atMs - before.atMs) / 1000)) * 100;
  return { main: percent(after.main - before.main), vcpus: percent(after.vcpus - before.vcpus) };
}

/** A folder with what bombs are started from. */
export class BombFolder {
  readonly #folder: string;
  readonly #at = (file: string): string => join(this.#folder, file);

  private constructor(folder: string) {
    this.#folder = folder;
  }

  /** Boots Linux and saves it, in a folder of the caller's. */
  static async make(folder: string): Promise<BombFolder> {
    const made = new BombFolder(folder);
    writeFileSync(made.disk, "");
    truncateSync(made.disk, DISK_MIB * 2 ** 20);
    const control = made.#at("control");
    const guest = ["--accel", "kvm", "--quiet", "--memory", String(GUEST_MIB), "--initrd", initramfsWith("bomb")];
    const script = "echo waiting; read -r words; exec bomb $words";
    const child = spawn(PROGRAM, ["boot", ...guest, "--control", control, "--", "sh", "-c", script], {
      stdio: ["pipe", "pipe", "inherit"],
      timeout: timeLimit("a boot", BOOT_LIMIT_MS),
    });
    let said = "";
    child.stdout.on("data", (data: Buffer) => (said += data.toString("latin1")));
    while (!said.includes("waiting")) {
      if (child.exitCode !== null) throw new Error(`The guest has ended: ${said}`);
      await sleep(LOOK_MS);
    }
    // It reads.
    await sleep(READS_MS);
    const { status, stderr } = spawnSync(PROGRAM, ["snapshot", "create", "--stop", control, made.#at(SNAPSHOT)], {
      encoding: "utf8",
    });
    if (status !== 0) throw new Error(stderr);
    if (child.exitCode === null) await once(child, "exit");
    return made;
  }

  get disk(): string {
    return this.#at(DISK);
  }

  /** Lets one go off. */
  start({ command, words }: Bomb, limits?: Limits): RunningBomb {
    // What it says has a reader, as anything that somebody looks at; a thread of this process would be one of the measured.
    const reader = spawn("cat", [], { stdio: ["pipe", "ignore", "ignore"] });
    const groups = limits === undefined ? [] : makeGroups(limits);
    const script = [...groups.map((group) => `echo $$ >${group}/cgroup.procs`), 'exec "$@"'].join("; ");
    const child = spawn("sh", ["-c", script, "sh", ...command(this.#at)], {
      stdio: ["pipe", reader.stdin, "inherit"],
    });
    const pid = child.pid ?? 0;
    if (words !== undefined) child.stdin.write(`${words}\n`);
    return {
      ticks: () => ticksOf(pid),
      end: async () => {
        child.kill("SIGKILL");
        if (child.exitCode === null && child.signalCode === null) await once(child, "exit");
        reader.kill("SIGKILL");
        for (const group of groups) {
          // Who ends with it, passt, may still be on its way.
          const isEmpty = (): boolean => readFileSync(join(group, "cgroup.procs"), "utf8") === "";
          for (let tries = 0; tries < MAX_LOOKS && !isEmpty(); tries++) await sleep(LOOK_MS);
          rmdirSync(group);
        }
      },
    };
  }

  /** What was made beside the folder. */
  close(): void {
    for (const kernel of floods.splice(0)) kernel.remove();
  }
}

/** As `vmlet-jailer --cgroup`, or a unit of systemd, makes them. */
function makeGroups({ cpuPercent }: Limits): string[] {
  const { kind, cpu, memory, unified } = cgroupLayout();
  const name = `vmlet-bomb-${String(process.pid)}`;
  const quota = String((LIMITS_PERIOD_US * cpuPercent) / 100);
  const bytes = String((GUEST_MIB + MONITOR_MIB) * 2 ** 20);
  const made = (parent: string, files: readonly (readonly [string, string])[]): string => {
    const folder = join(parent, name);
    mkdirSync(folder, { recursive: true });
    for (const [file, value] of files) writeFileSync(join(folder, file), value);
    return folder;
  };
  if (kind === "v2" && unified !== undefined) {
    return [
      made(unified, [
        ["cpu.max", `${quota} ${String(LIMITS_PERIOD_US)}`],
        ["memory.max", bytes],
      ]),
    ];
  }
  if (cpu === undefined || memory === undefined) throw new Error("There are no control groups for CPU and memory");
  return [
    made(cpu, [
      ["cpu.cfs_period_us", String(LIMITS_PERIOD_US)],
      ["cpu.cfs_quota_us", quota],
    ]),
    made(memory, [["memory.limit_in_bytes", bytes]]),
  ];
}

function ticksOf(pid: number): Ticks {
  let main = 0;
  let vcpus = 0;
  for (const tid of readdirSync(`/proc/${String(pid)}/task`)) {
    const task = `/proc/${String(pid)}/task/${tid}`;
    const stat = readFileSync(`${task}/stat`, "latin1");
    const fields = stat.slice(stat.lastIndexOf(")") + 2).split(" ");
    const own = Number(fields[11]) + Number(fields[12]);
    if (tid === String(pid)) main += own;
    else vcpus += own;
  }
  return { atMs: performance.now(), main, vcpus };
}
