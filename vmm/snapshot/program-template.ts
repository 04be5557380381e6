// Templates of programs: where a command comes again, its guest goes on from behind the command's exec. What fork, exec and
// the end of the process before cost the guest's kernel has been paid for then, which is most of a short command's time on a
// KVM that emulates that kernel. Each is a differential snapshot that lies over its template.
import { closeSync, existsSync, mkdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import type { RestoreBlock } from "../../devices/pseudo/restore-block.js";
import type { ResolvedShare } from "../config/shares.js";
import { SnapshotError } from "../errors.js";
import type { BuildOptions } from "../machine/builder.js";
import type { Vm } from "../machine/vm.js";
import { sha256 } from "../sys/sha256.js";
import { createSnapshot } from "./create.js";
import { tryLock, waitForLock } from "./lock-file.js";
import { OpenSnapshot } from "./restore.js";
import { saveAtPoint } from "./save-at-point.js";
import { markUsed, openIfReady, programsPath, removeAllBut } from "./template.js";

/** Kept by template, the latest used first: each takes some MiB, or nothing before its command has come again. */
const MAX_PROGRAMS = 64;
const PRIVATE_FOLDER = 0o700;
const GIVEN_UP = "given-up";
/** The last guest that would have gone on from it found other files. */
const REFUSED = "refused";

/** What decides which program is loaded, and what it finds. */
export type ProgramStart = Pick<RestoreBlock, "command" | "variables" | "folder" | "hostName">;

export class ProgramTemplate {
  readonly #template: string;
  readonly #path: string;
  readonly #shares: readonly ResolvedShare[];
  /** For messages. */
  readonly #name: string;

  /** `template`: path of that, which need not be there. `shares`: of the guests that go on from this one. */
  constructor(template: string, start: ProgramStart, shares: readonly ResolvedShare[] = []) {
    this.#template = template;
    this.#shares = shares;
    this.#path = join(programsPath(template), programName(start));
    this.#name = JSON.stringify(Buffer.from(start.command[0] ?? []).toString());
  }

  /** Undefined if there is none yet, or none that is whole. */
  open(): OpenSnapshot | undefined {
    const snapshot = openIfReady(this.#path, this.#shares);
    if (snapshot !== undefined) markUsed(this.#template);
    return snapshot;
  }

  /** Whether this command has been asked for before; the next time it will have been. */
  isKnown(): boolean {
    return this.#enter() === false;
  }

  /**
   * Of a guest of the template that waits at its second point for a snapshot: it goes on once `before` has come to its end, whatever becomes
   * of that. Nothing is done if somebody else is at it. Throws SnapshotError, and VmStateError if the guest has been stopped.
   */
  async make(vm: Vm, before?: () => Promise<void>): Promise<void> {
    await vm.pause();
    const lock = tryLock(this.#path);
    try {
      if (lock !== undefined) await this.#make(vm);
    } finally {
      if (lock !== undefined) closeSync(lock);
      await before?.();
      if (vm.state === "paused") vm.resume();
    }
  }

  /** The same, where a guest is made for it alone: `run` has it saved. False, and nothing is done, if somebody else is at it. */
  async makeAlone(run: (save: (vm: Vm) => Promise<void>) => Promise<void>): Promise<boolean> {
    const lock = tryLock(this.#path);
    if (lock === undefined) return false;
    try {
      await run((vm) => this.#make(vm));
      return true;
    } finally {
      closeSync(lock);
    }
  }

  /** Nothing can be kept of it. */
  giveUp(): void {
    if (this.#enter() !== undefined) writeFileSync(join(this.#path, GIVEN_UP), "");
  }

  get isGivenUp(): boolean {
    return existsSync(join(this.#path, GIVEN_UP));
  }

  /** It has served. */
  accepted(): void {
    rmSync(join(this.#path, REFUSED), { force: true });
  }

  /**
   * The files are not those that it was made with. Once, that may be somebody who has changed his own; the second time in a row
   * they are nobody's any more, and the next one of its kind makes it anew. Throws SnapshotError if there can be no lock.
   */
  refused(): void {
    const lock = tryLock(this.#path);
    if (lock === undefined) return;
    try {
      if (existsSync(join(this.#path, REFUSED))) {
        rmSync(this.#path, { recursive: true, force: true });
        makeFolder(this.#path);
      } else if (existsSync(this.#path)) {
        writeFileSync(join(this.#path, REFUSED), "");
      }
    } finally {
      closeSync(lock);
    }
  }

  /** Made now if there is none, in a guest that ends then. Throws SnapshotError, and what a restore throws. */
  async openOrMake(template: OpenSnapshot, block: RestoreBlock, options: BuildOptions): Promise<OpenSnapshot> {
    const ready = this.open();
    if (ready !== undefined) return ready;
    this.#enter();
    const lock = await waitForLock(this.#path);
    try {
      const made = this.open();
      if (made !== undefined) return made;
      await this.#makeIn(template, block, options);
      return OpenSnapshot.open(this.#path).share(this.#shares);
    } finally {
      closeSync(lock);
    }
  }

  /** True if it is new; undefined in a cache that cannot be written to, which remembers nothing. */
  #enter(): boolean | undefined {
    if (makeFolder(programsPath(this.#template)) === undefined) return undefined;
    const isNew = makeFolder(this.#path);
    if (isNew === true) removeAllBut(this.#path, MAX_PROGRAMS);
    return isNew;
  }

  /** The VM rests afterwards. */
  async #make(vm: Vm): Promise<void> {
    await createSnapshot(vm, this.#path, { base: this.#template, resume: false });
  }

  async #makeIn(template: OpenSnapshot, block: RestoreBlock, options: BuildOptions): Promise<void> {
    await saveAtPoint({
      make: (host) => template.restore(host, options),
      begin: (vm) => {
        vm.giveCommand({ ...block, holdsProgram: true });
      },
      save: (vm) => this.#make(vm),
      missed: (_, said) =>
        new SnapshotError(`The guest has not started ${this.#name}${said === "" ? "" : `: ${said}`}`),
    });
  }
}

/** True if it was not there, undefined if it cannot be made. */
function makeFolder(path: string): boolean | undefined {
  try {
    mkdirSync(path, { mode: PRIVATE_FOLDER });
    return true;
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EEXIST" ? false : undefined;
  }
}

function programName({ command, variables = [], folder, hostName }: ProgramStart): string {
  const names = [folder, hostName === undefined ? undefined : Buffer.from(hostName)];
  const lists = [command, variables, ...names.map((name) => (name === undefined ? [] : [name]))];
  const text = lists.map((words) => words.map((word) => Buffer.from(word).toString("latin1")));
  return sha256(Buffer.from(JSON.stringify(text))).slice(0, 32);
}
