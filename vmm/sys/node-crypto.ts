// The one place that loads node:crypto, when it is needed: it brings all of Node's streams and ciphers along, which takes 9 ms,
// and most runs need none of it. (Random bytes: random.ts. A hash of what lies in memory: sha256.ts.)
import type * as crypto from "node:crypto";
import { createRequire } from "node:module";

type Crypto = typeof crypto;

let loaded: Crypto | undefined;

export function nodeCrypto(): Crypto {
  return (loaded ??= createRequire(import.meta.url)("node:crypto") as Crypto);
}

/** SHA-256 of what comes in pieces. */
export function newSha256(): crypto.Hash {
  return nodeCrypto().createHash("sha256");
}
