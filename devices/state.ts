// Saved state is JSON: objects with named fields, whole numbers, text, booleans, lists. Numbers of 64 bits are text
// ("0x..."), bytes are base64. It may come from anybody: a reader gives out what is of the right type and within
// its limits, and refuses the rest with the place, the value and the limit.

/** What a device saves. */
export type State = { readonly [name: string]: StateValue };
export type StateValue = string | number | boolean | null | readonly StateValue[] | State;

/** Saved state that cannot be; the message names the place, the value and what may stand there. */
export class StateError extends Error {
  /** Where it is. */
  readonly path: string;

  /** The problem at `path`, such as "devices.vda.queues[0].size". */
  constructor(path: string, problem: string) {
    super(`${path} ${problem}`);
    this.name = "StateError";
    this.path = path;
  }
}

export interface NumberLimits {
  readonly minimum: number;
  readonly maximum: number;
}

const SHOWN_CHARACTERS = 40;
const HEX64 = /^0x[0-9a-f]{1,16}$/;
const BASE64 = /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/;
const PLAIN_NAME = /^[\w-]{1,40}$/;

function show(value: unknown): string {
  if (Array.isArray(value)) return "a list";
  if (typeof value === "object" && value !== null) return "an object";
  const text = typeof value === "string" ? JSON.stringify(value) : String(value);
  return text.length > SHOWN_CHARACTERS ? `${text.slice(0, SHOWN_CHARACTERS)}...` : text;
}

/** One value of saved state, and where it stands. */
export class StateReader {
  readonly #value: unknown;
  /** Name or index in `#parent`; without one, the whole path. */
  readonly #step: string | number;
  readonly #parent: StateReader | undefined;

  constructor(value: unknown, path: string | number, parent?: StateReader) {
    this.#value = value;
    this.#step = path;
    this.#parent = parent;
  }

