// The agent's bytes by the command channel of a VM in this process.
import type { AgentTransport, WriteUrgency } from "../agent/transport.js";
import type { Vm } from "../machine/vm.js";

type Channel = Pick<Vm, "agentInput">;

export class ChannelTransport implements AgentTransport {
  onBytes: ((bytes: Uint8Array) => void) | undefined;
  onDrain: (() => void) | undefined;
  onClose: ((cause?: unknown) => void) | undefined;
  #channel: Channel | undefined;
  /** What has found no room. */
  #pending: Uint8Array[] = [];
  #isClosed = false;

  /** The VM, once it is made. */
  connect(channel: Channel): void {
    this.#channel = channel;
  }

  write(bytes: Uint8Array, urgency: WriteUrgency = "now"): boolean {
    if (this.#isClosed) return true;
    if (this.#pending.length > 0) {
      this.#pending.push(bytes.slice());
      return false;
    }
    const taken = this.#channel?.agentInput(bytes, urgency) ?? 0;
    if (taken === bytes.length) return true;
    this.#pending.push(bytes.slice(taken));
    return false;
  }

  close(): void {
    this.#isClosed = true;
    this.#pending = [];
  }

  /** For VmHost.commandOutput. */
  receive(bytes: Uint8Array): void {
    if (!this.#isClosed) this.onBytes?.(bytes);
  }

  /** For VmHost.commandRoom. */
  roomAvailable(): void {
    while (this.#pending.length > 0) {
      const [first = new Uint8Array()] = this.#pending;
      const taken = this.#channel?.agentInput(first, "now") ?? 0;
      if (taken < first.length) {
        this.#pending[0] = first.subarray(taken);
        return;
      }
      this.#pending.shift();
    }
    if (!this.#isClosed) this.onDrain?.();
  }

  /** The guest has ended. */
  ended(cause?: unknown): void {
    if (!this.#isClosed) this.onClose?.(cause);
  }
}
