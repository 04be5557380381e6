// The states of a VM's life, and the one way through them. Every public method of Vm asks here.
//
//   built ──▶ running ──▶ stopped ──▶ closed
//     │        │  ▲  └───────▲
//     │        ▼  │          │
//     │       paused ────────┤
//     └──────────────────────┘ what was built and never ran goes the same way
import { VmStateError } from "../errors.js";

export type VmState = "built" | "running" | "paused" | "stopped" | "closed";

const NEXT: Readonly<Record<VmState, readonly VmState[]>> = {
  built: ["running", "stopped"],
  running: ["paused", "stopped"],
  paused: ["running", "stopped"],
  stopped: ["closed"],
  closed: [],
};

/** What each state means, for the message of an error. */
const IN_WORDS: Readonly<Record<VmState, string>> = {
  built: "has not been started",
  running: "is running",
  paused: "is paused",
  stopped: "has ended",
  closed: "is closed",
};

export class Life {
  #state: VmState = "built";

  get state(): VmState {
    return this.#state;
  }

  /** The guest's memory and devices are there to be used, and the guest may still see what is done to them. */
  get hasGuest(): boolean {
    return this.#state === "built" || this.#state === "running" || this.#state === "paused";
  }

  /** Throws VmStateError, which names the method that wanted it, for a way that does not exist. */
  enter(state: VmState, method: string): void {
    if (!NEXT[this.#state].includes(state)) throw this.refuse(method);
    this.#state = state;
  }

  refuse(method: string): VmStateError {
    return new VmStateError(method, this.#state, IN_WORDS[this.#state]);
  }
}
