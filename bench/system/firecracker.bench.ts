// vmlet-firecracker as its clients see it: from the start of the process to its first answer on the socket, and from
// InstanceStart to the first KVM_RUN, beside vmlet's own start in the same round. A preloaded library ends each at its
// first KVM_RUN (bench/c/first-run.c).
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdtempSync, readFileSync, rmSync } from "node:fs";
import { request } from "node:http";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import {
  atMost,
  hasSeries,
  measure,
  ratioAtMost,
  samplesOf,
  type Bench,
  type BenchContext,
  type BenchResult,
  type Sample,
  type Target,
} from "../harness.js";
import { compileLibrary, compileProgram } from "../programs.js";
import { acceleratorInWords } from "../stamp.js";
import { cmdline, GUEST_MIB, vmletArguments, type GuestImages } from "./guest.js";

const API = "vmlet-firecracker";
const BOOT = "vmlet boot";
const FIRST_ANSWER = "process_to_first_answer_ms";
const FIRST_RUN = "process_to_first_run_ms";
const START_TO_RUN = "instance_start_to_first_run_ms";
/** The socket is looked for so often, `ms`. */
const LOOK_EVERY_MS = 1;
const SOCKET_LIMIT_MS = 20_000;
/** A client asks and configures before it starts the guest; what vmlet makes ready meanwhile is ready then. */
const CLIENT_PAUSE_MS = 300;
/** Against vmlet's own start to its first KVM_RUN. */
const ANSWER_LIMIT = 1.3;
const START_LIMIT_MS = 10;

const nowMs = (): number => Number(process.hrtime.bigint()) / 1e6;

class Client {
  readonly #socketPath: string;

  constructor(socketPath: string) {
    this.#socketPath = socketPath;
  }

  /** Resolves when the answer is there; rejects for one that is none of success. */
  ask(method: string, path: string, body?: unknown): Promise<void> {
    return new Promise((done, fail) => {
      const sent = request({ socketPath: this.#socketPath, method, path }, (response) => {
        let text = "";
        response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
        response.on("end", () => {
          if ((response.statusCode ?? 500) < 300) done();
          else fail(new Error(`${method} ${path}: ${String(response.statusCode)} ${text}`));
        });
      });
      sent.on("error", fail);
      sent.end(body === undefined ? undefined : JSON.stringify(body));
    });
  }
}

async function run(context: BenchContext): Promise<BenchResult> {
  const stopwatch = resolve(compileProgram("stopwatch"));
  const library = resolve(compileLibrary("first-run"));
  const folder = mkdtempSync(join(tmpdir(), "vmlet-bench-"));
  const files = { time: join(folder, "time.json"), trace: join(folder, "trace"), socket: join(folder, "api.sock") };
  const images: GuestImages = {
    kernel: resolve("guest/out/default/vmlinux"),
    initrd: resolve("guest/out/initramfs.cpio"),
    memoryMib: GUEST_MIB,
  };
  const start = (program: readonly string[]) => {
    for (const path of Object.values(files)) rmSync(path, { force: true });
    const env = { ...process.env, NODE_EXTRA_CA_CERTS: undefined, FIRST_RUN_TRACE: files.trace };
    return spawn(stopwatch, ["-p", library, files.time, ...program], { env, stdio: ["ignore", "ignore", "inherit"] });
  };
  /** When the process has begun and come to its first KVM_RUN, `ms` of the monotonic clock. */
  const times = (): { startMs: number; runMs: number } => {
    const { start_ns: startNs } = JSON.parse(readFileSync(files.time, "utf8")) as { start_ns: number };
    const line = readFileSync(files.trace, "utf8").trim().split("\n").at(-1) ?? "";
    return { startMs: startNs / 1e6, runMs: Number(line.split(" ")[0]) / 1e6 };
  };
  const boot = async (): Promise<Sample> => {
    await once(start([resolve("dist/vmlet.js"), ...vmletArguments(images, ["true"])]), "close");
    const { startMs, runMs } = times();
    return { [FIRST_RUN]: runMs - startMs };
  };
  const api = async (): Promise<Sample> => {
    const child = start([resolve("dist/vmlet-firecracker.js"), "--api-sock", files.socket]);
    const closed = once(child, "close");
    const client = new Client(files.socket);
    const deadline = nowMs() + SOCKET_LIMIT_MS;
    while (!existsSync(files.socket)) {
      if (nowMs() > deadline) throw new Error("There is no socket");
      await sleep(LOOK_EVERY_MS);
    }
    await client.ask("GET", "/");
    const answeredMs = nowMs();
    const { kernel, initrd } = images;
    await client.ask("PUT", "/boot-source", {
      kernel_image_path: kernel,
      initrd_path: initrd,
      boot_args: cmdline(["true"], "k"),
    });
    await client.ask("PUT", "/machine-config", { vcpu_count: 1, mem_size_mib: GUEST_MIB });
    await sleep(CLIENT_PAUSE_MS);
    const askedMs = nowMs();
    // Nobody is left to answer it.
    await client.ask("PUT", "/actions", { action_type: "InstanceStart" }).catch(() => undefined);
    await closed;
    const { startMs, runMs } = times();
    return { [FIRST_ANSWER]: answeredMs - startMs, [START_TO_RUN]: runMs - askedMs };
  };
  try {
    const variants = [
      { name: BOOT, turn: boot },
      { name: API, turn: api },
    ];
    const measured = await measure(variants, context);
    return { ...measured, targets: targets(measured), notes: notes() };
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

function targets(measured: Parameters<typeof samplesOf>[0]): Target[] {
  if (!hasSeries(measured, API, FIRST_ANSWER) || !hasSeries(measured, BOOT, FIRST_RUN)) return [];
  const answers = samplesOf(measured, API, FIRST_ANSWER);
  return [
    ratioAtMost(
      "start to first answer against vmlet boot's first KVM_RUN",
      answers,
      samplesOf(measured, BOOT, FIRST_RUN),
      ANSWER_LIMIT,
    ),
    atMost("InstanceStart to first KVM_RUN, ms", samplesOf(measured, API, START_TO_RUN), START_LIMIT_MS, "ms"),
  ];
}

function notes(): string[] {
  return [
    `/dev/kvm of this host: ${acceleratorInWords()}. ${String(GUEST_MIB)} MiB, our vmlinux and initramfs loaded.`,
    "The client is Node's own, in the bench's process: its connection and the look for the socket are in the first answer.",
    `The client rests ${String(CLIENT_PAUSE_MS)} ms before InstanceStart.`,
  ];
}

export const firecracker: Bench = {
  name: "firecracker",
  about: "Firecracker's interface: start to first answer, InstanceStart to first KVM_RUN",
  run,
};
