// What comes before the agent's HELLO may be the rest of what it had to say to another host, as on a serial line, or in the
// memory of a guest that goes on from a snapshot. It is dropped, byte by byte.
import { encodeHeader, HELLO } from "./frames.js";
import { encodeHello } from "./hello.js";

/** The header of HELLO and its magic, which no version changes. */
const BEGINNING = (() => {
  const payload = encodeHello({ streams: 0, nonce: 0 });
  return Buffer.concat([encodeHeader(0, HELLO, payload.length), payload.subarray(0, 4)]);
})();

export class HelloSearch {
  /** The last bytes, which may be the first ones of a HELLO. */
  #tail: Buffer = Buffer.alloc(0);

  /** The bytes from HELLO on; undefined while there is none. */
  push(chunk: Uint8Array): Buffer | undefined {
    const bytes = Buffer.concat([this.#tail, chunk]);
    const at = bytes.indexOf(BEGINNING);
    if (at >= 0) return bytes.subarray(at);
    this.#tail = bytes.subarray(Math.max(0, bytes.length - BEGINNING.length + 1));
    return undefined;
  }
}
