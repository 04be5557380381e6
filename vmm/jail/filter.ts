// A list of system calls as a program of the classic BPF for seccomp(2): which may be made, with which arguments, and what becomes of
// the others. linux/seccomp.h, linux/filter.h. The kernel remembers which calls need no look at arguments, so that the order of
// the list matters for the others alone.
import {
  AND,
  AUDIT_ARCH_X86_64,
  JUMP_IF_EQUAL,
  JUMP_IF_GREATER_OR_EQUAL,
  LOAD_WORD,
  MAX_JUMP,
  RETURN,
  SECCOMP_DATA,
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

/** Where a jump goes that a condition which does not hold takes: it is put in when the rule's end is known. */
const MISS = MAX_JUMP;
const JUMP_IF_SO_SHIFT = 16;
const JUMP_IF_NOT_SHIFT = 24;

/** struct sock_filter as two words: code, jumps; k. A start waits for this, in code that has never run: it makes no objects. */
class Code {
  readonly #words: number[] = [];

  get length(): number {
    return this.#words.length / 2;
  }

  emit(code: number, k: number, ifSo = 0, ifNot = 0): void {
    if (ifSo > MAX_JUMP || ifNot > MAX_JUMP) throw new Error("A jump too far");
    this.#words.push((code | (ifSo << JUMP_IF_SO_SHIFT) | (ifNot << JUMP_IF_NOT_SHIFT)) >>> 0, k >>> 0);
  }

  /** Its jumps stay within it. */
  append(code: Code): void {
    for (const word of code.#words) this.#words.push(word);
  }

  /** Jumps of that condition to MISS, from instruction `from` on, go to the end of what is there now. */
  missTo(from: number): void {
    for (let at = from; at < this.length; at++) {
      const word = this.#words[2 * at] ?? 0;
      const isJump = (word & 0xffff) === JUMP_IF_EQUAL;
      if (!isJump || word >>> JUMP_IF_NOT_SHIFT !== MISS) continue;
      const distance = this.length - at - 1;
      if (distance >= MISS) throw new Error("A jump too far");
      this.#words[2 * at] = ((word & 0x00ff_ffff) | (distance << JUMP_IF_NOT_SHIFT)) >>> 0;
    }
  }

  bytes(): Uint8Array {
    return new Uint8Array(Uint32Array.from(this.#words).buffer);
  }
}

function emitCondition(code: Code, { argument, mask, values, isWide = false }: Condition): void {
  const low = SECCOMP_DATA.args + 8 * argument;
  if (isWide) {
    code.emit(LOAD_WORD, low + 4);
    code.emit(JUMP_IF_EQUAL, 0, 0, MISS);
  }
  code.emit(LOAD_WORD, low);
  if (mask !== undefined) code.emit(AND, mask);
  for (let at = 0; at < values.length; at++) {
    const after = values.length - at - 1;
    code.emit(JUMP_IF_EQUAL, values[at] ?? 0, after, after === 0 ? MISS : 0);
  }
}

/** What is in many lists, such as what any code does, is compiled once. */
const compiled = new WeakMap<Rule, Code>();

function codeOf(rule: Rule): Code {
  let code = compiled.get(rule);
  if (code === undefined) {
    code = new Code();
    emitRule(code, rule);
    compiled.set(rule, code);
  }
  return code;
}

/** The accumulator has the call's number before and after it, unless it returns. */
function emitRule(code: Code, { calls, when = [], errno }: Rule): void {
  const action = errno === undefined ? SECCOMP_RET_ALLOW : SECCOMP_RET_ERRNO | errno;
  for (let at = 0; at < calls.length; at++) {
    const left = calls.length - at - 1;
    code.emit(JUMP_IF_EQUAL, numberOf(calls[at] ?? ""), left, left === 0 ? MISS : 0);
  }
  const from = code.length - 1;
  const isAlways = when.length === 0;
  for (const condition of when) emitCondition(code, condition);
  code.emit(RETURN, action);
  code.missTo(isAlways ? from : from + 1);
  if (isAlways) return;
  // Behind a look at arguments, the number has to be there again for the next rule.
  code.emit(LOAD_WORD, SECCOMP_DATA.nr);
  code.missTo(from);
}

/** struct sock_filter, 8 bytes each. Calls of another architecture, and all that no rule allows, are trapped. */
export function compileFilter(rules: readonly Rule[]): Uint8Array {
  const code = new Code();
  code.emit(LOAD_WORD, SECCOMP_DATA.arch);
  code.emit(JUMP_IF_EQUAL, AUDIT_ARCH_X86_64, 1, 0);
  code.emit(RETURN, SECCOMP_RET_TRAP);
  code.emit(LOAD_WORD, SECCOMP_DATA.nr);
  code.emit(JUMP_IF_GREATER_OR_EQUAL, X32_SYSCALL_BIT, 0, 1);
  code.emit(RETURN, SECCOMP_RET_TRAP);
  for (const rule of rules) code.append(codeOf(rule));
  code.emit(RETURN, SECCOMP_RET_TRAP);
  if (code.length > MOST_INSTRUCTIONS) throw new Error(`A filter of ${String(code.length)} instructions`);
  return code.bytes();
}
