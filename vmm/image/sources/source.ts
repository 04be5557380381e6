// Where an image comes from, as the rest sees it.
import type { ImageCache } from "../cache.js";
import type { ImageLimits } from "../types.js";

export interface SourceContext {
  readonly cache: ImageCache;
  readonly limits: ImageLimits;
  readonly signal?: AbortSignal | undefined;
  /** Bytes that come over a line before anything can be unpacked. */
  readonly onDownload?: ((done: number, total: number | undefined) => void) | undefined;
}

export interface SourceLayer {
  /** sha256 of what `open` gives, 64 hexadecimal digits; undefined where nobody says. */
  readonly digest: string | undefined;
  /** `bytes` of it. */
  readonly size: number | undefined;
  open(): AsyncIterable<Buffer>;
}

/** An image somewhere, found and described, its layers not read yet. */
export interface ImageSource {
  /** Undefined for a bare root file system: one layer. */
  readonly config: Buffer | undefined;
  readonly layers: readonly SourceLayer[];
  close(): Promise<void>;
}

/** A place where blobs lie: a folder, or an archive in the form of one. */
export interface BlobFolder {
  /** How messages call it. */
  readonly name: string;
  has(path: string): Promise<boolean>;
  /** All of a small file. Throws ImageError if it is not there, or longer than `maxBytes`. */
  readAll(path: string, maxBytes: number): Promise<Buffer>;
  /** `bytes` */
  size(path: string): Promise<number>;
  read(path: string): AsyncIterable<Buffer>;
  close(): Promise<void>;
}
