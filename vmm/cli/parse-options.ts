// argv -> flags and values as Node's own parser reads them, and what it lets pass: two values for one option, and
// empty ones. Plain words are read here, because Node would compile its parser for them: 1 ms of every start.
import { parseArgs, type ParseArgsConfig } from "node:util";
import { UsageError } from "./usage-error.js";

type Options = NonNullable<ParseArgsConfig["options"]>;
type Strict<T extends Options> = { args: string[]; options: T; strict: true; allowPositionals: boolean };
type Parsed<T extends Options> = ReturnType<typeof parseArgs<Strict<T>>>;

/** An option as often as it stands there. */
interface Given {
  readonly name: string;
  /** Undefined for a flag. */
  readonly value: string | undefined;
}

interface Words {
  readonly values: Readonly<Record<string, unknown>>;
  readonly positionals: readonly string[];
  readonly given: readonly Given[];
}

/** May be empty, so that a script can always pass it. */
const MAY_BE_EMPTY = "cmdline";

/** `name`: of the command, in front of every problem. `hint`: ends the one with a word that is no option. */
export function parseOptions<T extends Options>(
  args: string[],
  options: T,
  name: string,
  { allowPositionals = false, hint = "" }: { readonly allowPositionals?: boolean; readonly hint?: string } = {},
): Parsed<T> {
  let parsed: Words;
  try {
    parsed = parsePlain(args, options) ?? parseAny(args, options, allowPositionals);
  } catch (error) {
    // Node's messages end in advice about "--" that does not fit here.
    const [first = ""] = (error as Error).message.split(/\. |\.?\n/);
    const isWord = (error as NodeJS.ErrnoException).code === "ERR_PARSE_ARGS_UNEXPECTED_POSITIONAL";
    throw new UsageError(`${name}: ${first.replace(/\.$/, "")}${isWord ? hint : ""}`);
  }
  const seen = new Set<string>();
  for (const { name: option, value } of parsed.given) {
    const { type, multiple } = options[option] ?? { type: "boolean" };
    // A flag is no more set for being set twice; of two values, one would be lost.
    if (type === "boolean" || multiple === true) continue;
    if (seen.has(option)) throw new UsageError(`${name}: --${option} is given twice`);
    seen.add(option);
    if (value === "" && option !== MAY_BE_EMPTY) {
      throw new UsageError(`${name}: --${option} is given an empty value`);
    }
  }
  return parsed as unknown as Parsed<T>;
}

/** By Node, with its refusals. */
function parseAny(args: string[], options: Options, allowPositionals: boolean): Words {
  const { values, positionals, tokens } = parseArgs({ args, options, strict: true, allowPositionals, tokens: true });
  return { values, positionals, given: tokens.filter((token) => token.kind === "option") };
}

/**
 * `--name value`, `--name=value`, `--flag`, and `-n value` and `-f` for those that have a letter. Undefined where
 * anything else stands: the result is always what Node's parser would give.
 */
export function parsePlain(args: readonly string[], options: Options): Words | undefined {
  const values: Record<string, string | boolean | string[]> = {};
  const given: Given[] = [];
  for (let index = 0; index < args.length; index++) {
    const word = args[index] ?? "";
    const isLong = word.startsWith("--");
    const equals = isLong ? word.indexOf("=") : -1;
    const name = isLong ? word.slice(2, equals < 0 ? undefined : equals) : nameOfLetter(word, options);
    if (name === undefined || !Object.hasOwn(options, name)) return undefined;
    const { type, multiple } = options[name] ?? { type: "boolean" };
    if (type === "boolean") {
      if (equals >= 0 || multiple === true) return undefined;
      values[name] = true;
      given.push({ name, value: undefined });
      continue;
    }
    const value = equals < 0 ? args[++index] : word.slice(equals + 1);
    // Node refuses a value that looks like an option, and says how to give it.
    if (value === undefined || (equals < 0 && value.startsWith("-"))) return undefined;
    if (multiple === true) values[name] = [...((values[name] as string[] | undefined) ?? []), value];
    else values[name] = value;
    given.push({ name, value });
  }
  return { values, positionals: [], given };
}

function nameOfLetter(word: string, options: Options): string | undefined {
  if (word.length !== 2 || !word.startsWith("-")) return undefined;
  return Object.keys(options).find((name) => options[name]?.short === word[1]);
}
