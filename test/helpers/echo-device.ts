// A virtio device for tests of what lies below devices: copies readable bytes to writable ones,
// as far as there is room, at most two chains in a turn. Writes down what happens to it.
import type { AccessSize } from "../../devices/contracts.js";
import type { State, StateReader } from "../../devices/state.js";
import { Reader, Writer } from "../../devices/virtio/cursor.js";
import type { ActivationContext, VirtioDevice } from "../../devices/virtio/device.js";

export const ECHO_FEATURE = 5;
export const ECHO_BUDGET = 2;

export class EchoDevice implements VirtioDevice {
  readonly name = "echo0";
  readonly deviceType = 42;
  readonly offeredFeatures = 1n << BigInt(ECHO_FEATURE);
  readonly queueMaxSizes = [16, 8];
  readonly counters = { chains: 0 };
  readonly events: string[] = [];
  readonly config: number[] = [];
  context: ActivationContext | undefined;

  readConfig(offset: number, size: AccessSize): number {
    return offset * 16 + size;
  }

  writeConfig(offset: number, size: AccessSize, value: number): void {
    this.config.push(offset, size, value);
  }

  activate(context: ActivationContext): void {
    this.events.push("activate");
    this.context = context;
  }

  onAvailable(queueIndex: number): boolean {
    this.events.push(`available ${String(queueIndex)}`);
    const { context } = this;
    const queue = context?.queues[queueIndex];
    if (context === undefined || queue === undefined) return false;
    const reader = new Reader(context.memory);
    const writer = new Writer(context.memory);
    let budget = ECHO_BUDGET;
    do {
      queue.suppressNotifications();
      for (; budget > 0; budget--) {
        const chain = queue.pop();
        if (chain === null) break;
        reader.start(chain.readable);
        writer.start(chain.writable);
        const bytes = new Uint8Array(Math.min(reader.remaining, writer.remaining));
        reader.readBytes(bytes);
        writer.writeBytes(bytes);
        queue.pushUsed(chain.head, bytes.length);
        this.counters.chains++;
      }
      if (queue.publishUsed()) context.interrupt(queue);
      if (budget === 0) return true;
    } while (queue.resumeNotifications());
    return false;
  }

  save(): State {
    return { chains: this.counters.chains };
  }

  restore(state: StateReader): void {
    state.only(["chains"]);
    this.counters.chains = state.integer("chains", { minimum: 0, maximum: 1e6 });
    this.events.push("restore");
  }

  reset(): void {
    this.events.push("reset");
    this.context = undefined;
  }
}
