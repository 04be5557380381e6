// What a VM's memory has that an earlier snapshot has not: pages that may have changed are compared with what they were.
// Which may have: those that a watch has seen, or those that a VM that goes on from that very snapshot has made its own; else all
// that hold something.
import { closeSync, fstatSync, statSync } from "node:fs";
import { join, resolve } from "node:path";
import type { State } from "../../devices/state.js";
import { resolveDescribed } from "../config/describe.js";
import type { VmConfig } from "../config/types.js";
import { SnapshotError } from "../errors.js";
import type { PageWatch } from "../machine/page-watches.js";
import type { Vm } from "../machine/vm.js";
import { PAGE_SIZE } from "../memory/layout.js";
import { hasPage, type FileMemory } from "../memory/saved-memory.js";
import { pageWords } from "../memory/written-pages.js";
import { ownPages } from "../sys/pagemap.js";
import { attempt, STATE_FILE } from "./folder.js";
import { baseFolder, baseState, MAX_CHAIN, openMemory, readBase, readBelow } from "./memory-chain.js";
import { candidatePages, type MemoryPiece } from "./memory-file.js";
import { piecesOf, type MemoryOf } from "./memory-pieces.js";
import { readingState } from "./state-file.js";
import { memoryBytes, readId, readState } from "./state-parts.js";

export interface SinceBase {
  /** Those of a snapshot, each with what it was. */
  readonly pieces: readonly MemoryPiece[];
  /** For the state file, once all pieces are written to the folder. */
  state(own: string): State;
}

/** A snapshot that another one is to lie over. */
export class Base {
  readonly id: string;
  readonly #folder: string;
  readonly #length: number;
  readonly #memory: FileMemory;
  readonly #mapped: { unmap(): void }[] = [];

  private constructor(id: string, folder: string, length: number, memory: FileMemory) {
    this.id = id;
    this.#folder = folder;
    this.#length = length;
    this.#memory = memory;
  }

  /** `target`: where the new one is made. Throws SnapshotError for a base that cannot be one. */
  static open(folder: string, target: string): Base {
    const path = join(folder, STATE_FILE);
    const state = readState(folder);
    return readingState(path, () => {
      const id = readId(state);
      const length = memoryBytes(resolveDescribed(state.at("config").value as VmConfig));
      checkPlaces(folder, target, length);
      const memory = openMemory(state, folder);
      if (memory.files.length < MAX_CHAIN) return new Base(id, folder, length, memory);
      for (const fd of memory.files) closeSync(fd);
      throw new SnapshotError(`${folder}: ${String(MAX_CHAIN)} snapshots lie one over the other already`, {
        cure: "make a full one",
      });
    });
  }

  /** `watched`: pages of RAM that may have changed since, if somebody knows. Throws SnapshotError for another guest's. */
  since(memory: MemoryOf, watched: Uint32Array | undefined): SinceBase {
    const pieces = piecesOf(memory);
    const length = pieces.reduce((sum, piece) => sum + piece.length, 0);
    if (length !== this.#length) {
      throw new SnapshotError(
        `${this.#folder}: of a guest with ${String(this.#length)} bytes of memory; this one has ${String(length)}`,
      );
    }
    const pages = new Uint32Array(pageWords(length));
    const ram = this.#memory.ram(memory.memory.size);
    this.#mapped.push(ram);
    const channel = memory.command === undefined ? undefined : this.#memory.channel(memory.memory.size);
    if (channel !== undefined) this.#mapped.push(channel);
    const goesOnFromIt = sameFiles(this.#memory.files, memory.memoryFiles);
    let at = 0;
    const withBase = pieces.map((piece, index): MemoryPiece => {
      const first = at / PAGE_SIZE;
      at += piece.length;
      const earlier = this.#memory.files.map((fd) => ({ fd, offset: first * PAGE_SIZE }));
      return {
        ...piece,
        since: {
          address: index === 0 ? ram.hostAddress : (channel?.region.hva ?? 0),
          candidates: (from, count) => {
            if (index === 0 && watched !== undefined) return pagesOf(watched, from / PAGE_SIZE, count / PAGE_SIZE);
            const own = goesOnFromIt && piece.isShared !== true ? ownPages(piece.address + from, count) : undefined;
            return own ?? candidatePages({ ...piece, bases: [...piece.bases, ...earlier] }, from, count);
          },
          changed: (page) => {
            const place = first + page;
            pages[place >>> 5] = (pages[place >>> 5] ?? 0) | (1 << (place & 31));
          },
        },
      };
    });
    return { pieces: withBase, state: (own) => baseState(this.id, this.#folder, own, pages) };
  }

  close(): void {
    for (const mapped of this.#mapped.splice(0)) mapped.unmap();
    for (const fd of this.#memory.files) closeSync(fd);
  }
}

function pagesOf(bits: Uint32Array, first: number, count: number): Uint8Array {
  return Uint8Array.from({ length: count }, (_, index) => (hasPage(bits, first + index) ? 1 : 0));
}

function sameFiles(a: readonly number[], b: readonly number[]): boolean {
  const place = (fd: number): string => {
    const { dev, ino } = fstatSync(fd, { bigint: true });
    return `${String(dev)} ${String(ino)}`;
  };
  return a.length === b.length && a.every((fd, index) => place(fd) === place(b[index] ?? -1));
}

/** In the folder of its base, or of one below that, it would take away what it needs. */
function checkPlaces(folder: string, target: string, length: number): void {
  const place = attempt(target, () => statSync(target, { throwIfNoEntry: false }));
  let below = resolve(folder);
  let state = readState(below);
  for (let depth = 0; depth < MAX_CHAIN; depth++) {
    const stat = attempt(below, () => statSync(below));
    if (place?.ino === stat.ino && place.dev === stat.dev) {
      throw new SnapshotError(`${target}: a snapshot that lies over another needs a folder of its own`, {
        cure: "give another folder",
      });
    }
    const base = readBase(state, length);
    if (base === undefined) return;
    const next = baseFolder(below, base);
    state = readBelow(below, next, base.id);
    below = next;
  }
}

/** By VM, the snapshot since which somebody follows what changes. */
const watches = new WeakMap<Vm, { readonly id: string; readonly watch: PageWatch }>();

/** From now on, until the next one; the VM rests. */
export function watchFrom(vm: Vm, id: string): void {
  const before = watches.get(vm);
  const watch = vm.watchPages();
  before?.watch.close();
  watches.set(vm, { id, watch });
}

export function changedPagesSince(vm: Vm, id: string): Uint32Array | undefined {
  const watched = watches.get(vm);
  return watched?.id === id ? watched.watch.changed() : undefined;
}
