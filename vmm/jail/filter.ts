// A list of system calls as a program of the classic BPF for seccomp(2): which may be made, with which arguments, and what becomes of
// the others. linux/seccomp.h, linux/filter.h. The kernel remembers which calls need no look at arguments, so that the order of
// the list matters for the others alone.
import {
  AND,
  AUDIT_ARCH_X86_64,
  encodeProgram,
  JUMP_IF_EQUAL,
  JUMP_IF_GREATER_OR_EQUAL,
  LOAD_WORD,
  MAX_JUMP,
  RETURN,
  SECCOMP_DATA,
  type SockFilter,
} from "../sys/sock-filter.js";
import { numberOf } from "./system-calls.js";

/** The call is not made: the thread gets SIGSYS. */
export const SECCOMP_RET_TRAP = 0x0003_0000;
const SECCOMP_RET_ERRNO = 0x0005_0000;
const SECCOMP_RET_ALLOW = 0x7fff_0000;

/** Numbers of the x32 ABI have this bit. */
const X32_SYSCALL_BIT = 0x4000_0000;

/** BPF_MAXINSNS. */
const MOST_INSTRUCTIONS = 4096;

/** The lower half of an argument, which is all that the kernel looks at in an int, has one of the values behind the mask. */
export interface Condition {
  readonly argument: 0 | 1 | 2 | 3 | 4 | 5;
  /** All bits by default. */
  readonly mask?: number;
  readonly values: readonly number[];
  /** The upper half, too, has to be 0: an address. */
  readonly isWide?: boolean;
}

export interface Rule {
  readonly calls: readonly string[];
  /** All of them have to hold; otherwise the next rule of that call is asked. */
  readonly when?: readonly Condition[];
  /** In place of the call: this error. */
  readonly errno?: number;
}

interface Instruction {
  readonly code: number;
  readonly k: number;
  /** Where to go on if so and if not: instructions to leave out, or the end of this rule. */
  readonly ifSo: number | "miss";
  readonly ifNot: number | "miss";
}

const step = (code: number, k: number): Instruction => ({ code, k, ifSo: 0, ifNot: 0 });

function conditionCode({ argument, mask, values, isWide = false }: Condition): Instruction[] {
  const low = SECCOMP_DATA.args + 8 * argument;
  const wide = isWide
    ? [step(LOAD_WORD, low + 4), { ...step(JUMP_IF_EQUAL, 0), ifNot: "miss" } satisfies Instruction]
    : [];
  const compared = values.map((value, at): Instruction => {
    const after = values.length - at - 1;
    return { code: JUMP_IF_EQUAL, k: value >>> 0, ifSo: after, ifNot: after === 0 ? "miss" : 0 };
  });
  return [...wide, step(LOAD_WORD, low), ...(mask === undefined ? [] : [step(AND, mask >>> 0)]), ...compared];
}

/** The accumulator has the call's number before and after it, unless it returns. */
function ruleCode(number: number, { when = [], errno }: Rule): Instruction[] {
  const action = errno === undefined ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO | errno;
  const body = [...when.flatMap(conditionCode), step(RETURN, action)];
  // Behind a look at arguments, the number has to be there again for the next rule.
  const tail = when.length === 0 ? [] : [step(LOAD_WORD, SECCOMP_DATA.nr)];
  const whole: Instruction[] = [
    { code: JUMP_IF_EQUAL, k: number, ifSo: 0, ifNot: body.length + tail.length },
    ...body,
    ...tail,
  ];
  const miss = whole.length - tail.length;
  return whole.map((one, at) => ({
    ...one,
    ifSo: one.ifSo === "miss" ? miss - at - 1 : one.ifSo,
    ifNot: one.ifNot === "miss" ? miss - at - 1 : one.ifNot,
  }));
}

/** struct sock_filter, 8 bytes each. Calls of another architecture, and all that no rule allows, are trapped. */
export function compileFilter(rules: readonly Rule[]): Uint8Array {
  const program: Instruction[] = [
    step(LOAD_WORD, SECCOMP_DATA.arch),
    { code: JUMP_IF_EQUAL, k: AUDIT_ARCH_X86_64, ifSo: 1, ifNot: 0 },
    step(RETURN, SECCOMP_RET_TRAP),
    step(LOAD_WORD, SECCOMP_DATA.nr),
    { code: JUMP_IF_GREATER_OR_EQUAL, k: X32_SYSCALL_BIT, ifSo: 0, ifNot: 1 },
    step(RETURN, SECCOMP_RET_TRAP),
    ...rules.flatMap((rule) => rule.calls.flatMap((call) => ruleCode(numberOf(call), rule))),
    step(RETURN, SECCOMP_RET_TRAP),
  ];
  if (program.length > MOST_INSTRUCTIONS) throw new Error(`A filter of ${String(program.length)} instructions`);
  return encodeProgram(
    program.map(({ code, k, ifSo, ifNot }): SockFilter => {
      if (ifSo === "miss" || ifNot === "miss" || Math.max(ifSo, ifNot) > MAX_JUMP) throw new Error("A jump too far");
      return { code, k, ifSo, ifNot };
    }),
  );
}
