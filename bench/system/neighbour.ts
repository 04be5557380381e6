// How soon a VM answers, and this host, while another VM does something else: a kernel of a few instructions that sleeps until its serial
// port has a byte, and sends the next one, asked every few milliseconds; and a program that starts and ends. (Where kernel code is
// emulated, Linux would need 17 ms of a processor for an answer.)
import { spawn, spawnSync, type ChildProcessByStdio } from "node:child_process";
import { once } from "node:events";
import type { Readable, Writable } from "node:stream";
import { setTimeout as sleep } from "node:timers/promises";
import { bootWords } from "../../test/helpers/program.js";
import { answeringKernel, type MiniKernel } from "../../test/helpers/waiting-kernel.js";
import type { Sample } from "../harness.js";
import { quantile } from "../statistics.js";
import { shares, type Bomb, type Limits, type BombFolder } from "./bombs.js";

/** It is asked for nothing before it is measured, `ms`. */
const START_MS = 3000;
/** Between an answer and the next question, `ms`. */
const PAUSE_MS = 15;
/** Questions between two looks at the host. */
const HOST_EACH = 8;
/** One that is not answered by then never will be, `ms`. */
const LOST_MS = 20_000;

/** `ms`. */
export interface Latencies {
  readonly vm: readonly number[];
  readonly host: readonly number[];
}

export class Neighbour {
  readonly #kernel: MiniKernel;
  readonly #child: ChildProcessByStdio<Writable, Readable, null>;
  #heard: (said: string) => void = () => undefined;

  private constructor() {
    this.#kernel = answeringKernel();
    const words = bootWords(this.#kernel.path, "--quiet");
    this.#child = spawn(words[0] ?? "", words.slice(1), { stdio: ["pipe", "pipe", "inherit"] });
    this.#child.stdout.on("data", (data: Buffer) => {
      this.#heard(data.toString("latin1"));
    });
  }

  static async start(): Promise<Neighbour> {
    const neighbour = new Neighbour();
    await neighbour.#hears("!");
    // What its monitor does after the start.
    await neighbour.latencies(START_MS);
    return neighbour;
  }

  #hears(word: string): Promise<void> {
    return new Promise((answered, reject) => {
      const late = setTimeout(() => {
        reject(new Error("The neighbour does not answer"));
      }, LOST_MS);
      this.#heard = (said) => {
        if (said !== word) return;
        clearTimeout(late);
        answered();
      };
    });
  }

  /** How long a byte takes to the guest and its answer back, `ms`. */
  async ask(): Promise<number> {
    const answer = this.#hears("b");
    const began = performance.now();
    this.#child.stdin.write("a");
    await answer;
    return performance.now() - began;
  }

  async latencies(forMs: number): Promise<Latencies> {
    const vm: number[] = [];
    const host: number[] = [];
    for (const end = performance.now() + forMs; performance.now() < end;) {
      vm.push(await this.ask());
      if (vm.length % HOST_EACH === 0) host.push(startMs());
      await sleep(PAUSE_MS);
    }
    return { vm, host };
  }

  async end(): Promise<void> {
    this.#child.kill("SIGTERM");
    await once(this.#child, "exit");
    this.#kernel.remove();
  }
}

function startMs(): number {
  const began = performance.now();
  spawnSync("/bin/true", { stdio: "ignore" });
  return performance.now() - began;
}

/** Until a bomb is in full swing, and what it did to start is over, `ms`. */
const SETTLED_MS = 1200;

/** What is measured beside a bomb: latencies in `ms`, and what the bomb's own process takes. */
export interface Beside extends Sample {
  readonly vm_p50_ms: number;
  readonly vm_p95_ms: number;
  readonly vm_p99_ms: number;
  readonly host_p50_ms: number;
  readonly host_p95_ms: number;
  /** Of one processor: the thread that runs its devices, and all others, which are its guest's. */
  readonly monitor_percent: number;
  readonly vcpu_percent: number;
}

/** Rejects if the bomb's process ends. */
export async function beside(
  neighbour: Neighbour,
  folder: BombFolder,
  bomb: Bomb,
  limits: Limits | undefined,
  forMs: number,
): Promise<Beside> {
  const running = folder.start(bomb, limits);
  try {
    await sleep(SETTLED_MS);
    const before = running.ticks();
    const { vm, host } = await neighbour.latencies(forMs);
    const { main, vcpus } = shares(before, running.ticks());
    return {
      vm_p50_ms: quantile(vm, 0.5),
      vm_p95_ms: quantile(vm, 0.95),
      vm_p99_ms: quantile(vm, 0.99),
      host_p50_ms: quantile(host, 0.5),
      host_p95_ms: quantile(host, 0.95),
      monitor_percent: main,
      vcpu_percent: vcpus,
    };
  } finally {
    await running.end();
  }
}
