// Options end where the first word stands that is none: what follows is the command's, whatever it looks like.
import type { ParseArgsConfig } from "node:util";

type Options = NonNullable<ParseArgsConfig["options"]>;

/** The options with their values, and the rest; a "--" between the two goes. */
export function splitAtCommand(argv: readonly string[], options: Options): [args: string[], rest: string[]] {
  let at = 0;
  while (at < argv.length) {
    const word = argv[at] ?? "";
    if (word === "--") return [argv.slice(0, at), argv.slice(at + 1)];
    if (!word.startsWith("-") || word === "-") break;
    at += takesNext(word, options) ? 2 : 1;
  }
  return [argv.slice(0, at), argv.slice(at)];
}

/** Whether the option's value is the next word. */
function takesNext(word: string, options: Options): boolean {
  if (word.startsWith("--")) return !word.includes("=") && options[word.slice(2)]?.type === "string";
  const letters = Array.from(word.slice(1));
  const valued = letters.findIndex(
    (letter) => Object.values(options).find(({ short }) => short === letter)?.type === "string",
  );
  return valued >= 0 && valued === letters.length - 1;
}
