// Values in messages: as a caller would write them, never longer than a line, without running any
// code of theirs, and without anything that a terminal would obey.

/** Longest piece of a text that a message repeats. */
const MAX_TEXT = 100;
/** Keys that a message names. */
const MAX_KEYS = 10;

export function show(value: unknown): string {
  switch (typeof value) {
    case "string":
      return value.length <= MAX_TEXT
        ? quoted(value)
        : `${quoted(value.slice(0, MAX_TEXT))}... (${String(value.length)} characters)`;
    case "number":
      return Object.is(value, -0) ? "-0" : String(value);
    case "bigint":
      // Writing out a long one takes long.
      return -(2n ** 64n) < value && value < 2n ** 64n ? `${String(value)}n` : "(a bigint)";
    case "object":
      return value === null ? "null" : isList(value) ? "(a list)" : "(an object)";
    case "function":
      return "(a function)";
    case "symbol":
      return "(a symbol)";
    default:
      return String(value);
  }
}

/** What JSON leaves as it is: DEL, control characters of one byte more, those that turn the direction of writing. */
function quoted(text: string): string {
  return JSON.stringify(text).replace(
    /[\x7f-\x9f\p{Cf}\p{Zl}\p{Zp}]/gu,
    (character) => `\\u${(character.codePointAt(0) ?? 0).toString(16).padStart(4, "0")}`,
  );
}

/** Somebody else's word without quotation marks, cut. */
export function printable(text: string): string {
  return withoutControls(text.length <= MAX_TEXT ? text : `${text.slice(0, MAX_TEXT)}...`);
}

/** What a terminal would obey is "?". */
export function withoutControls(text: string): string {
  return text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, "?");
}

export function showKeys(keys: readonly PropertyKey[]): string {
  const shown = keys.slice(0, MAX_KEYS).map((key) => (typeof key === "symbol" ? "(a symbol)" : show(String(key))));
  const more = keys.length - shown.length;
  return shown.join(", ") + (more > 0 ? ` and ${String(more)} more` : "");
}

/** A revoked proxy throws even here. */
function isList(value: object): boolean {
  try {
    return Array.isArray(value);
  } catch {
    return false;
  }
}
