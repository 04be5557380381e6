// A command as the guest's agent is asked for it: the options, their checks, the payload of EXEC.
// docs/agent-protocol.md, "Commands".
import { ConfigError } from "../errors.js";
import { encodeContainer, type ContainerRequest } from "./container-request.js";
import { MAX_PAYLOAD } from "./frames.js";
import { bytesOf, shown, withNul, type GuestBytes } from "./guest-bytes.js";

/** As setrlimit(2) numbers them. */
const LIMITS = [
  "cpu",
  "fsize",
  "data",
  "stack",
  "core",
  "rss",
  "nproc",
  "nofile",
  "memlock",
  "as",
  "locks",
  "sigpending",
  "msgqueue",
  "nice",
  "rtprio",
  "rttime",
] as const;
export type LimitName = (typeof LIMITS)[number];
export type LimitValue = number | "unlimited";

/** What a command runs with. */
export interface CommandOptions {
  /** Variables beside those that the agent adds where they are missing: PATH, HOME, HOSTNAME. */
  readonly env?: Readonly<Record<string, string | undefined>> | readonly GuestBytes[];
  /** Only the variables that are given. */
  readonly cleanEnv?: boolean;
  /** Working directory; otherwise the user's home, or "/". */
  readonly cwd?: GuestBytes;
  /** The working directory is made if it is not there. */
  readonly makeCwd?: boolean;
  /** NAME, UID, NAME:GROUP or UID:GID; root otherwise. */
  readonly user?: string;
  /** Supplementary groups, by number. */
  readonly groups?: readonly number[];
  /** Resource limits of setrlimit(2): one value for both, or soft and hard. */
  readonly limits?: Readonly<
    Partial<Record<LimitName, LimitValue | { readonly soft: LimitValue; readonly hard: LimitValue }>>
  >;
  /** A terminal of its own is its standard input, output and error. */
  readonly terminal?: boolean | { readonly rows: number; readonly columns: number };
  /** Standard error goes where standard output goes, in the order in which it was written. */
  readonly mergeOutput?: boolean;
  /** Standard input is /dev/null. */
  readonly noInput?: boolean;
  /** Is made and loaded, and stops before its first instruction: the guest is then ready for a snapshot. */
  readonly hold?: boolean;
  /** Held, it does not go on by itself, but when it is told to. */
  readonly wait?: boolean;
  /** It is the first, or a further, process of a container. */
  readonly container?: ContainerRequest;
}

const TERMINAL = 1;
const NO_INPUT = 2;
const MERGED = 4;
const CLEAN = 8;
const HOLD = 16;
const MAKE_FOLDER = 32;
const CONTAINER = 64;
const WAIT = 128;
const HEAD_BYTES = 24;
const LIMIT_BYTES = 24;
const UNLIMITED = 2n ** 64n - 1n;
const MAX_U16 = 0xffff;
const MAX_ID = 0xffff_fffe;
const USUAL_TERMINAL = { rows: 24, columns: 80 };

/** How many outputs the command has: with a terminal, and merged, it has one. */
export function outputsOf({ terminal, mergeOutput }: CommandOptions): 1 | 2 {
  return terminalOf(terminal) !== undefined || mergeOutput === true ? 1 : 2;
}

function terminalOf(terminal: CommandOptions["terminal"]): { rows: number; columns: number } | undefined {
  return terminal === true ? USUAL_TERMINAL : terminal === false ? undefined : terminal;
}

