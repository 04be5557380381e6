// Monitors that are started and killed at random moments, decided by a seed, and what is left of them on this host: processes,
// mounts, control groups, interfaces, sockets, files.
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  lstatSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  rmdirSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { Random, caseSeed } from "../fuzz/random.js";
import { hierarchies, mounts, processes, sockets } from "./container-leftovers.js";
import { keepSaving, STARTS, type JailMode, type Places, type Start } from "./killed-starts.js";
import { asm, miniKernel, type MiniKernel } from "./mini-kernel.js";
import { killAll, processesWith } from "./process-tree.js";
import { PROGRAM, run, start } from "./program.js";

const DISK_BYTES = 2 ** 20;
const START_LIMIT_MS = 60_000;
/** From the monitor's end to that of what ends with it, on a busy host. */
const SETTLE_MS = 5000;
const LOOK_MS = 10;
/** With one that was being written, which the next start replaces. */
const CACHED = ["kvm-probe.json", "kvm-probe.json.new"];
/** Every other kill comes within so long of the guest's first word; the others before it, as long as it took once. `ms`. */
const AFTER_WORD_MS = 150;
const LINUX = "while :; do dd if=/dev/zero of=/dev/vda bs=64k count=4 conv=fsync 2>/dev/null; echo up; done";

export interface Killed {
  readonly what: string;
  /** Lines of what is left, and should not be. */
  readonly left: readonly string[];
  /** Whether the guest had said its first word. */
  readonly ran: boolean;
}

interface Subject {
  readonly start: Start;
  readonly jail: JailMode;
  /** From the start to the guest's first word, `ms`. */
  readonly upMs: number;
}

export class BootKills {
  readonly #folder = mkdtempSync(join(tmpdir(), "vmlet-kills-"));
  readonly #temporary = join(this.#folder, "tmp");
  readonly #marker = `VMLET_KILLS=${basename(this.#folder)}`;
  readonly #seed: number;
  readonly #kernels: MiniKernel[] = [];
  readonly #places: Places;
  readonly #subjects: Subject[] = [];
  readonly #skipped: string[] = [];
  /** Those of others. */
  readonly #interfaces: readonly string[];

