// The agent of a guest, over the command channel of a VM that this process runs.
import { AgentConnection } from "../../vmm/agent/connection.js";
import type { ConnectionOptions } from "../../vmm/agent/connection.js";
import type { AgentTransport } from "../../vmm/agent/transport.js";
import type { Machine, VmHost } from "../../vmm/index.js";

export class VmAgent implements AgentTransport {
  onBytes: ((bytes: Uint8Array) => void) | undefined;
  onDrain: (() => void) | undefined;
  onClose: ((cause?: unknown) => void) | undefined;
  #vm: Machine | undefined;
  #pending: Uint8Array[] = [];
  #isFull = false;

  readonly host: VmHost = {
    output: (bytes, done) => {
      this.onBytes?.(Uint8Array.from(bytes));
      done();
    },
    commandRoom: () => {
      this.#flush();
    },
    log: (line) => {
      process.stderr.write(`${line}\n`);
    },
  };

  /** Before the VM starts. */
  connect(vm: Machine, options: ConnectionOptions = {}): AgentConnection {
    this.#vm = vm;
    return new AgentConnection(this, options);
  }

  /** The VM has ended. */
  ended(): void {
    this.onClose?.();
  }

  write(bytes: Uint8Array): boolean {
    this.#pending.push(Uint8Array.from(bytes));
    if (!this.#isFull) this.#flush();
    return !this.#isFull;
  }

  close(): void {
    this.#vm = undefined;
  }

  #flush(): void {
    this.#isFull = false;
    for (let piece; (piece = this.#pending[0]) !== undefined; this.#pending.shift()) {
      const taken = this.#vm?.commandInput(piece) ?? piece.length;
      if (taken < piece.length) {
        this.#pending[0] = piece.subarray(taken);
        this.#isFull = true;
        return;
      }
    }
    this.onDrain?.();
  }
}
