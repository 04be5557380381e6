// Values in messages: as a caller would write them, never longer than a line, and without running any
// code of theirs.

/** Longest piece of a text that a message repeats. */
const MAX_TEXT = 100;
/** Keys that a message names. */
const MAX_KEYS = 10;

export function show(value: unknown): string {
  switch (typeof value) {
    case "string":
      return value.length <= MAX_TEXT
        ? JSON.stringify(value)
        : `${JSON.stringify(value.slice(0, MAX_TEXT))}... (${String(value.length)} characters)`;
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