  constructor(seed: number) {
    this.#seed = seed;
    const kernel = miniKernel(asm.print("up\n"), asm.waitForInput());
    const counting = miniKernel(asm.print("up\n"), asm.countInMemory());
    this.#kernels.push(kernel, counting);
    this.#places = {
      folder: join(this.#folder, "work"),
      kernel: kernel.path,
      counting: counting.path,
      snapshot: join(this.#folder, "linux"),
      groups: basename(this.#folder),
    };
    mkdirSync(this.#temporary);
    this.#clear();
    this.#interfaces = tapInterfaces();
  }

  /** What cannot be started here, and why. */
  get skipped(): readonly string[] {
    return this.#skipped;
  }

  /** The cycles' kinds, each with the time of its guest's first word. */
  get kinds(): readonly string[] {
    return this.#subjects.map(({ start, jail, upMs }) => `${named(start, jail)}: up after ${String(upMs)} ms`);
  }

  /** Each kind once, until its guest runs: how long that takes, and whether it goes with the jail. */
  async open(): Promise<void> {
    await this.#saveLinux();
    for (const one of STARTS) {
      const why = one.why?.();
      if (why !== undefined) {
        this.#skipped.push(`${one.name}: ${why}`);
        continue;
      }
      for (const jail of one.triesJail ? (["off", "on", "strict"] as const) : (["off"] as const)) {
        this.#clear();
        const upMs = await this.#firstWord(one, jail);
        if (upMs === undefined) this.#skipped.push(`${named(one, jail)}: they do not go together`);
        else this.#subjects.push({ start: one, jail, upMs });
      }
    }
    this.#clear();
    await this.#settled();
  }

  /** One kill; the kinds take turns. */
  async round(index: number): Promise<Killed> {
    const random = new Random(caseSeed(this.#seed, index));
    const subject = this.#subjects[index % this.#subjects.length];
    if (subject === undefined) throw new Error("Nothing can be started");
    const { start: one, jail, upMs } = subject;
    const waits = random.oneIn(2) && !isDaemon(one);
    const ms = random.below(waits ? AFTER_WORD_MS : upMs);
    const what = `kill ${String(index)}: ${named(one, jail)}, ${String(ms)} ms after ${waits ? "its word" : "its start"}`;
    // The first start of a user has no cache; what an earlier one has left in the folder stays there for the next.
    if (random.oneIn(20)) rmSync(join(this.#folder, "cache"), { recursive: true, force: true });
    if (random.oneIn(50)) this.#clear();
    one.prepare?.(this.#places);
    const { child, said } = this.#spawn(one, jail);
    const stopSaving =
      one.saves === undefined
        ? undefined
        : keepSaving(join(this.#places.folder, "control"), join(this.#places.folder, one.saves));
    while (waits && !said().includes("up") && !hasEnded(child)) await sleep(1);
    await sleep(ms);
    const left = hasEnded(child) && !isDaemon(one) ? [`it has ended by itself: ${said()}`] : [];
    child.kill("SIGKILL");
    if (!hasEnded(child)) await once(child, "exit");
    if (isDaemon(one)) await this.#killDaemon(one);
    stopSaving?.();
    left.push(...(await this.#settled()));
    if (one.id !== undefined && random.oneIn(2)) left.push(...this.#removeJail(one.id));
    return { what, left, ran: said().includes("up") };
  }

  /** After all of them: each kind starts with what is there, and a snapshot clears what others have left half-made. */
  async finish(): Promise<readonly string[]> {
    const problems: string[] = [];
    for (const { start: one, jail } of this.#subjects) {
      try {
        await this.#firstWord(one, jail);
        await this.#settled();
        if (one.saves !== undefined) problems.push(...(await this.#saved(one, one.saves)));
      } catch (error) {
        problems.push(String(error));
      }
    }
    return problems;
  }

  async #saved(one: Start, name: string): Promise<string[]> {
    const { folder } = this.#places;
    one.prepare?.(this.#places);
    const { child, said } = this.#spawn(one, "off");
    while (!said().includes("up")) await sleep(LOOK_MS);
    const command = [PROGRAM, "snapshot", "create", "--stop", join(folder, "control"), join(folder, name)];
    const { status, stderr } = await run(command, {}, START_LIMIT_MS);
    if (!hasEnded(child)) await once(child, "exit");
    const files = readdirSync(join(folder, name)).filter((file) => !/^(state\.json|memory-[\da-f]{32})$/.test(file));
    return [...(status === 0 ? [] : [stderr]), ...files.map((file) => `file ${name}/${file}`)];
  }

  /** What the test itself has made. */
  close(): void {
    killAll(processesWith(this.#marker));
    for (const kernel of this.#kernels) kernel.remove();
    for (const folder of this.#groups().reverse()) rmdirSync(folder);
    rmSync(this.#folder, { recursive: true, force: true });
  }

  #environment(): NodeJS.ProcessEnv {
    const [name = "", value] = this.#marker.split("=");
    return { ...process.env, [name]: value, VMLET_CACHE: join(this.#folder, "cache"), TMPDIR: this.#temporary };
  }

  #spawn(one: Start, jail: JailMode): { readonly child: ChildProcess; readonly said: () => string } {
    const [program = "", ...words] = one.command(this.#places, jail);
    const options = { env: this.#environment(), cwd: this.#places.folder };
    const child = spawn(program, words, { ...options, stdio: ["ignore", "pipe", "pipe"] });
    let text = "";
    // Of a guest that counts, the beginning is enough.
    const take = (data: Buffer): void => {
      if (text.length < 4096) text += data.toString("latin1");
    };
    child.stdout.on("data", take);
    child.stderr.on("data", take);
    return { child, said: () => text };
  }

  /** `ms`; undefined if the jail does not go with it. */
  async #firstWord(one: Start, jail: JailMode): Promise<number | undefined> {
    one.prepare?.(this.#places);
    const began = performance.now();
    const { child, said } = this.#spawn(one, jail);
    try {
      for (;;) {
        if (isDaemon(one) ? this.#daemon(one) !== undefined && hasEnded(child) : said().includes("up")) break;
        const words = said();
        if (jail !== "off" && words.includes("does not go with")) return undefined;
        if (hasEnded(child) && !isDaemon(one)) throw new Error(`${named(one, jail)} has ended: ${words}`);
        if (performance.now() - began > START_LIMIT_MS) throw new Error(`${named(one, jail)} does not start: ${words}`);
        await sleep(1);
      }
      return Math.ceil(performance.now() - began);
    } finally {
      child.kill("SIGKILL");
      if (!hasEnded(child)) await once(child, "exit");
      if (isDaemon(one)) await this.#killDaemon(one);
    }
  }

  /** A folder as a user has it, with nothing of ours. */
  #clear(): void {
    const { folder } = this.#places;
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(join(folder, "shared"), { recursive: true });
    mkdirSync(join(folder, "jails"));
    writeFileSync(join(folder, "shared/file"), "shared");
    for (const name of ["disk", "other"]) {
      writeFileSync(join(folder, name), "");
      truncateSync(join(folder, name), DISK_BYTES);
    }
  }

  async #saveLinux(): Promise<void> {
    const { folder, snapshot } = this.#places;
    const control = join(this.#folder, "saving");
    const options = [
      ...["--disk", `path=${join(folder, "disk")}`, "--vsock", `cid=3,path=${join(folder, "vsock")}`],
      ...["--rng", "--balloon", "0", "--control", control],
    ];
    const words = [PROGRAM, "boot", "--accel", "kvm", "--quiet", ...options, "--", "sh", "-c", LINUX];
    const guest = start(words, { env: this.#environment() }, 300_000);
    await guest.until("up");
    const made = await run([PROGRAM, "snapshot", "create", "--stop", control, snapshot], {}, 300_000);
    if (made.status !== 0) throw new Error(made.stderr);
    await guest.ended;
    // As long as it is there, no disk that comes later has its inode number: the snapshot would take such a one for its own, changed.
    linkSync(join(folder, "disk"), join(this.#folder, "saved-disk"));
  }

  /** What is left once nothing of it is on its way to its end any more. */
  async #settled(): Promise<string[]> {
    for (const begun = performance.now(); ;) {
      const left = this.#leftovers();
      if (left.length === 0 || performance.now() - begun > SETTLE_MS) return left;
      await sleep(LOOK_MS);
    }
  }

  #leftovers(): string[] {
    const { folder } = this.#places;
    return [
      ...processes(folder),
      ...processesWith(this.#marker).map((pid) => `process ${String(pid)} of the same environment`),
      ...sockets(this.#folder),
      ...this.#groups().flatMap(processesIn),
      ...mounts(this.#folder),
      ...tapInterfaces()
        .filter((name) => !this.#interfaces.includes(name))
        .map((name) => `interface ${name}`),
      ...readdirSync(this.#temporary).map((name) => `temporary file ${name}`),
      ...this.#files(),
    ];
  }

  #files(): string[] {
    const { folder } = this.#places;
    const known = ["shared", "jails", "disk", "other", ...STARTS.flatMap(({ files = [] }) => files)];
    const socketNames = STARTS.flatMap(({ sockets: names = [] }) => names);
    // A snapshot that was being written is the next one's to clear.
    const snapshots = STARTS.flatMap(({ saves }) => saves ?? []);
    const left = readdirSync(folder).filter((name) => {
      if (known.includes(name) || snapshots.includes(name)) return false;
      return !(socketNames.includes(name) && lstatSync(join(folder, name)).isSocket());
    });
    const cache = join(this.#folder, "cache");
    const cached = existsSync(cache) ? readdirSync(cache, { recursive: true, encoding: "utf8" }) : [];
    return [
      ...left.map((name) => `file ${name}`),
      ...cached.filter((name) => !CACHED.includes(name)).map((name) => `file in the cache ${name}`),
    ];
  }

  /** Of the launcher's; the parents first. */
  #groups(): string[] {
    return hierarchies().flatMap((hierarchy) => {
      const parent = join(hierarchy, this.#places.groups);
      if (!existsSync(parent)) return [];
      return [parent, ...STARTS.flatMap(({ id }) => id ?? []).map((id) => join(parent, id))].filter((name) =>
        existsSync(name),
      );
    });
  }

  /** As whoever has started the launcher does. */
  #removeJail(id: string): string[] {
    const problems: string[] = [];
    const attempt = (what: string, action: () => void): void => {
      try {
        action();
      } catch (error) {
        problems.push(`${what} cannot be removed: ${(error as Error).message}`);
      }
    };
    attempt("the jail's folder", () => {
      rmSync(join(this.#places.folder, "jails/vmlet-firecracker.js", id), { recursive: true, force: true });
    });
    for (const folder of this.#groups().filter((name) => basename(name) === id)) {
      attempt("its control group", () => {
        rmdirSync(folder);
      });
    }
    return problems;
  }

  #daemon({ id = "" }: Start): number | undefined {
    const folder = join(this.#places.folder, "jails/vmlet-firecracker.js", id, "root");
    const file = join(folder, "vmlet-firecracker.js.pid");
    return existsSync(file) ? Number(readFileSync(file, "utf8")) || undefined : undefined;
  }

  /** What the launcher has begun goes on without it: the program's number is in the file then. */
  async #killDaemon(one: Start): Promise<void> {
    const begun = performance.now();
    while (processes(this.#places.folder).length > 0 && performance.now() - begun < SETTLE_MS) await sleep(LOOK_MS);
    const pid = this.#daemon(one);
    rmSync(join(this.#places.folder, "jails/vmlet-firecracker.js", one.id ?? "", "root/vmlet-firecracker.js.pid"), {
      force: true,
    });
    if (pid !== undefined && existsSync(`/proc/${String(pid)}`)) spawnSync("kill", ["-KILL", String(pid)]);
  }
}

function isDaemon({ command }: Start): boolean {
  const nowhere = { folder: "", kernel: "", counting: "", snapshot: "", groups: "" };
  return command(nowhere, "off").includes("--daemonize");
}

function named({ name, triesJail }: Start, jail: JailMode): string {
  return triesJail ? `${name}, jail ${jail}` : name;
}

function hasEnded({ exitCode, signalCode }: ChildProcess): boolean {
  return exitCode !== null || signalCode !== null;
}

function processesIn(folder: string): string[] {
  const pids = readFileSync(join(folder, "cgroup.procs"), "utf8").split("\n").filter(Boolean);
  return pids.map((pid) => `process ${pid} in the control group ${folder}`);
}

function tapInterfaces(): string[] {
  return readdirSync("/sys/class/net").filter((name) => existsSync(`/sys/class/net/${name}/tun_flags`));
}
