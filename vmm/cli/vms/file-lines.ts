// Variables and labels, as words and as lines of a file.
import { readFileSync } from "node:fs";
import { HostError } from "../../errors.js";
import { errnoText } from "../../host/errno-text.js";
import { UsageError } from "../usage-error.js";

/** NAME=VALUE, or NAME alone for this process's own; files first, words win. */
export function variables(files: readonly string[], words: readonly string[]): Record<string, string> {
  const env = new Map<string, string>();
  const add = (word: string, where: string): void => {
    const at = word.indexOf("=");
    const name = at < 0 ? word : word.slice(0, at);
    if (name === "") throw new UsageError(`${where} ${JSON.stringify(word)} is not NAME=VALUE or NAME`);
    const value = at < 0 ? process.env[name] : word.slice(at + 1);
    // As Docker has it: what is not set here is not set there.
    if (value === undefined) env.delete(name);
    else env.set(name, value);
  };
  for (const file of files)
    for (const { line, where } of linesOf("--env-file", file, "the name of a variable")) add(line, where);
  for (const word of words) add(word, "--env");
  return Object.fromEntries(env);
}

/** Those that say something; `where` names one in a message. Throws UsageError, and HostError for a file that cannot be read. */
export function linesOf(
  option: string,
  file: string,
  what: string,
): { readonly line: string; readonly where: string }[] {
  return textOf(option, file)
    .split(/\r?\n/)
    .flatMap((whole, index) => {
      const line = whole.trimStart();
      if (line === "" || line.startsWith("#")) return [];
      const where = `${option} ${file}: line ${String(index + 1)}`;
      if (/\s/.test(line.split("=", 1)[0] ?? "")) {
        throw new UsageError(`${where} ${JSON.stringify(line)}: ${what} has no blanks`);
      }
      return [{ line, where }];
    });
}

/** Of more, no program could get anything. */
const MAX_FILE = 1024 * 1024;

function textOf(option: string, file: string): string {
  let bytes: Buffer;
  try {
    bytes = readFileSync(file);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? "";
    throw new HostError(`${option} ${file}: cannot be read: ${errnoText(code)}`, { cause: error });
  }
  if (bytes.length > MAX_FILE) {
    throw new UsageError(`${option} ${file} has ${String(bytes.length)} bytes; the limit is ${String(MAX_FILE)}`);
  }
  try {
    // Without the mark that some editors write at its start.
    return new TextDecoder("utf8", { fatal: true }).decode(bytes);
  } catch (error) {
    throw new UsageError(`${option} ${file} is not UTF-8`, { cause: error });
  }
}
