// The metadata of a guest (MMDS): one JSON value with a limit on its size.
import { Fault } from "./fault.js";

const PAYLOAD_TOO_LARGE = 413;

export interface MmdsOptions {
  /** Of the value as JSON. */
  readonly maxBytes: number;
}

export class MmdsStore {
  readonly #maxBytes: number;
  #value: unknown = undefined;

  constructor({ maxBytes }: MmdsOptions) {
    this.#maxBytes = maxBytes;
  }

  /** Undefined until something was put. */
  get value(): unknown {
    return this.#value;
  }

  /** Throws Fault. */
  put(value: unknown): void {
    this.#check(value);
    this.#value = value;
  }

  /** RFC 7396. Throws Fault. */
  patch(patch: unknown): void {
    if (this.#value === undefined) throw new Fault("MMDS: there is nothing to change: PUT /mmds comes first");
    const merged = merge(this.#value, patch);
    this.#check(merged);
    this.#value = merged;
  }

  #check(value: unknown): void {
    const bytes = Buffer.byteLength(JSON.stringify(value));
    if (bytes <= this.#maxBytes) return;
    const limit = `${String(this.#maxBytes)} (--mmds-size-limit)`;
    throw new Fault(`MMDS: ${String(bytes)} bytes of JSON are more than the limit of ${limit}`, PAYLOAD_TOO_LARGE);
  }
}

type Fields = Readonly<Record<string, unknown>>;

function isObject(value: unknown): value is Fields {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function merge(target: unknown, patch: unknown): unknown {
  if (!isObject(patch)) return patch;
  const merged = new Map<string, unknown>(isObject(target) ? Object.entries(target) : []);
  for (const [key, value] of Object.entries(patch)) {
    if (value === null) merged.delete(key);
    else merged.set(key, merge(merged.get(key), value));
  }
  // Object.fromEntries defines: a key such as "__proto__" is one like any other.
  return Object.fromEntries(merged);
}
