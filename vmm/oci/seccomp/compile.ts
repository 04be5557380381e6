// linux.seccomp of config.json as a program for the guest's kernel. OCI runtime-spec, "Seccomp".
import { ConfigError } from "../../errors.js";
import { SeccompFilter, type FilterCondition } from "../../sys/seccomp.js";

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
/** Those with a number in them take it from errnoRet. */
const ACTIONS: Readonly<Record<string, { readonly base: number; readonly hasNumber?: boolean }>> = {
  SCMP_ACT_KILL: { base: 0 },
  SCMP_ACT_KILL_THREAD: { base: 0 },
  SCMP_ACT_KILL_PROCESS: { base: 0x8000_0000 },
  SCMP_ACT_TRAP: { base: 0x0003_0000 },
  SCMP_ACT_ERRNO: { base: 0x0005_0000, hasNumber: true },
  SCMP_ACT_TRACE: { base: 0x7ff0_0000, hasNumber: true },
  SCMP_ACT_LOG: { base: 0x7ffc_0000 },
  SCMP_ACT_ALLOW: { base: 0x7fff_0000 },
};
const OPERATORS: Readonly<Record<string, number>> = {
  SCMP_CMP_NE: 1,
  SCMP_CMP_LT: 2,
  SCMP_CMP_LE: 3,
  SCMP_CMP_EQ: 4,
  SCMP_CMP_GE: 5,
  SCMP_CMP_GT: 6,
  SCMP_CMP_MASKED_EQ: 7,
};
/** Those that the guest's kernel can run programs of; others never come there. */
const ARCHITECTURES: Readonly<Record<string, number>> = {
  SCMP_ARCH_X86_64: 0xc000_003e,
  SCMP_ARCH_X86: 0x4000_0003,
  SCMP_ARCH_X32: 0x4000_003e,
};
const FLAGS: Readonly<Record<string, number>> = {
  SECCOMP_FILTER_FLAG_TSYNC: 1,
  SECCOMP_FILTER_FLAG_LOG: 2,
  SECCOMP_FILTER_FLAG_SPEC_ALLOW: 4,
};
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
function word(where: string, value: number | bigint): bigint {
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

/** Throws ConfigError for what is no filter, HostError without libseccomp. */
export function compileSeccomp(config: SeccompConfig): SeccompProgram {
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
      const architecture = Object.hasOwn(ARCHITECTURES, name) ? ARCHITECTURES[name] : undefined;
      if (architecture !== undefined) filter.addArchitecture(architecture);
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
    return { flags, program: filter.program(), unknown: [...unknown] };
  } finally {
    filter.close();
  }
}
