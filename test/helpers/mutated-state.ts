// Saved state as somebody would have it who means harm: each field of it, wherever it lies, in turn missing, of another
// type, off its limits or only changed; and fields that nobody knows.
import assert from "node:assert/strict";
import { StateError } from "../../devices/state.js";

export interface Mutation {
  /** Where the error must be. */
  readonly path: string;
  /** In words, for a failure's message. */
  readonly what: string;
  /** The whole state, changed. */
  readonly state: unknown;
  /** False for a value of the right type, which may be as good as the old one. */
  readonly mustFail: boolean;
}

/** Every mutation of `state`, whose own path is `path`. */
export function* mutations(state: unknown, path: string): Generator<Mutation> {
  yield* walk(state, path, (changed) => changed);
}

/** Has `restore` take each mutation: nothing but StateError may come out, with the path of what is wrong. */
export function assertMutationsRefused(state: unknown, path: string, restore: (state: unknown) => void): void {
  let count = 0;
  for (const mutation of mutations(state, path)) {
    count++;
    const shown = `${mutation.path}: ${mutation.what}`;
    let error: unknown;
    try {
      restore(mutation.state);
    } catch (thrown) {
      error = thrown;
    }
    if (error === undefined) {
      assert.ok(!mutation.mustFail, `accepted: ${shown}`);
      continue;
    }
    if (!(error instanceof StateError)) throw new Error(shown, { cause: error });
    if (mutation.mustFail) assert.equal(error.path, mutation.path, `${shown}: ${error.message}`);
    assert.ok(error.message.startsWith(error.path), error.message);
    assert.ok(error.message.length < 500, error.message);
  }
  assert.ok(count > 0, "a state without fields");
}

type Rebuild = (value: unknown) => unknown;

function* walk(value: unknown, path: string, rebuild: Rebuild): Generator<Mutation> {
  const wrong = (what: string, changed: unknown): Mutation => ({ path, what, state: rebuild(changed), mustFail: true });
  const other = (what: string, changed: unknown): Mutation => ({
    path,
    what,
    state: rebuild(changed),
    mustFail: false,
  });
  if (Array.isArray(value)) {
    yield wrong("an object instead of a list", {});
    yield wrong("a text instead of a list", "list");
    yield wrong(
      "a list of 100,000",
      Array.from({ length: 100_000 }, () => (value as unknown[])[0] ?? 0),
    );
    yield other("the last element missing", value.slice(0, -1));
    for (const [index, element] of value.entries()) {
      const replaced: Rebuild = (changed) => rebuild(value.map((each: unknown, i) => (i === index ? changed : each)));
      yield* walk(element, `${path}[${String(index)}]`, replaced);
    }
    return;
  }
  switch (typeof value) {
    case "object":
      if (value === null) {
        yield wrong("a text instead of nothing", "null");
        yield wrong("a list instead of nothing", []);
        yield wrong("an empty object instead of nothing", {});
        return;
      }
      yield wrong("a list instead of an object", []);
      yield wrong("a number instead of an object", 1);
      yield wrong("a field that nobody knows", { ...value, intruder: 1 });
      for (const [name, field] of Object.entries(value)) {
        yield wrong(`${name} missing`, Object.fromEntries(Object.entries(value).filter(([other]) => other !== name)));
        yield* walk(field, `${path}.${name}`, (changed) => rebuild({ ...value, [name]: changed }));
      }
      return;
    case "number":
      yield wrong("a text instead of a number", String(value));
      yield wrong("a list instead of a number", [value]);
      yield wrong("true instead of a number", true);
      yield wrong("a fraction", value + 0.5);
      yield wrong("beyond all limits", 1e300);
      yield wrong("below all limits", -1e300);
      for (const near of [value + 1, value - 1, 0, 1, -1, 0xffff, 2 ** 31, 2 ** 32 - 1, 2 ** 53 - 1]) {
        yield other(String(near), near);
      }
      yield other("null", null);
      return;
    case "boolean":
      yield wrong("a number instead of true or false", Number(value));
      yield wrong("a text instead of true or false", String(value));
      yield other("the opposite", !value);
      return;
    case "string":
      yield wrong("a number instead of a text", 5);
      yield wrong("an object instead of a text", {});
      yield wrong("a very long text", "A".repeat(1_000_000));
      if (/^0x[0-9a-f]+$/.test(value)) {
        yield wrong("65 bits", `0x1${"0".repeat(16)}`);
        yield wrong("no digits", "0x");
        yield wrong("a negative number", "-0x1");
        for (const near of ["0x0", "0x1", "0xffffffff", "0x100000000", "0xffffffffffffffff", `${value}0`]) {
          yield other(near, near);
        }
      }
      for (const near of ["", "!", `${value}A`, value.slice(1), value.split("").reverse().join("")]) {
        yield other(JSON.stringify(near), near);
      }
      return;
    default:
      throw new Error(`${path} is no JSON`);
  }
}
