// linux.seccomp of config.json as a program for the guest's kernel. OCI runtime-spec, "Seccomp".
import { ConfigError } from "../../errors.js";
import { SeccompFilter, type FilterCondition } from "../../sys/seccomp.js";
import { shorten } from "./shorten.js";
import { ACTIONS, FLAGS, OPERATORS, SECCOMP_ARCHITECTURES } from "./names.js";

export interface SeccompArgument {
  readonly index: number;
  readonly value: number;
  readonly valueTwo?: number;
  readonly op: string;
}

export interface SeccompRule {
  readonly names: readonly string[];
  readonly action: string;
  readonly errnoRet?: number;
  readonly args?: readonly SeccompArgument[];
}

export interface SeccompConfig {
  readonly defaultAction: string;
  readonly defaultErrnoRet?: number;
  readonly architectures?: readonly string[];
  readonly flags?: readonly string[];
  readonly syscalls?: readonly SeccompRule[];
}

export interface SeccompProgram {
  /** SECCOMP_FILTER_FLAG_… of seccomp(2). */
  readonly flags: number;
  /** struct sock_filter, 8 bytes each. */
  readonly program: Buffer;
  /** Names that are no system calls of this libseccomp: their rules say nothing. */
  readonly unknown: readonly string[];
}

const EPERM = 1;
const ENOSYS = 38;
/** The guest's kernel has no other system calls than these: no 32-bit ones, no x32. */
const NATIVE = "SCMP_ARCH_X86_64";
const MAX_ERRNO = 0xffff;
const MAX_INDEX = 5;

function problem(text: string): never {
  throw new ConfigError([`linux.seccomp.${text}`]);
}

function actionNumber(where: string, name: string, errnoRet = EPERM): number {
  const action = Object.hasOwn(ACTIONS, name) ? ACTIONS[name] : undefined;
  if (name === "SCMP_ACT_NOTIFY")
    return problem(`${where}: SCMP_ACT_NOTIFY asks a process of this host, which a VM cannot reach`);
  if (action === undefined) return problem(`${where}: ${name} is none of ${Object.keys(ACTIONS).join(", ")}`);
  if (!(Number.isInteger(errnoRet) && errnoRet >= 0 && errnoRet <= MAX_ERRNO)) {
    return problem(`${where}: errnoRet ${String(errnoRet)} is not from 0 to ${String(MAX_ERRNO)}`);
  }
  return (action.base | (action.hasNumber === true ? errnoRet : 0)) >>> 0;
}

/** A value of 64 bits: JSON's numbers are exact up to 2^53, and a parser may hand them on as bigint. */
function word(where: string, value: unknown): bigint {
  if (typeof value !== "number" && typeof value !== "bigint") return problem(`${where}: ${String(value)} is no number`);
  if (typeof value === "number" && !Number.isInteger(value))
    return problem(`${where}: ${String(value)} is no whole number`);
  const whole = BigInt(value);
  if (whole < 0n || whole >= 1n << 64n) return problem(`${where}: ${String(value)} is not from 0 to 2^64 - 1`);
  return whole;
}

function condition(where: string, argument: SeccompArgument): FilterCondition {
  const { index, op, value, valueTwo = 0 } = argument;
  const operator = Object.hasOwn(OPERATORS, op) ? OPERATORS[op] : undefined;
  if (operator === undefined) return problem(`${where}.op: ${op} is none of ${Object.keys(OPERATORS).join(", ")}`);
  if (!(Number.isInteger(index) && index >= 0 && index <= MAX_INDEX)) {
    return problem(`${where}.index: ${String(index)} is not from 0 to ${String(MAX_INDEX)}`);
  }
  return { index, operator, value: word(`${where}.value`, value), valueTwo: word(`${where}.valueTwo`, valueTwo) };
}

/** Conditions on one argument more than once are one rule each, any of which is enough: a filter can ask once a rule. */
function rules(conditions: readonly FilterCondition[]): readonly (readonly FilterCondition[])[] {
  const indices = new Set(conditions.map(({ index }) => index));
  return indices.size === conditions.length ? [conditions] : conditions.map((one) => [one]);
}

/** Nobody has looked at what config.json says. */
function checkTypes({ defaultAction, architectures, flags, syscalls }: SeccompConfig): void {
  const areTexts = (value: unknown): boolean => Array.isArray(value) && value.every((text) => typeof text === "string");
  if (typeof defaultAction !== "string") problem("defaultAction: it is missing, or no text");
  if (architectures !== undefined && !areTexts(architectures)) problem("architectures: no list of texts");
  if (flags !== undefined && !areTexts(flags)) problem("flags: no list of texts");
  if (syscalls !== undefined && !Array.isArray(syscalls)) problem("syscalls: no list");
  for (const [at, rule] of (syscalls ?? []).entries()) {
    const { names, action, args } = (rule ?? {}) as Partial<SeccompRule>;
    if (!areTexts(names)) problem(`syscalls[${String(at)}].names: no list of texts`);
    if (typeof action !== "string") problem(`syscalls[${String(at)}].action: it is missing, or no text`);
    const areConditions =
      (args ?? []) instanceof Array && (args ?? []).every((one: unknown) => typeof one === "object" && one !== null);
    if (!areConditions) problem(`syscalls[${String(at)}].args: no list of conditions`);
  }
}

/** Throws ConfigError for what is no filter, HostError without libseccomp. */
export function compileSeccomp(config: SeccompConfig): SeccompProgram {
  checkTypes(config);
  const defaultAction = actionNumber("defaultAction", config.defaultAction, config.defaultErrnoRet);
  let flags = 0;
  for (const name of config.flags ?? []) {
    const flag = Object.hasOwn(FLAGS, name) ? FLAGS[name] : undefined;
    flags |= flag ?? problem(`flags: ${name} is none of ${Object.keys(FLAGS).join(", ")}`);
  }
  const filter = new SeccompFilter(defaultAction);
  try {
    for (const name of config.architectures ?? []) {
      if (!/^SCMP_ARCH_[A-Z0-9_]+$/.test(name)) problem(`architectures: ${name} is no architecture`);
      // Not one more in the filter: the guest's kernel reads all of it each time a program starts.
      if (name !== NATIVE && SECCOMP_ARCHITECTURES.includes(name)) filter.refuseOtherArchitectures(ENOSYS);
    }
    const unknown = new Set<string>();
    for (const [at, { names, action, errnoRet, args }] of (config.syscalls ?? []).entries()) {
      const where = `syscalls[${String(at)}]`;
      const number = actionNumber(`${where}.action`, action, errnoRet);
      const conditions = (args ?? []).map((argument, index) => condition(`${where}.args[${String(index)}]`, argument));
      // libseccomp takes no rule that says what holds anyway.
      if (number === defaultAction) continue;
      for (const name of names) {
        for (const rule of rules(conditions)) if (!filter.addRule(name, number, rule)) unknown.add(name);
      }
    }
    return { flags, program: shorten(filter.program()), unknown: [...unknown] };
  } finally {
    filter.close();
  }
}
