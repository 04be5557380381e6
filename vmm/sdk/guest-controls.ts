// What is asked of a running guest from outside, by signals, keys and the control socket: one thing after the other,
// in the order in which it was asked, whoever asks.
import { VmmError, VmStateError } from "../errors.js";
import type { Vm } from "../machine/vm.js";
import type { Snapshot, SnapshotOptions } from "../snapshot/create.js";
import type { Migration } from "../snapshot/migration/send.js";

export type ControlledVm = Pick<Vm, "pause" | "resume" | "setBalloon" | "state" | "stop">;
export interface SaveOptions extends Pick<SnapshotOptions, "resume" | "base" | "watch" | "note"> {
  /** Id of the snapshot whose files have been sent here. */
  readonly handed?: string | undefined;
}

/** As createSnapshot of vmm/snapshot, which only who wants one loads. */
export type SaveGuest = (folder: string, options: SaveOptions) => Promise<Snapshot>;

/** As migrateVm of vmm/snapshot, with the address as text. */
export type MoveGuest = (to: string) => Promise<Migration>;

export class GuestControls {
  #begin: (vm: ControlledVm) => void = () => undefined;
  readonly #vm = new Promise<ControlledVm>((resolve) => (this.#begin = resolve));
  #save: SaveGuest | undefined;
  #move: MoveGuest | undefined;
  /** Settles when all that was asked so far is done; undefined if nothing was. */
  #last: Promise<unknown> | undefined;

  /** The socket to which a snapshot's files have to be sent, as long as `handed` does not name them; undefined: this process opens them. */
  wantsFiles: (handed: string | undefined) => string | undefined = () => undefined;

  /** From now on the VM runs: what was asked before is done. */
  begin(vm: ControlledVm, save?: SaveGuest, move?: MoveGuest): void {
    this.#save = save;
    this.#move = move;
    this.#begin(vm);
  }

  /** Resolves when all that was asked of a VM that has begun is done. */
  async settled(): Promise<void> {
    if (this.#save !== undefined) await this.#last;
  }

  state(): Promise<ControlledVm["state"]> {
    return this.#inTurn((vm) => vm.state);
  }

  /** Rejects with ConfigError for what cannot be. */
  setBalloon(targetMib: number): Promise<void> {
    return this.#inTurn((vm) => {
      vm.setBalloon(targetMib);
    });
  }

  /** Resolves when every vCPU rests. Rejects with VmStateError if the guest has ended. */
  pause(): Promise<void> {
    return this.#inTurn((vm) => vm.pause());
  }

  /** Rejects with VmStateError if the guest has ended. */
  resume(): Promise<void> {
    return this.#inTurn((vm) => {
      vm.resume();
    });
  }

  /** Rejects with what `save` rejects with; the guest is as before then. `stop`: the guest ends with it. */
  snapshot(folder: string, { stop, ...options }: SaveOptions & { readonly stop: boolean }): Promise<Snapshot> {
    return this.#inTurn(async (vm) => {
      if (this.#save === undefined) throw new Error("Nobody saves this guest");
      const snapshot = await this.#save(folder, stop ? { ...options, resume: false } : options);
      if (stop) vm.stop();
      return snapshot;
    });
  }

  /** The guest goes on elsewhere, and ends here. Rejects with what `move` rejects with; the guest is here then. */
  migrate(to: string): Promise<Migration> {
    return this.#inTurn(async (vm) => {
      if (this.#move === undefined) throw new Error("Nobody moves this guest");
      const migration = await this.#move(to);
      vm.stop();
      return migration;
    });
  }

  /** The other of the two; the state that follows. */
  togglePause(): Promise<ControlledVm["state"]> {
    return this.#inTurn(async (vm) => {
      if (vm.state === "paused") vm.resume();
      else await vm.pause();
      return vm.state;
    });
  }

  async #inTurn<Result>(task: (vm: ControlledVm) => Result | Promise<Result>): Promise<Result> {
    const before = this.#last;
    const done = this.#vm.then(async (vm) => {
      await before;
      return task(vm);
    });
    this.#last = done.catch(() => undefined);
    return done;
  }
}

/** For one who cannot be answered: a guest that ends meanwhile has nothing left to pause; any other reason is a line. */
export function unlessEnded(task: Promise<unknown>, report: (line: string) => void): void {
  void task.catch((error: unknown) => {
    if (!(error instanceof VmmError)) throw error;
    if (!(error instanceof VmStateError)) report(error.message);
  });
}
