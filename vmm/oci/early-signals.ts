// Signals of a program's first moments. The kernel drops what process 1 has no handler for; a program in a guest sets its handlers
// later than an engine expects that starts it and sends a signal at once: until then its signals wait, in their order.
import { setTimeout as sleep } from "node:timers/promises";
import { Agent } from "../agent/agent.js";
import type { AgentConnection } from "../agent/connection.js";

/** After its start, `ms`: as long as an engine waits by default before it kills. */
const FIRST_MOMENTS_MS = 10_000;
const LOOK_MS = 100;
const SIGSTOP = 19;
/** These mean something without a handler, or nothing by default: CHLD, CONT, STOP, URG, WINCH. */
const AT_ONCE = new Set([17, 18, SIGSTOP, 23, 28]);

export class EarlySignals {
  readonly #agent: AgentConnection;
  readonly #pid: number;
  readonly #deliver: (number: number) => void;
  readonly #begun = performance.now();
  #last: Promise<void> | undefined;

  constructor(agent: AgentConnection, pid: number, deliver: (number: number) => void) {
    this.#agent = agent;
    this.#pid = pid;
    this.#deliver = deliver;
  }

  send(number: number): void {
    if (AT_ONCE.has(number) || (this.#last === undefined && !this.#isEarly)) {
      this.#deliver(number);
      return;
    }
    const before = this.#last ?? Promise.resolve();
    const sent = before
      .then(() => this.#handled(number))
      .then(() => {
        this.#deliver(number);
        if (this.#last === sent) this.#last = undefined;
      });
    this.#last = sent;
  }

  get #isEarly(): boolean {
    return performance.now() - this.#begun < FIRST_MOMENTS_MS;
  }

  async #handled(number: number): Promise<void> {
    const { files } = new Agent(this.#agent);
    try {
      while (this.#isEarly && !isHandled(await files.readText(`/proc/${String(this.#pid)}/status`), number)) {
        await sleep(LOOK_MS);
      }
    } catch {
      // It has ended.
    }
  }
}

/** By what proc(5) says of a process: caught or ignored. */
export function isHandled(status: string, number: number): boolean {
  return ["SigCgt", "SigIgn"].some((name) => {
    const [, mask = "0"] = new RegExp(`^${name}:\\s*([0-9a-f]+)$`, "m").exec(status) ?? [];
    return ((BigInt(`0x${mask}`) >> BigInt(number - 1)) & 1n) === 1n;
  });
}
