// A snapshot's files that another process has opened, for one in the jail: the folder is that one's, which publishes or removes them.
import { SnapshotError } from "../errors.js";
import { closeDescriptor } from "../sys/descriptors.js";
import { fileNames, type SnapshotTarget } from "./folder.js";

export class HandedFiles implements SnapshotTarget {
  readonly path: string;
  readonly id: string;
  readonly #files: Map<string, number>;

  /** `path`: the folder, for messages. The descriptors are of new, empty files, and this one's to close. */
  constructor(path: string, id: string, { memory, state }: { readonly memory: number; readonly state: number }) {
    this.path = path;
    this.id = id;
    const names = fileNames(id);
    this.#files = new Map([
      [names.memory, memory],
      [names.state, state],
    ]);
  }

  make(name: string): number {
    const fd = this.#files.get(name);
    if (fd === undefined) throw new SnapshotError(`${this.path}: ${name} was not handed in`);
    this.#files.delete(name);
    return fd;
  }

  publish(): Promise<void> {
    return Promise.resolve();
  }

  remove(): void {
    // Whoever has made the folder does.
  }

  close(): void {
    for (const fd of this.#files.values()) closeDescriptor(fd);
    this.#files.clear();
  }

  giveUp(): void {
    this.close();
  }
}
