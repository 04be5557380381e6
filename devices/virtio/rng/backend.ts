/** Where the host's entropy comes from. */
export interface EntropySource {
  /** Fills all of `bytes`, a window on guest memory, with random bytes fit for keys. */
  fill(bytes: Uint8Array): void;
}
