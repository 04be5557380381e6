// runc's command line: global options, a command, its options, its words. Options come before words, with one or two dashes, and
// a value behind "=" or as the next word.
import { resolve } from "node:path";
import { ConfigError } from "../errors.js";
import type { ContainerJail } from "./jail-option.js";
import { DEFAULT_ROOT } from "./state.js";

export interface GlobalOptions {
  readonly root: string;
  readonly log: string | undefined;
  readonly logFormat: "text" | "json";
  readonly isDebug: boolean;
  readonly isSystemd: boolean;
  /** Undefined: as a container has it. */
  readonly jail: ContainerJail | undefined;
}

/** Names of options, their short names behind "|": those with a value, those without. */
export interface OptionNames {
  readonly values?: readonly string[];
  readonly flags?: readonly string[];
}

export class Options {
  readonly #values = new Map<string, string[]>();

  add(name: string, value: string): void {
    this.#values.set(name, [...(this.#values.get(name) ?? []), value]);
  }

  /** The last one given. */
  value(name: string): string | undefined {
    return this.#values.get(name)?.at(-1);
  }

  all(name: string): readonly string[] {
    return this.#values.get(name) ?? [];
  }

  has(name: string): boolean {
    const value = this.value(name);
    return value !== undefined && value !== "false";
  }
}

export interface ParsedOptions {
  readonly options: Options;
  /** From the first that is no option on. */
  readonly words: readonly string[];
}

/** `allowsMixed`: options may come behind words, too. Throws ConfigError. */
export function parseOptions(
  argv: readonly string[],
  { values = [], flags = [] }: OptionNames,
  { allowsMixed = true } = {},
): ParsedOptions {
  const names = new Map<string, { readonly name: string; readonly takesValue: boolean }>();
  for (const [list, takesValue] of [
    [values, true],
    [flags, false],
  ] as const) {
    for (const entry of list) {
      const [name = "", ...aliases] = entry.split("|");
      for (const alias of [name, ...aliases]) names.set(alias, { name, takesValue });
    }
  }
  const options = new Options();
  const words: string[] = [];
  for (let at = 0; at < argv.length; at++) {
    const word = argv[at] ?? "";
    if (word === "--") return { options, words: [...words, ...argv.slice(at + 1)] };
    if (!word.startsWith("-") || word === "-") {
      if (!allowsMixed) return { options, words: argv.slice(at) };
      words.push(word);
      continue;
    }
    const [given = "", value] = word.replace(/^--?/, "").split(/=(.*)/s, 2);
    const known = names.get(given);
    if (known === undefined) throw new ConfigError([`flag provided but not defined: -${given}`]);
    if (!known.takesValue) options.add(known.name, value ?? "true");
    else if (value !== undefined) options.add(known.name, value);
    else if (at + 1 < argv.length) options.add(known.name, argv[++at] ?? "");
    else throw new ConfigError([`flag needs an argument: -${given}`]);
  }
  return { options, words };
}

const GLOBAL: OptionNames = {
  values: ["root", "log", "log-format", "criu", "rootless", "jail"],
  flags: ["debug", "systemd-cgroup", "help|h", "version|v"],
};

export interface CommandLine {
  readonly global: GlobalOptions;
  /** "help" and "version" stand for the options, too; empty: none is given. */
  readonly command: string;
  readonly argv: readonly string[];
}

/** Throws ConfigError. */
export function parseCommandLine(argv: readonly string[]): CommandLine {
  const { options, words } = parseOptions(argv, GLOBAL, { allowsMixed: false });
  const [command = "", ...rest] = words;
  const format = options.value("log-format") ?? "text";
  if (format !== "text" && format !== "json") throw new ConfigError([`invalid log-format: ${format}`]);
  const jail = options.value("jail");
  if (jail !== undefined && jail !== "on" && jail !== "off") throw new ConfigError([`invalid jail: ${jail}`]);
  const global: GlobalOptions = {
    // A monitor stands in another folder.
    root: resolve(options.value("root") ?? DEFAULT_ROOT),
    log: options.value("log"),
    logFormat: format,
    isDebug: options.has("debug"),
    isSystemd: options.has("systemd-cgroup"),
    jail,
  };
  if (options.has("version")) return { global, command: "version", argv: [] };
  if (options.has("help")) return { global, command: "help", argv: [] };
  return { global, command, argv: rest };
}

/** The one word that a command takes. Throws ConfigError. */
export function onlyWord(words: readonly string[], command: string): string {
  const [id] = words;
  if (id === undefined || words.length > 1) {
    throw new ConfigError([`"${command}" requires exactly 1 argument(s), but ${String(words.length)} are given`]);
  }
  return id;
}
