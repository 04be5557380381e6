// The command of a guest that begins with a template, as a program asks for it.
import type { RestoreBlock } from "../../devices/pseudo/restore-block.js";
import { show } from "../config/show.js";
import { ConfigError } from "../errors.js";
import { isHostName } from "./host-name.js";
import { freshIdentity } from "./identity.js";

export interface GuestCommand {
  /** The program, found along the guest's PATH, and its arguments. */
  readonly command: readonly string[];
  /** Besides PATH, HOME, TERM and HOSTNAME, or in their place. */
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** Where it starts; default: /root. */
  readonly folder?: string | undefined;
  /** The guest's host name; default: that of the template. */
  readonly hostName?: string | undefined;
}

const KNOWN = ["command", "env", "folder", "hostName"];

/** Throws ConfigError with one line a problem. */
export function commandBlock(given: GuestCommand): RestoreBlock {
  const problems = commandProblems(given);
  if (problems.length > 0) throw new ConfigError(problems);
  const { command, env = {}, folder, hostName } = given;
  return {
    ...freshIdentity(),
    command: command.map((word) => Buffer.from(word)),
    variables: Object.entries(env).map(([name, value]) => Buffer.from(`${name}=${value}`)),
    folder: folder === undefined ? undefined : Buffer.from(folder),
    hostName,
  };
}

function isText(value: unknown): value is string {
  return typeof value === "string" && !value.includes("\0");
}

/** Its callers may be JavaScript: nothing is taken for what its type says. */
function commandProblems(given: unknown): string[] {
  if (typeof given !== "object" || given === null) return [`Command ${show(given)} is not an object with a command`];
  const { command, env = {}, folder, hostName } = given as Readonly<Record<string, unknown>>;
  const problems = Object.keys(given)
    .filter((key) => !KNOWN.includes(key))
    .map((key) => `Command: unknown option ${show(key)}; known are ${KNOWN.join(", ")}`);
  const words: readonly unknown[] = Array.isArray(command) ? command : [];
  if (words.length === 0 || words[0] === "")
    problems.push(`Command: ${show(command)} is not a list that names a program`);
  for (const word of words) if (!isText(word)) problems.push(`Command: ${show(word)} is not a text without NUL`);
  if (typeof env !== "object" || env === null || Array.isArray(env)) {
    problems.push(`Command: env ${show(env)} is not an object`);
  } else {
    for (const [name, value] of Object.entries(env)) {
      if (name === "" || name.includes("=") || !isText(name)) {
        problems.push(`Command: env has no variable ${show(name)}: a name has no "=" and no NUL`);
      } else if (!isText(value)) problems.push(`Command: env.${name} ${show(value)} is not a text without NUL`);
    }
  }
  if (folder !== undefined && (!isText(folder) || !folder.startsWith("/"))) {
    problems.push(`Command: folder ${show(folder)} is not an absolute path`);
  }
  if (hostName !== undefined && !isHostName(hostName)) {
    problems.push(`Command: hostName ${show(hostName)} is not a name of 1 to 64 letters, digits, dots and hyphens`);
  }
  return problems;
}
