// Checks that every part of a configuration needs; a problem is a sentence without its full stop.

/** Refuses keys that nobody reads: a misspelt one would do nothing, and nobody would know. */
export function checkKeys(what: string, given: object, known: readonly string[], problems: string[]): void {
  for (const key of Object.keys(given)) {
    if (!known.includes(key)) {
      problems.push(`${what}: unknown option ${JSON.stringify(key)}; known are ${known.join(", ")}`);
    }
  }
}

/** The problem with a number, or undefined. */
export function integerProblem(name: string, value: number, min: number, max: number, unit = ""): string | undefined {
  if (Number.isInteger(value) && value >= min && value <= max) return undefined;
  return `${name} ${String(value)} is not a whole number from ${String(min)} to ${String(max)}${unit}`;
}
