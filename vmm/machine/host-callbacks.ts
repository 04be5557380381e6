// The callbacks of a VM's owner, as the VM calls them. One that throws ends this VM with that error, and
// nothing else in the process.

/** What the VM calls for its console. Called on the thread that made the VM. */
export interface VmHost {
  /** Takes the bytes; calls `done` once they are written, and gets no more before. */
  output(bytes: Uint8Array, done: () => void): void;
  /** As `output`, for what comes by the command's channel; without it that comes by `output`, too. */
  commandOutput?(bytes: Uint8Array, done: () => void): void;
  /** As `commandOutput`, for the command's standard error; without it that comes by the same way as standard output. */
  commandError?(bytes: Uint8Array, done: () => void): void;
  /** What comes by the command's channel stays there, for whoever goes on from a snapshot of the guest. */
  readonly keepsCommandOutput?: boolean;
  /**
   * What is handed out of the command's channel may be a view of memory that the guest can change until `done` is called, and
   * does afterwards: for a host that only writes it somewhere. Otherwise it is a copy.
   */
  readonly takesViews?: boolean;
  /** The guest has room for input again, after `input` took less than it was given. */
  inputRoom?(): void;
  /** The guest's init has said that it is there (devices/pseudo/boot-timer.ts), at `ns` of CLOCK_MONOTONIC. */
  initStarted?(timeNs: bigint): void;
  /** The guest's init starts the command; from now on `Vm.hasCommandChannel` says whether it has a channel. */
  commandStarted?(): void;
  /** The command has room for input again, after `commandInput` took less than it was given. */
  commandRoom?(): void;
  /** The guest waits where it wants a snapshot to be taken (`vmlet.template`), until `pause` and then `resume`. */
  snapshotPoint?(): void;
  /** What the guest's metadata service gives out now, with `mmds` in the configuration: JSON, or undefined for nothing yet. */
  metadata?(): unknown;
  /** A device reports a problem on the host. */
  log?(line: string): void;
}

export class HostCallbacks {
  readonly #host: VmHost;
  readonly #failed: (error: unknown) => void;

  constructor(host: VmHost, failed: (error: unknown) => void) {
    this.#host = host;
    this.#failed = failed;
  }

  output(bytes: Uint8Array, done: () => void): void {
    this.#guard(() => this.#host.output(bytes, done));
  }

  /** Whether what comes by the command's channel has a way of its own. */
  get takesCommandOutput(): boolean {
    return this.#host.commandOutput !== undefined;
  }

  /** Whether the command's standard error has a way of its own. */
  get takesCommandError(): boolean {
    return this.#host.commandError !== undefined;
  }

  commandError(bytes: Uint8Array, done: () => void): void {
    this.#guard(() => this.#host.commandError?.(bytes, done));
  }

  get keepsCommandOutput(): boolean {
    return this.#host.keepsCommandOutput === true;
  }

  get takesViews(): boolean {
    return this.#host.takesViews === true;
  }

  commandOutput(bytes: Uint8Array, done: () => void): void {
    this.#guard(() => this.#host.commandOutput?.(bytes, done));
  }

  inputRoom(): void {
    this.#guard(() => this.#host.inputRoom?.());
  }

  initStarted(timeNs: bigint): void {
    this.#guard(() => this.#host.initStarted?.(timeNs));
  }

  commandStarted(): void {
    this.#guard(() => this.#host.commandStarted?.());
  }

  commandRoom(): void {
    this.#guard(() => this.#host.commandRoom?.());
  }

  /** False if nobody is there who would take a snapshot. */
  snapshotPoint(): boolean {
    if (this.#host.snapshotPoint === undefined) return false;
    this.#guard(() => this.#host.snapshotPoint?.());
    return true;
  }

  metadata(): unknown {
    let value: unknown;
    this.#guard(() => {
      value = this.#host.metadata?.();
    });
    return value;
  }

  log(line: string): void {
    this.#guard(() => this.#host.log?.(line));
  }

  #guard(call: () => unknown): void {
    try {
      const result = call();
      // An async function where none is asked for: what it throws comes later.
      if (result instanceof Promise) result.catch(this.#failed);
    } catch (error) {
      this.#failed(error);
    }
  }
}
