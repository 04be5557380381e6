// Tokens of the metadata service that nobody has to keep: each says until when it is good, and has been sealed with a
// key of this VM in this process. After a restore, those of before are not good any more.
import type { MmdsTokens } from "../../../devices/mmds/service.js";
import { nodeCrypto } from "../../sys/node-crypto.js";
import { randomBytes } from "../../sys/random.js";

const KEY_BYTES = 32;
const TIME_BYTES = 8;
/** Of HMAC-SHA-256: more than anybody guesses over a network of one cable. */
const SEAL_BYTES = 24;
const TOKEN = /^[\w-]{43}$/;

export class SealedTokens implements MmdsTokens {
  readonly #key = randomBytes(KEY_BYTES);
  readonly #nowMs: () => number;

  /** `nowMs`: monotonic. */
  constructor(nowMs: () => number) {
    this.#nowMs = nowMs;
  }

  issue(seconds: number): string {
    const time = Buffer.alloc(TIME_BYTES);
    time.writeDoubleLE(this.#nowMs() + seconds * 1000);
    return Buffer.concat([time, this.#seal(time)]).toString("base64url");
  }

  isValid(token: string): boolean {
    if (!TOKEN.test(token)) return false;
    const bytes = Buffer.from(token, "base64url");
    const time = bytes.subarray(0, TIME_BYTES);
    const isSealed = nodeCrypto().timingSafeEqual(bytes.subarray(TIME_BYTES), this.#seal(time));
    return isSealed && this.#nowMs() < time.readDoubleLE();
  }

  #seal(time: Uint8Array): Buffer {
    return nodeCrypto().createHmac("sha256", this.#key).update(time).digest().subarray(0, SEAL_BYTES);
  }
}
