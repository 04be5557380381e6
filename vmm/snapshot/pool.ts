// VMs of one snapshot, restored before anybody asks: taking one spares all that KVM needs to make a VM. What was taken
// is replaced in the background, one VM a turn of the event loop.
import { integerProblem } from "../config/check.js";
import { ConfigError } from "../errors.js";
import type { VmHost } from "../machine/host-callbacks.js";
import type { Vm } from "../machine/vm.js";

export interface PoolOptions {
  /** How many VMs wait, 1 to 1000. */
  readonly size: number;
  /** Hears of a VM that could not be made in the background; the next `take` tries again, and throws. */
  readonly failed?: ((error: unknown) => void) | undefined;
}

/** What has been taken is about to be started: that goes first, `ms`. */
const REFILL_AFTER_MS = 2;

const MAX_SIZE = 1000;

interface WaitingVm {
  readonly vm: Vm;
  readonly host: LateHost;
}

/** The callbacks of a VM whose owner is not known yet. It says nothing before it is started, but for lines of the log. */
class LateHost implements VmHost {
  #host: VmHost | undefined;
  readonly #lines: string[] = [];

  give(host: VmHost): void {
    this.#host = host;
    for (const line of this.#lines.splice(0)) host.log?.(line);
  }

  output(bytes: Uint8Array, done: () => void): void {
    this.#host?.output(bytes, done);
  }

  inputRoom(): void {
    this.#host?.inputRoom?.();
  }

  commandStarted(): void {
    this.#host?.commandStarted?.();
  }

  commandRoom(): void {
    this.#host?.commandRoom?.();
  }

  get commandOutput(): (bytes: Uint8Array, done: () => void) => void {
    // A host without one takes it as any output.
    return this.#host?.commandOutput?.bind(this.#host) as (bytes: Uint8Array, done: () => void) => void;
  }

  get commandError(): (bytes: Uint8Array, done: () => void) => void {
    return this.#host?.commandError?.bind(this.#host) as (bytes: Uint8Array, done: () => void) => void;
  }

  get snapshotPoint(): () => void {
    // A host without one has the guest go on at once.
    return this.#host?.snapshotPoint?.bind(this.#host) as () => void;
  }

  log(line: string): void {
    if (this.#host === undefined) this.#lines.push(line);
    else this.#host.log?.(line);
  }
}

export class SnapshotPool {
  readonly #restore: (host: VmHost) => Vm;
  readonly #options: PoolOptions;
  readonly #taken: (vm: Vm) => void;
  readonly #waiting: WaitingVm[] = [];
  #timer: NodeJS.Timeout | undefined;
  #isClosed = false;

  /** Begins to fill itself; what `restore` restores from stays open until the pool is closed. Throws ConfigError. */
  constructor(restore: (host: VmHost) => Vm, options: PoolOptions, taken: (vm: Vm) => void = () => undefined) {
    const problem = integerProblem("Size of the pool (size)", options.size, { minimum: 1, maximum: MAX_SIZE });
    if (problem !== undefined) throw new ConfigError([problem]);
    this.#restore = restore;
    this.#options = options;
    this.#taken = taken;
    this.#refill(0);
  }

  /** How many VMs wait now. */
  get ready(): number {
    return this.#waiting.length;
  }

  /** A VM that goes on with the snapshot once it is started; made now if none waits. Throws as a restore does. */
  take(host: VmHost): Vm {
    if (this.#isClosed) throw new ConfigError(["The pool of VMs is closed"]);
    const { vm, host: late } = this.#waiting.shift() ?? this.#make();
    late.give(host);
    this.#taken(vm);
    this.#refill(REFILL_AFTER_MS);
    return vm;
  }

  /** Resolves once as many VMs wait as are to. */
  async filled(): Promise<void> {
    while (!this.#isClosed && this.#waiting.length < this.#options.size) {
      this.#waiting.push(this.#make());
      await new Promise((resolve) => setImmediate(resolve));
    }
  }

  /** Frees the VMs that nobody has taken. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    await Promise.all(this.#waiting.splice(0).map(({ vm }) => vm.close()));
  }

  #make(): WaitingVm {
    const host = new LateHost();
    return { vm: this.#restore(host), host };
  }

  #refill(afterMs: number): void {
    if (this.#isClosed || this.#waiting.length >= this.#options.size) return;
    // A process may end without them.
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      try {
        if (!this.#isClosed && this.#waiting.length < this.#options.size) this.#waiting.push(this.#make());
      } catch (error) {
        this.#options.failed?.(error);
        return;
      }
      this.#refill(0);
    }, afterMs).unref();
  }
}
