// argv -> flags and values by Node's own parser, and what it lets pass: two values for one option, and empty ones.
import { parseArgs, type ParseArgsConfig } from "node:util";
import { UsageError } from "./usage-error.js";

type Options = NonNullable<ParseArgsConfig["options"]>;
type Strict<T extends Options> = { args: string[]; options: T; strict: true; allowPositionals: boolean; tokens: true };

/** May be empty, so that a script can always pass it. */
const MAY_BE_EMPTY = "cmdline";

/** `name`: of the command, in front of every problem. `hint`: ends the one with a word that is no option. */
export function parseOptions<T extends Options>(
  args: string[],
  options: T,
  name: string,
  { allowPositionals = false, hint = "" }: { readonly allowPositionals?: boolean; readonly hint?: string } = {},
): ReturnType<typeof parseArgs<Strict<T>>> {
  let parsed: ReturnType<typeof parseArgs<Strict<T>>>;
  try {
    parsed = parseArgs<Strict<T>>({ args, options, strict: true, allowPositionals, tokens: true });
  } catch (error) {
    // Node's messages end in advice about "--" that does not fit here.
    const [first = ""] = (error as Error).message.split(/\. |\.?\n/);
    const isWord = (error as NodeJS.ErrnoException).code === "ERR_PARSE_ARGS_UNEXPECTED_POSITIONAL";
    throw new UsageError(`${name}: ${first.replace(/\.$/, "")}${isWord ? hint : ""}`);
  }
  const seen = new Set<string>();
  for (const token of parsed.tokens) {
    if (token.kind !== "option") continue;
    const { type, multiple } = options[token.name] ?? { type: "boolean" };
    // A flag is no more set for being set twice; of two values, one would be lost.
    if (type === "boolean" || multiple === true) continue;
    if (seen.has(token.name)) throw new UsageError(`${name}: --${token.name} is given twice`);
    seen.add(token.name);
    if (token.value === "" && token.name !== MAY_BE_EMPTY) {
      throw new UsageError(`${name}: --${token.name} is given an empty value`);
    }
  }
  return parsed;
}
