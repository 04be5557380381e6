// JSON that somebody else has written: taken field by field, of the right type, or refused with the place.
import { printable, show } from "../config/show.js";
import { ImageError } from "../errors.js";

export class Json {
  readonly #value: unknown;
  readonly #path: string;

  constructor(value: unknown, path: string) {
    this.#value = value;
    this.#path = path;
  }

  /** `what` names it in messages. Throws ImageError for what is none, or too long. */
  static parse(bytes: Uint8Array, what: string, maxBytes: number): Json {
    if (bytes.length > maxBytes) {
      throw new ImageError(`${what}: ${String(bytes.length)} bytes, more than ${String(maxBytes)}`);
    }
    try {
      return new Json(JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(bytes)), what);
    } catch (error) {
      throw new ImageError(`${what}: not JSON`, { cause: error });
    }
  }

  get isMissing(): boolean {
    return this.#value === undefined || this.#value === null;
  }

  get path(): string {
    return this.#path;
  }

  /** A missing field of an object is a missing value. */
  at(name: string): Json {
    const object = this.#object();
    return new Json(Object.hasOwn(object, name) ? object[name] : undefined, `${this.#path}: ${printable(name)}`);
  }

  /** In Docker's configuration names begin with a capital, in others' with a small letter. */
  atAny(...names: readonly string[]): Json {
    for (const name of names) {
      const found = this.at(name);
      if (!found.isMissing) return found;
    }
    return this.at(names[0] ?? "");
  }

  /** Empty if it is missing. */
  list(maximum: number): Json[] {
    if (this.isMissing) return [];
    const value = this.#value;
    if (!Array.isArray(value)) throw this.wrong("a list");
    if (value.length > maximum) throw this.wrong(`a list of at most ${String(maximum)}`);
    return value.map((item: unknown, index) => new Json(item, `${this.#path}[${String(index)}]`));
  }

  text(maximum = MAX_TEXT): string {
    const value = this.#value;
    if (typeof value !== "string") throw this.wrong("a text");
    if (value.length > maximum) throw this.wrong(`a text of at most ${String(maximum)} characters`);
    if (value.includes("\0")) throw this.wrong("a text without zero bytes");
    return value;
  }

  /** "" if it is missing. */
  optionalText(maximum = MAX_TEXT): string {
    return this.isMissing ? "" : this.text(maximum);
  }

  number(maximum = Number.MAX_SAFE_INTEGER): number {
    const value = this.#value;
    if (typeof value === "number" && Number.isSafeInteger(value) && value >= 0 && value <= maximum) return value;
    throw this.wrong(`a whole number from 0 to ${String(maximum)}`);
  }

  /** Names of an object; none if it is missing. */
  names(maximum: number): string[] {
    if (this.isMissing) return [];
    const names = Object.keys(this.#object());
    if (names.length > maximum) throw this.wrong(`an object with at most ${String(maximum)} names`);
    for (const name of names) new Json(name, this.#path).text();
    return names;
  }

  digest(): string {
    const text = this.text(MAX_DIGEST);
    if (!DIGEST.test(text)) throw this.wrong("a digest: sha256 and 64 hexadecimal digits");
    return text;
  }

  wrong(expected: string): ImageError {
    return new ImageError(`${this.#path}: ${show(this.#value)} is not ${expected}`);
  }

  #object(): Readonly<Record<string, unknown>> {
    const value = this.#value;
    if (typeof value !== "object" || value === null || Array.isArray(value)) throw this.wrong("an object");
    return value as Readonly<Record<string, unknown>>;
  }
}

const MAX_TEXT = 128 * 1024;
const MAX_DIGEST = 71;
const DIGEST = /^sha256:[0-9a-f]{64}$/;

/** The hexadecimal digits of a digest. */
export function digitsOf(digest: string): string {
  return digest.slice("sha256:".length);
}
