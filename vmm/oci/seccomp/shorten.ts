// The same filter in fewer instructions. libseccomp compares with each number of a call; most neighbours are treated alike, so ranges
// of numbers do. A kernel that is emulated reads a filter for a tenth of a second per hundred instructions, at each start.
// Linux: networking/filter.rst, "BPF engine and instruction set"; struct seccomp_data.

import {
  AND,
  AUDIT_ARCH_X86_64,
  decodeProgram,
  encodeProgram,
  JUMP,
  JUMP_IF_EQUAL,
  JUMP_IF_GREATER,
  JUMP_IF_GREATER_OR_EQUAL,
  LOAD_WORD,
  MAX_JUMP,
  RETURN,
  SECCOMP_DATA,
  type SockFilter,
} from "../../sys/sock-filter.js";

const END = 2 ** 32;

/** What a call of some number comes to: an action, or the instruction with which the filter asks for more than the number. */
type Outcome = { readonly action: number } | { readonly from: number };

interface Range {
  /** The first number; the last is that before the next range's. */
  readonly start: number;
  readonly outcome: Outcome;
}

/** `program`: struct sock_filter, 8 bytes each. It itself if it is of another form, or no shorter. */
export function shorten(program: Buffer): Buffer {
  const all = decodeProgram(program);
  const badArchitecture = otherArchitectures(all);
  if (badArchitecture === undefined) return program;
  const ranges = rangesOf(all);
  if (ranges === undefined) return program;
  const short = assemble(all, ranges, badArchitecture);
  return short !== undefined && short.length < program.length ? short : program;
}

/** The action for calls of every other architecture, which it looks at first. */
function otherArchitectures(all: readonly SockFilter[]): number | undefined {
  const [load, compare] = all;
  if (load?.code !== LOAD_WORD || load.k !== SECCOMP_DATA.arch) return undefined;
  if (compare?.code !== JUMP_IF_EQUAL || compare.k !== AUDIT_ARCH_X86_64) return undefined;
  const other = all[2 + compare.ifNot];
  return other?.code === RETURN ? other.k : undefined;
}

/** Where a comparison with the number may change its answer: between two of these all numbers are alike. */
function rangesOf(all: readonly SockFilter[]): Range[] | undefined {
  const starts = new Set([0]);
  for (const { code, k } of all) {
    if (code === JUMP_IF_EQUAL || code === JUMP_IF_GREATER || code === JUMP_IF_GREATER_OR_EQUAL) {
      starts.add(k);
      if (k + 1 < END) starts.add(k + 1);
    }
  }
  const ranges: Range[] = [];
  for (const start of [...starts].sort((a, b) => a - b)) {
    const outcome = outcomeOf(all, start);
    if (outcome === undefined) return undefined;
    const last = ranges.at(-1);
    if (last === undefined || !isSame(last.outcome, outcome)) ranges.push({ start, outcome });
  }
  return ranges;
}

function isSame(a: Outcome, b: Outcome): boolean {
  return "action" in a ? "action" in b && a.action === b.action : "from" in b && a.from === b.from;
}

/** Of a call of this architecture; undefined if the number is not only compared. */
function outcomeOf(all: readonly SockFilter[], number: number): Outcome | undefined {
  let accumulator = 0;
  // Jumps go forward only, so this ends.
  for (let at = 0; at < all.length; at++) {
    const { code, ifSo, ifNot, k } = all[at] as SockFilter;
    switch (code) {
      case LOAD_WORD:
        if (k !== SECCOMP_DATA.nr && k !== SECCOMP_DATA.arch) return { from: at };
        accumulator = k === SECCOMP_DATA.nr ? number : AUDIT_ARCH_X86_64;
        break;
      case RETURN:
        return { action: k };
      case JUMP:
        at += k;
        break;
      case JUMP_IF_EQUAL:
        at += accumulator === k ? ifSo : ifNot;
        break;
      case JUMP_IF_GREATER:
        at += accumulator > k ? ifSo : ifNot;
        break;
      case JUMP_IF_GREATER_OR_EQUAL:
        at += accumulator >= k ? ifSo : ifNot;
        break;
      default:
        return undefined;
    }
  }
  return undefined;
}