  /** Put together when it is asked for: that is seldom, and there are many values. */
  get path(): string {
    const step = this.#step;
    if (this.#parent === undefined) return String(step);
    // A name may be anything where the reader does not choose it.
    const isPlain = typeof step === "string" && PLAIN_NAME.test(step);
    return `${this.#parent.path}${isPlain ? `.${step}` : `[${show(step)}]`}`;
  }

  /** The error for this value. */
  wrong(expected: string): StateError {
    return new StateError(this.path, `${show(this.#value)} is not ${expected}`);
  }

  /** As it is, for a check of another kind. */
  get value(): unknown {
    return this.#value;
  }

  get isNull(): boolean {
    return this.#value === null;
  }

  // -- Of an object --

  /** Exactly these fields, each there; others are refused. */
  only(names: readonly string[]): void {
    const object = this.#object();
    for (const name of Object.keys(object)) {
      if (!names.includes(name)) throw new StateError(this.path, `has an unknown field ${show(name)}`);
    }
    for (const name of names) this.#field(object, name);
  }

  /** Names of all fields, no more than `maximum`. */
  names(maximum: number): string[] {
    const names = Object.keys(this.#object());
    if (names.length > maximum) {
      throw new StateError(this.path, `has ${String(names.length)} fields, more than ${String(maximum)}`);
    }
    return names;
  }

  /** The field's value; a field that is missing is refused. */
  at(name: string): StateReader {
    return new StateReader(this.#field(this.#object(), name), name, this);
  }

  integer(name: string, limits: NumberLimits): number {
    return this.at(name).asInteger(limits);
  }

  /** Any finite number. */
  number(name: string, limits: NumberLimits): number {
    return this.at(name).asNumber(limits);
  }

  boolean(name: string): boolean {
    return this.at(name).asBoolean();
  }

  text(name: string, maximumLength: number): string {
    return this.at(name).asText(maximumLength);
  }

  oneOf<Choice extends string>(name: string, choices: readonly Choice[]): Choice {
    return this.at(name).asOneOf(choices);
  }

  hex64(name: string, maximum?: bigint): bigint {
    return this.at(name).asHex64(maximum);
  }

  bytes(name: string, length: number | NumberLimits): Uint8Array<ArrayBuffer> {
    return this.at(name).asBytes(length);
  }

  list(name: string, length: number | NumberLimits): StateReader[] {
    return this.at(name).asList(length);
  }

  // -- Of this value itself --

  asInteger({ minimum, maximum }: NumberLimits): number {
    const value = this.#value;
    const isWhole = Number.isSafeInteger(value) && !Object.is(value, -0);
    if (typeof value === "number" && isWhole && value >= minimum && value <= maximum) return value;
    throw this.wrong(`a whole number from ${String(minimum)} to ${String(maximum)}`);
  }

  asNumber({ minimum, maximum }: NumberLimits): number {
    const value = this.#value;
    if (typeof value === "number" && value >= minimum && value <= maximum) return value;
    throw this.wrong(`a number from ${String(minimum)} to ${String(maximum)}`);
  }

  asBoolean(): boolean {
    const value = this.#value;
    if (typeof value === "boolean") return value;
    throw this.wrong("true or false");
  }

  asText(maximumLength: number): string {
    const value = this.#value;
    if (typeof value === "string" && value.length <= maximumLength) return value;
    throw this.wrong(`a text of at most ${String(maximumLength)} characters`);
  }

  asOneOf<Choice extends string>(choices: readonly Choice[]): Choice {
    const choice = choices.find((candidate) => candidate === this.#value);
    if (choice !== undefined) return choice;
    throw this.wrong(`one of ${choices.join(", ")}`);
  }

  asHex64(maximum = 0xffff_ffff_ffff_ffffn): bigint {
    const value = this.#value;
    if (typeof value === "string" && HEX64.test(value) && BigInt(value) <= maximum) return BigInt(value);
    throw this.wrong(`a number from 0x0 to 0x${maximum.toString(16)}, in text`);
  }

  /** base64 of so many bytes. */
  asBytes(length: number | NumberLimits): Uint8Array<ArrayBuffer> {
    const { minimum, maximum } = typeof length === "number" ? { minimum: length, maximum: length } : length;
    const value = this.#value;
    // Its length first: text of any length costs nothing to refuse.
    if (typeof value === "string" && value.length <= Math.ceil(maximum / 3) * 4 && BASE64.test(value)) {
      const bytes = Buffer.from(value, "base64");
      if (bytes.length >= minimum && bytes.length <= maximum) return Uint8Array.from(bytes);
    }
    throw this.wrong(`base64 of ${minimum === maximum ? "" : `${String(minimum)} to `}${String(maximum)} bytes`);
  }

  asList(length: number | NumberLimits): StateReader[] {
    const { minimum, maximum } = typeof length === "number" ? { minimum: length, maximum: length } : length;
    const value = this.#value;
    if (!Array.isArray(value)) throw this.wrong("a list");
    if (value.length < minimum || value.length > maximum) {
      const allowed = minimum === maximum ? String(maximum) : `${String(minimum)} to ${String(maximum)}`;
      throw new StateError(this.path, `has ${String(value.length)} entries; there may be ${allowed}`);
    }
    return value.map((entry: unknown, index) => new StateReader(entry, index, this));
  }

  #field(object: Readonly<Record<string, unknown>>, name: string): unknown {
    if (!Object.hasOwn(object, name)) throw new StateError(this.path, `lacks ${show(name)}`);
    return object[name];
  }

  #object(): Readonly<Record<string, unknown>> {
    const value = this.#value;
    if (typeof value !== "object" || value === null || Array.isArray(value)) throw this.wrong("an object");
    return value as Readonly<Record<string, unknown>>;
  }
}

export function hex64(value: bigint): string {
  return `0x${value.toString(16)}`;
}

export function base64(bytes: Uint8Array): string {
  return Buffer.from(bytes.buffer, bytes.byteOffset, bytes.length).toString("base64");
}
