// Templates of programs: where a command comes again, its guest goes on from behind the command's exec. What fork, exec and
// the end of the process before cost the guest's kernel has been paid for then, which is most of a short command's time on a
// KVM that emulates that kernel. Each is a differential snapshot that lies over its template.
import { createHash } from "node:crypto";
import { mkdirSync, rmSync, utimesSync } from "node:fs";
import { join } from "node:path";
import type { RestoreBlock } from "../../devices/pseudo/restore-block.js";
import type { Vm } from "../machine/vm.js";
import { createSnapshot } from "./create.js";
import type { OpenSnapshot } from "./restore.js";
import { oldestBut, openIfReady, programsPath } from "./template.js";

/** Kept by template, the latest used first: each takes some MiB, or nothing before its command has come again. */
const MAX_PROGRAMS = 64;
const PRIVATE_FOLDER = 0o700;

/** What decides which program is loaded, and what it finds. */
export type ProgramStart = Pick<RestoreBlock, "command" | "variables" | "folder">;

export class ProgramTemplate {
  readonly #template: string;
  readonly #path: string;

  /** `template`: path of that, which need not be there. */
  constructor(template: string, start: ProgramStart) {
    this.#template = template;
    this.#path = join(programsPath(template), programName(start));
  }

  /** Undefined if there is none yet, or none that is whole. */
  open(): OpenSnapshot | undefined {
    const snapshot = openIfReady(this.#path);
    if (snapshot !== undefined) touch(this.#template);
    return snapshot;
  }

  /** Whether this command has been asked for before; the next time it will have been. */
  isKnown(): boolean {
    try {
      mkdirSync(programsPath(this.#template), { mode: PRIVATE_FOLDER });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
    }
    try {
      mkdirSync(this.#path, { mode: PRIVATE_FOLDER });
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "EEXIST") return true;
      throw error;
    }
    for (const path of oldestBut(this.#path, MAX_PROGRAMS - 1)) rmSync(path, { recursive: true, force: true });
    return false;
  }

  /** Of a guest of the template that waits at its second point for a snapshot: it goes on, whatever becomes of that. */
  async make(vm: Vm): Promise<void> {
    await vm.pause();
    try {
      await createSnapshot(vm, this.#path, { base: this.#template });
    } finally {
      if (vm.state === "paused") vm.resume();
    }
  }
}

function programName({ command, variables = [], folder }: ProgramStart): string {
  const hash = createHash("sha256");
  for (const words of [command, variables, folder === undefined ? [] : [folder]]) {
    // Lengths: no two lists look alike.
    for (const word of words) hash.update(`${String(word.length)} `).update(word);
    hash.update("\n");
  }
  return hash.digest("hex").slice(0, 32);
}

function touch(path: string): void {
  const now = new Date();
  utimesSync(path, now, now);
}