/** Payload of EXEC. Throws ConfigError with all that is wrong. */
export function encodeExec(command: readonly GuestBytes[], options: CommandOptions = {}): Buffer {
  const problems: string[] = [];
  const terminal = terminalOf(options.terminal);
  const { groups = [] } = options;
  const variables = variablesOf(options.env, problems);
  const limits = checkLimits(options.limits, problems);
  if (command.length === 0) problems.push("The command is empty");
  if (terminal !== undefined) checkTerminal(terminal.rows, terminal.columns, problems);
  for (const group of groups) {
    if (!Number.isInteger(group) || group < 0 || group > MAX_ID) {
      problems.push(`groups: ${String(group)} is not a number from 0 to ${String(MAX_ID)}`);
    }
  }
  const { container } = options;
  const steps = container?.steps ?? [];
  const strings = [options.cwd ?? "", options.user ?? "", ...steps, ...command, ...variables];
  for (const text of strings)
    if (bytesOf(text).includes(0)) problems.push(`${shown(text)}: a word of a command has no NUL`);
  if (problems.length > 0) throw new ConfigError(problems);

  const head = Buffer.alloc(HEAD_BYTES + limits.length * LIMIT_BYTES + groups.length * 4);
  head.writeUInt32LE(flagsOf(options, terminal !== undefined), 0);
  head.writeUInt16LE(terminal?.rows ?? 0, 4);
  head.writeUInt16LE(terminal?.columns ?? 0, 6);
  head.writeUInt32LE(command.length, 8);
  head.writeUInt32LE(variables.length, 12);
  head.writeUInt32LE(groups.length, 16);
  head.writeUInt32LE(limits.length, 20);
  let at = HEAD_BYTES;
  for (const { resource, soft, hard } of limits) {
    head.writeUInt32LE(resource, at);
    head.writeBigUInt64LE(soft, at + 8);
    head.writeBigUInt64LE(hard, at + 16);
    at += LIMIT_BYTES;
  }
  for (const group of groups) at = head.writeUInt32LE(group, at);
  const more = container === undefined ? [] : [encodeContainer(container)];
  const payload = Buffer.concat([head, ...more, ...strings.map(withNul)]);
  if (payload.length > MAX_PAYLOAD) {
    throw new ConfigError([
      `The command has ${String(payload.length)} bytes with its environment, the limit is ${String(MAX_PAYLOAD)}: hand more over by a file, or by standard input`,
    ]);
  }
  return payload;
}

/** Payload of RESIZE. Throws ConfigError. */
export function encodeSize(rows: number, columns: number): Buffer {
  const problems: string[] = [];
  checkTerminal(rows, columns, problems);
  if (problems.length > 0) throw new ConfigError(problems);
  const payload = Buffer.alloc(4);
  payload.writeUInt16LE(rows, 0);
  payload.writeUInt16LE(columns, 2);
  return payload;
}

function checkTerminal(rows: number, columns: number, problems: string[]): void {
  for (const [name, value] of Object.entries({ rows, columns })) {
    if (!Number.isInteger(value) || value < 0 || value > MAX_U16) {
      problems.push(`terminal: ${name} ${String(value)} is not a number from 0 to ${String(MAX_U16)}`);
    }
  }
}

function flagsOf(options: CommandOptions, hasTerminal: boolean): number {
  return (
    (hasTerminal ? TERMINAL : 0) |
    (options.noInput === true ? NO_INPUT : 0) |
    (options.mergeOutput === true ? MERGED : 0) |
    (options.cleanEnv === true ? CLEAN : 0) |
    (options.hold === true ? HOLD : 0) |
    (options.wait === true ? WAIT : 0) |
    (options.makeCwd === true ? MAKE_FOLDER : 0) |
    (options.container === undefined ? 0 : CONTAINER)
  );
}

function isList(env: NonNullable<CommandOptions["env"]>): env is readonly GuestBytes[] {
  return Array.isArray(env);
}

function variablesOf(env: CommandOptions["env"], problems: string[]): readonly GuestBytes[] {
  if (env === undefined) return [];
  if (isList(env)) {
    for (const variable of env) {
      if (bytesOf(variable).indexOf("=") < 1) problems.push(`env: ${shown(variable)} is not NAME=VALUE`);
    }
    return env;
  }
  return Object.entries(env).flatMap(([name, value]) => {
    if (name === "" || name.includes("=")) problems.push(`env: ${shown(name)} is not a name`);
    return value === undefined ? [] : [`${name}=${value}`];
  });
}

export interface Limit {
  readonly resource: number;
  readonly soft: bigint;
  readonly hard: bigint;
}

/** As EXEC has them; what is wrong goes to `problems`. */
export function checkLimits(limits: CommandOptions["limits"] = {}, problems: string[]): readonly Limit[] {
  const found: Limit[] = [];
  for (const [name, value] of Object.entries(limits)) {
    const resource = (LIMITS as readonly string[]).indexOf(name);
    if (resource < 0) problems.push(`limits: ${name} is not one of ${LIMITS.join(", ")}`);
    const soft = limitOf(typeof value === "object" ? value.soft : value);
    const hard = limitOf(typeof value === "object" ? value.hard : value);
    if (soft === undefined || hard === undefined || soft > hard) {
      problems.push(`limits: ${name} is a number from 0 on or "unlimited", and its soft limit not above its hard one`);
    } else {
      found.push({ resource, soft, hard });
    }
  }
  return found;
}

function limitOf(value: LimitValue): bigint | undefined {
  if (value === "unlimited") return UNLIMITED;
  return Number.isSafeInteger(value) && value >= 0 ? BigInt(value) : undefined;
}
