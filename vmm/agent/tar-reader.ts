// A tar archive as a tree of files, entry by entry, at the pace of whoever takes them.
import { TarReader, type TarEntry } from "../image/tar/reader.js";
import { bytesOf } from "./guest-bytes.js";
import { namesOf, pathOf, type TreeEntry, type TreeEntryType } from "./tree-entry.js";

const TYPES: Readonly<Record<TarEntry["type"], TreeEntryType>> = {
  file: "file",
  link: "hardlink",
  symlink: "symlink",
  char: "character-device",
  block: "block-device",
  folder: "directory",
  fifo: "fifo",
};
/** The reader is fed this much at a time, so that few entries wait. */
const PIECE = 65_536;
const ZEROES = Buffer.alloc(PIECE);

type Event = { readonly entry: TarEntry } | { readonly bytes: Buffer } | { readonly hole: number };

/** What the reader has found, in order. */
class TarEvents {
  readonly #source: AsyncIterator<string | Uint8Array>;
  readonly #reader = new TarReader({
    entry: (entry) => this.#events.push({ entry }),
    data: (bytes) => this.#events.push({ bytes }),
    hole: (hole) => this.#events.push({ hole }),
  });
  #events: Event[] = [];
  #at = 0;
  /** What the reader has not been given of the last chunk. */
  #rest: Buffer = Buffer.alloc(0);
  #hasEnded = false;

  constructor(archive: AsyncIterable<string | Uint8Array>) {
    this.#source = archive[Symbol.asyncIterator]();
  }

  /** The next one, and leaves it there; undefined at the end. Throws ImageError for what is no archive. */
  async peek(): Promise<Event | undefined> {
    while (this.#at >= this.#events.length && !this.#hasEnded) await this.#feed();
    return this.#events[this.#at];
  }

  skip(): void {
    this.#at++;
  }

  /** The source is not read any further. */
  async close(): Promise<void> {
    if (!this.#hasEnded) await this.#source.return?.();
  }

  async #feed(): Promise<void> {
    this.#events = [];
    this.#at = 0;
    if (this.#rest.length === 0) {
      const next = await this.#source.next();
      if (next.done === true) {
        this.#hasEnded = true;
        this.#reader.end(true);
        return;
      }
      this.#rest = bytesOf(next.value);
    }
    const piece = this.#rest.subarray(0, PIECE);
    this.#rest = this.#rest.subarray(PIECE);
    this.#reader.write(piece);
  }
}

/** Throws ImageError for what is no tar archive, or not a whole one, and ConfigError for names that lead out of a tree. */
export async function* unpackTree(
  archive: AsyncIterable<string | Uint8Array>,
): AsyncGenerator<TreeEntry, void, undefined> {
  const events = new TarEvents(archive);
  try {
    for (let event = await events.peek(); event !== undefined; event = await events.peek()) {
      events.skip();
      // What is left of a content that was not read to its end.
      if ("entry" in event) yield entryOf(event.entry, contentOf(events));
    }
  } finally {
    await events.close();
  }
}

async function* contentOf(events: TarEvents): AsyncGenerator<Uint8Array, void, undefined> {
  for (let event = await events.peek(); event !== undefined && !("entry" in event); event = await events.peek()) {
    events.skip();
    if ("bytes" in event) yield event.bytes;
    else {
      for (let left = event.hole; left > 0; left -= Math.min(left, PIECE))
        yield ZEROES.subarray(0, Math.min(left, PIECE));
    }
  }
}

function entryOf(entry: TarEntry, content: AsyncIterable<Uint8Array>): TreeEntry {
  const type = TYPES[entry.type];
  const link = Buffer.from(entry.linkName, "latin1");
  return {
    path: pathOf(namesOf(Buffer.from(entry.name, "latin1"))),
    type,
    mode: entry.mode & 0o7777,
    uid: entry.uid,
    gid: entry.gid,
    mtimeNs: BigInt(entry.mtime) * 1_000_000_000n + BigInt(entry.mtimeNs),
    size: type === "file" ? entry.size : 0,
    target: type === "symlink" || type === "hardlink" ? link : undefined,
    major: entry.major,
    minor: entry.minor,
    content: type === "file" ? content : undefined,
  };
}
