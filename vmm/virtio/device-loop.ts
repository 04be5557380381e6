// The event loop of the thread that owns the devices, which while it boots vCPU 0 itself is
// often inside KVM_RUN: later turns and timers must then bring it out. And the place where a
// defect in a device surfaces, because no caller would catch what a callback throws.
import type { EventLoop } from "../../devices/virtio/event-loop.js";
import { nodeEventLoop } from "./event-loop.js";

/** How late a timer may be while the thread runs a vCPU, `ms`. */
const COARSE_MS = 20;

export interface DeviceLoopHooks {
  /** Makes the thread return to its event loop instead of entering KVM_RUN. */
  wakeOwner(): void;
  /** Interrupts KVM_RUN in `delayMs`, and then again and again. */
  alarm(delayMs: number): void;
  /** A device has a defect: it threw an error that no guest can cause. */
  failed(error: unknown): void;
}

export class DeviceLoop implements EventLoop {
  /** True while the thread runs a vCPU between its turns. */
  isMainPhase = false;
  /** Settles with the first failure, after which nothing that was deferred is done any more. */
  readonly failure: Promise<void>;
  #hasFailed = false;
  #settleFailure: () => void = () => undefined;
  readonly #hooks: DeviceLoopHooks;
  readonly #loop: EventLoop;

  constructor(hooks: DeviceLoopHooks, loop: EventLoop = nodeEventLoop) {
    this.#hooks = hooks;
    this.#loop = loop;
    this.failure = new Promise((resolve) => {
      this.#settleFailure = resolve;
    });
  }

  now(): number {
    return this.#loop.now();
  }

  defer(task: () => void): void {
    this.#loop.defer(() => this.guard(task));
    if (this.isMainPhase) this.#hooks.wakeOwner();
  }

  after(delayMs: number, task: () => void): () => void {
    if (this.isMainPhase) this.#hooks.alarm(Math.max(1, Math.min(Math.ceil(delayMs), COARSE_MS)));
    return this.#loop.after(delayMs, () => this.guard(task));
  }

  /** Runs code of the devices; not after a failure, which may have left them in any state. */
  guard(task: () => void): void {
    if (this.#hasFailed) return;
    try {
      task();
    } catch (error) {
      this.#hasFailed = true;
      this.#settleFailure();
      this.#hooks.failed(error);
    }
  }
}