/** What can be reached from `entries`, in order; undefined if there is an instruction of another kind. */
function reachable(all: readonly SockFilter[], entries: readonly number[]): number[] | undefined {
  const isReached = all.map((_, at) => entries.includes(at));
  for (const [at, { code, ifSo, ifNot, k }] of all.entries()) {
    if (isReached[at] !== true) continue;
    if (code === RETURN) continue;
    if (code === JUMP) isReached[at + 1 + k] = true;
    else if (code === JUMP_IF_EQUAL || code === JUMP_IF_GREATER || code === JUMP_IF_GREATER_OR_EQUAL) {
      isReached[at + 1 + ifSo] = true;
      isReached[at + 1 + ifNot] = true;
    } else if (code === LOAD_WORD || code === AND) isReached[at + 1] = true;
    else return undefined;
  }
  return isReached.flatMap((is, at) => (is ? [at] : []));
}

/** A program whose jumps lead to names. */
class Assembler {
  readonly #instructions: { code: number; k: number; yes: string; no: string }[] = [];
  readonly #places = new Map<string, number>();

  /** The next instruction is called so. */
  name(name: string): void {
    this.#places.set(name, this.#instructions.length);
  }

  add(code: number, k: number, yes = "", no = ""): void {
    this.#instructions.push({ code, k, yes, no });
  }

  /** Undefined if a jump is too far. */
  bytes(): Buffer | undefined {
    const program: SockFilter[] = [];
    for (const [at, { code, k, yes, no }] of this.#instructions.entries()) {
      const [ifSo, ifNot] = [yes, no].map((name) => (name === "" ? 0 : (this.#places.get(name) ?? -1) - at - 1));
      if (ifSo === undefined || ifNot === undefined || ifSo < 0 || ifNot < 0) return undefined;
      if (code === JUMP) program.push({ code, k: ifSo, ifSo: 0, ifNot: 0 });
      else if (Math.max(ifSo, ifNot) > MAX_JUMP) return undefined;
      else program.push({ code, k, ifSo, ifNot });
    }
    return Buffer.from(encodeProgram(program).buffer);
  }
}

function nameOf(outcome: Outcome): string {
  return "action" in outcome ? `action ${String(outcome.action)}` : `at ${String(outcome.from)}`;
}

function assemble(all: readonly SockFilter[], ranges: readonly Range[], badArchitecture: number): Buffer | undefined {
  const outcomes = ranges.map(({ outcome }) => outcome);
  const code = reachable(
    all,
    outcomes.flatMap((outcome) => ("from" in outcome ? [outcome.from] : [])),
  );
  if (code === undefined) return undefined;
  const assembler = new Assembler();
  assembler.add(LOAD_WORD, SECCOMP_DATA.arch);
  assembler.add(JUMP_IF_EQUAL, AUDIT_ARCH_X86_64, "number", nameOf({ action: badArchitecture }));
  assembler.name("number");
  assembler.add(LOAD_WORD, SECCOMP_DATA.nr);
  search(assembler, ranges);
  for (const at of code) {
    const { code: operation, ifSo, ifNot, k } = all[at] as SockFilter;
    const place = (distance: number): string => `at ${String(at + 1 + distance)}`;
    assembler.name(`at ${String(at)}`);
    if (operation === JUMP) assembler.add(JUMP, 0, place(k));
    else if (operation === RETURN || operation === LOAD_WORD || operation === AND) assembler.add(operation, k);
    else assembler.add(operation, k, place(ifSo), place(ifNot));
  }
  const actions = new Set([badArchitecture, ...outcomes.flatMap((one) => ("action" in one ? [one.action] : []))]);
  for (const action of actions) {
    assembler.name(nameOf({ action }));
    assembler.add(RETURN, action);
  }
  return assembler.bytes();
}

/** By halves. A half that is one range is jumped to. */
function search(assembler: Assembler, ranges: readonly Range[]): void {
  const middle = ranges.length >> 1;
  const [low, high] = [ranges.slice(0, middle), ranges.slice(middle)];
  const target = (half: readonly Range[], own: string): string => {
    const [only] = half;
    return half.length === 1 && only !== undefined ? nameOf(only.outcome) : own;
  };
  const [first] = high;
  if (first === undefined) return;
  if (low.length === 0) {
    assembler.add(JUMP, 0, nameOf(first.outcome));
    return;
  }
  const own = `below ${String(first.start)}`;
  const above = `from ${String(first.start)}`;
  assembler.add(JUMP_IF_GREATER_OR_EQUAL, first.start, target(high, above), target(low, own));
  if (low.length > 1) {
    assembler.name(own);
    search(assembler, low);
  }
  if (high.length > 1) {
    assembler.name(above);
    search(assembler, high);
  }
}
