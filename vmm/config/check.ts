// Reads what a caller has given against a schema. It comes from JavaScript, so its type
// is not certain. Each property is read once, into a plain object of our own; a property that throws
// while it is read is a problem like any other. A problem is a sentence without its full stop.
import type { FromSchema, IntegerSchema, ListSchema, RecordSchema, Schema, TextSchema } from "./schema.js";
import { show, showKeys } from "./show.js";

/** The valid fields of a record; those that are wrong are missing. */
export type Checked<S extends RecordSchema> = { readonly [Key in keyof FromSchema<S>]?: FromSchema<S>[Key] };

/** Where a value stands: `where` ends in ": " unless it is empty, `path` leads on from there. */
interface Place {
  readonly where: string;
  readonly path: string;
}

/** Undefined, and a problem, if it is no object at all. */
export function checkRecord<S extends RecordSchema>(
  schema: S,
  given: unknown,
  problems: string[],
): Checked<S> | undefined {
  const place = { where: "", path: schema.title ?? "" };
  return readRecord(schema, given, place, { where: "", path: "" }, problems) as Checked<S> | undefined;
}

/** The problem with a number, or undefined. */
export function integerProblem(
  name: string,
  value: unknown,
  schema: Omit<IntegerSchema, "type" | "title">,
): string | undefined {
  const { minimum, maximum } = schema;
  if (Number.isSafeInteger(value) && (value as number) >= minimum && (value as number) <= maximum) return undefined;
  return `${name} ${show(value)} is ${notWhole(schema)}`;
}

/** Completes "… is". */
export function notWhole({ minimum, maximum, "x-unit": unit }: Omit<IntegerSchema, "type" | "title">): string {
  return `not a whole number from ${String(minimum)} to ${String(maximum)}${unit === undefined ? "" : ` ${unit}`}`;
}

function read(schema: Schema, given: unknown, place: Place, problems: string[]): unknown {
  if ("enum" in schema) {
    if (schema.enum.includes(given as string)) return given;
    problems.push(wrong(place, given, `not one of ${schema.enum.join(", ")}`));
    return undefined;
  }
  switch (schema.type) {
    case "string":
      return readText(schema, given, place, problems);
    case "integer": {
      const problem = integerProblem(nameOf(place), given, schema);
      if (problem !== undefined) problems.push(problem);
      // Minus zero counts as zero.
      return problem === undefined ? (given as number) + 0 : undefined;
    }
    case "boolean":
      if (typeof given === "boolean") return given;
      problems.push(wrong(place, given, "not true or false"));
      return undefined;
    case "array":
      return readList(schema, given, place, problems);
    case "object":
      return readPart(schema, given, place, problems);
  }
}

function readText(schema: TextSchema, given: unknown, place: Place, problems: string[]): string | undefined {
  // Half a character is none in UTF-8: the host or the guest would get other bytes than the caller has written.
  if (typeof given === "string" && isWellFormed(given) && new RegExp(schema.pattern).test(given)) return given;
  problems.push(wrong(place, given, `not ${schema["x-expected"]}`));
  return undefined;
}

function readList(schema: ListSchema, given: unknown, place: Place, problems: string[]): unknown[] | undefined {
  const length = attempt(() => (Array.isArray(given) ? given.length : undefined), undefined);
  if (length === undefined) {
    problems.push(wrong(place, given, "not a list"));
    return undefined;
  }
  if (length > schema.maxItems) {
    problems.push(`${nameOf(place)} has ${String(length)} items; the limit is ${String(schema.maxItems)}`);
    return undefined;
  }
  const title = schema.items.title ?? "item";
  return Array.from({ length }, (_, index) => {
    const item = { where: place.where, path: `${title} ${String(index + 1)}` };
    // A hole is undefined, which is no item either.
    const taken = take(given as object, index, item, problems);
    return taken && readPart(schema.items, taken.value, item, problems);
  });
}

/** A record that has a title begins its messages anew: "Disk 1: path", not "disks.path". */
function readPart(schema: RecordSchema, given: unknown, place: Place, problems: string[]) {
  const hasTitle = schema.title !== undefined;
  const inside = hasTitle ? { where: `${nameOf(place)}: `, path: "" } : { where: place.where, path: `${place.path}.` };
  return readRecord(schema, given, place, inside, problems);
}

/** `place` is the record's own, `inside` that of what it holds. */
function readRecord(schema: RecordSchema, given: unknown, place: Place, inside: Place, problems: string[]) {
  const known = Object.keys(schema.properties);
  const keys = attempt(() => (isPlainObject(given) ? Reflect.ownKeys(given) : undefined), undefined);
  if (keys === undefined) {
    problems.push(wrong(place, given, `not a plain object with ${known.join(", ")}`));
    return undefined;
  }
  // An unknown key would silently do nothing.
  const unknown = keys.filter((key) => typeof key === "symbol" || !known.includes(key));
  if (unknown.length > 0) {
    const what = `unknown option${unknown.length > 1 ? "s" : ""} ${showKeys(unknown)}; known are ${known.join(", ")}`;
    problems.push(sentence(inside.where, inside.path === "" ? what : `${inside.path.slice(0, -1)}: ${what}`));
  }
  // Without a prototype: properties that some code put into Object.prototype are not the caller's.
  const fields = Object.create(null) as Record<string, unknown>;
  for (const [key, field] of Object.entries(schema.properties)) {
    const at = { where: inside.where, path: inside.path + (field.title ?? key) };
    const taken = keys.includes(key) ? take(given as object, key, at, problems) : { value: undefined };
    if (taken === undefined) continue;
    if (taken.value === undefined) {
      if (schema.required.includes(key)) problems.push(sentence(inside.where, `no ${inside.path}${key} is given`));
      continue;
    }
    const value = read(field, taken.value, at, problems);
    if (value !== undefined) fields[key] = value;
  }
  return fields;
}

/** A getter may do anything, but only once. Undefined, and a problem, if it throws. */
function take(from: object, key: PropertyKey, place: Place, problems: string[]): { value: unknown } | undefined {
  const taken = attempt(() => ({ value: (from as Record<PropertyKey, unknown>)[key] }), undefined);
  if (taken === undefined) problems.push(`${nameOf(place)} cannot be read: its getter throws`);
  return taken;
}

/** What a proxy or a getter hides. */
function attempt<Result>(action: () => Result, otherwise: Result): Result {
  try {
    return action();
  } catch {
    return otherwise;
  }
}

/** Without a class, whose properties might be inherited and would be overlooked; of this realm or another. */
function isPlainObject(given: unknown): given is object {
  if (typeof given !== "object" || given === null || Array.isArray(given)) return false;
  const prototype = Object.getPrototypeOf(given) as object | null;
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

function wrong(place: Place, given: unknown, how: string): string {
  return `${nameOf(place)} ${show(given)} is ${how}`;
}

/** The method of Node 20, which TypeScript counts to a later library. */
function isWellFormed(text: string): boolean {
  return (text as unknown as { isWellFormed(): boolean }).isWellFormed();
}

function nameOf({ where, path }: Place): string {
  return where + path;
}

/** `where` is empty, or ends in ": ". */
function sentence(where: string, what: string): string {
  return where === "" ? what.charAt(0).toUpperCase() + what.slice(1) : where + what;
}
