// Saved state with one or a few fields changed at random: values that a field might have, values that none has.
import type { Random } from "./random.js";

type Path = readonly (string | number)[];

/** How many places there are in what never changes: saved states, of which only a few are made anew. */
const counted = new WeakMap<object, number>();

/** `state`, which is JSON, with `count` changes. What is not changed is the same object in both, so neither is to be written to. */
export function mutateState(random: Random, state: unknown, count: number): unknown {
  let changed = state;
  for (let left = count; left > 0; left--) {
    const path = pathTo(changed, random.below(placesIn(changed)));
    changed = replace(changed, path, (value) => mutant(random, value));
  }
  return changed;
}

/** Keys under `value` that may be drawn. */
function keysOf(value: unknown): readonly (string | number)[] {
  if (typeof value !== "object" || value === null) return [];
  return Array.isArray(value) ? value.slice(0, 50).map((_, index) => index) : Object.keys(value);
}

/** How many places there are: the value itself, and all below. */
function placesIn(value: unknown): number {
  if (typeof value !== "object" || value === null) return 1;
  const known = counted.get(value);
  if (known !== undefined) return known;
  let count = 1;
  for (const key of keysOf(value)) count += placesIn((value as Record<string | number, unknown>)[key]);
  counted.set(value, count);
  return count;
}

/** The path to the place with that number, counted from the top and from the left. */
function pathTo(value: unknown, place: number): Path {
  let left = place - 1;
  for (const key of left < 0 ? [] : keysOf(value)) {
    const below = (value as Record<string | number, unknown>)[key];
    const count = placesIn(below);
    if (left < count) return [key, ...pathTo(below, left)];
    left -= count;
  }
  return [];
}

function replace(value: unknown, [key, ...rest]: Path, change: (value: unknown) => unknown): unknown {
  if (key === undefined) return change(value);
  if (typeof key === "number" && Array.isArray(value)) {
    return value.map((each: unknown, index) => (index === key ? replace(each, rest, change) : each));
  }
  const object = value as Record<string, unknown>;
  return { ...object, [key]: replace(object[key], rest, change) };
}

function mutant(random: Random, value: unknown): unknown {
  if (random.oneIn(8)) return random.pick<unknown>([null, true, 0, -1, "", "0x0", [], {}, 0.5, "A".repeat(70_000)]);
  switch (typeof value) {
    case "number":
      return random.pick([value + 1, value - 1, random.value(), random.below(256), 2 ** random.below(60), -value]);
    case "boolean":
      return !value;
    case "string":
      return random.pick([
        `0x${(random.u32() * 2 ** random.below(40)).toString(16)}`,
        `0x${random.value().toString(16)}`,
        Buffer.from(Array.from({ length: random.below(40) }, () => random.below(256))).toString("base64"),
        value.slice(random.below(value.length + 1)),
      ]);
    default:
      if (Array.isArray(value)) {
        const elements: readonly unknown[] = value;
        return random.oneIn(2) ? elements.slice(random.below(elements.length + 1)) : [...elements, ...elements];
      }
      if (typeof value === "object" && value !== null) {
        const fields = Object.entries(value);
        return Object.fromEntries(fields.slice(random.below(fields.length + 1)));
      }
      return random.value();
  }
}
