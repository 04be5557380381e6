// A guest that moves from one process to another, as `vmlet migrate` does it: how long it rests for that, idle and writing.
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { acceleratorKind, hasHardwareVirtualization } from "../../vmm/host/facts.js";
import {
  atMost,
  hasSeries,
  measure,
  samplesOf,
  type Bench,
  type BenchContext,
  type BenchResult,
  type Sample,
} from "../harness.js";
import { acceleratorInWords } from "../stamp.js";
import { cmdline, GUEST_MIB } from "./guest.js";

const IDLE = "idle: cat waits for a line";
const WRITING = "writing: a shell makes strings of 512 KiB";
const GUESTS: readonly (readonly [name: string, command: readonly string[]])[] = [
  [IDLE, ["sh", "-c", "echo up; cat"]],
  [
    WRITING,
    [
      "sh",
      "-c",
      "echo up; while :; do x=abcdefgh; for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16; do x=$x$x; done; done",
    ],
  ],
];
const STOP = "stop_ms";
const PROGRAM = resolve("dist/vmlet.js");
const PATIENCE_MS = 120_000;
const LOOK_MS = 20;

interface Moved {
  readonly bytes: number;
  readonly stop_ms: number;
  readonly total_ms: number;
  readonly rounds: readonly { readonly pages: number; readonly bytes: number }[];
}

async function until(what: string, isSo: () => boolean): Promise<void> {
  for (const end = performance.now() + PATIENCE_MS; !isSo();) {
    if (performance.now() > end) throw new Error(`${what}: not within ${String(PATIENCE_MS / 1000)} s`);
    await new Promise((done) => setTimeout(done, LOOK_MS));
  }
}

function vmlet(argv: readonly string[]): { readonly child: ChildProcess; said: () => string; ended: Promise<unknown> } {
  const child = spawn(PROGRAM, argv, { stdio: ["pipe", "pipe", "pipe"] });
  let text = "";
  for (const stream of [child.stdout, child.stderr])
    stream.on("data", (chunk: Buffer) => (text += chunk.toString("latin1")));
  return { child, said: () => text, ended: once(child, "close") };
}

/** Boots a guest, and saves it. */
async function save(command: readonly string[], folder: string, work: string): Promise<void> {
  const kernel = hasHardwareVirtualization(acceleratorKind()) ? "default" : "fast";
  const control = join(work, "booted.sock");
  const images = ["--kernel", resolve(`guest/out/${kernel}/vmlinux`), "--initrd", resolve("guest/out/initramfs.cpio")];
  const { said, ended } = vmlet([
    ...["boot", "--accel", "kvm", ...images, "--memory", String(GUEST_MIB), "--control", control],
    ...["--bare-cmdline", "--cmdline", cmdline(command, "k")],
  ]);
  await until("the guest", () => said().includes("up"));
  execFileSync(PROGRAM, ["snapshot", "create", "--stop", control, folder]);
  await ended;
}

async function move(folder: string, work: string): Promise<Sample> {
  const [from, to, address] = ["from.sock", "to.sock", "moves.sock"].map((name) => join(work, name));
  if (from === undefined || to === undefined || address === undefined) throw new Error("Three names");
  const sender = vmlet(["snapshot", "restore", "--control", from, folder]);
  const receiver = vmlet(["snapshot", "receive", "--control", to, `unix:${address}`]);
  try {
    await until("sender and receiver", () => existsSync(from) && receiver.said().includes("waiting"));
    // It has begun to do what it does.
    await new Promise((done) => setTimeout(done, 500));
    const text = execFileSync(PROGRAM, ["migrate", "--json", from, `unix:${address}`], { encoding: "utf8" });
    const { bytes, stop_ms, total_ms, rounds } = JSON.parse(text) as Moved;
    return {
      [STOP]: stop_ms,
      total_ms,
      rounds: rounds.length,
      sent_mib: bytes / 2 ** 20,
      last_round_pages: rounds.at(-1)?.pages ?? 0,
    };
  } finally {
    for (const { child } of [sender, receiver]) child.kill("SIGTERM");
    await Promise.all([sender.ended, receiver.ended]);
  }
}

async function run(context: BenchContext): Promise<BenchResult> {
  const work = mkdtempSync(join(tmpdir(), "vmlet-bench-"));
  try {
    const variants = [];
    for (const [index, [name, command]] of GUESTS.entries()) {
      context.progress(`the guest that is to be moved boots: ${name}`);
      const folder = join(work, `saved-${String(index)}`);
      await save(command, folder, work);
      variants.push({ name, turn: () => move(folder, work) });
    }
    const measured = await measure(variants, context);
    const targets = hasSeries(measured, IDLE, STOP)
      ? [atMost("stop of an idle guest that moves", samplesOf(measured, IDLE, STOP), 50, "ms")]
      : [];
    const notes = [
      `/dev/kvm of this host: ${acceleratorInWords()}. ${String(GUEST_MIB)} MiB; two processes, a Unix socket between them.`,
      "stop_ms: from the request to stop to the receiver's word that the guest goes on. Each guest goes on from a snapshot first.",
    ];
    return { ...measured, targets, notes };
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

export const migrate: Bench = { name: "migrate", about: "a running guest that moves: how long it rests", run };
