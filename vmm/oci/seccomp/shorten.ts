// The same filter in fewer instructions. libseccomp compares with each number of a call; most neighbours are treated alike, so ranges
// of numbers do. A kernel that is emulated reads a filter for a tenth of a second per hundred instructions, at each start.
// Linux: networking/filter.rst, "BPF engine and instruction set"; struct seccomp_data.

/** struct sock_filter, `bytes`. */
export const INSTRUCTION_BYTES = 8;
const LD_ABS = 0x20;
const RET = 0x06;
const JA = 0x05;
const JEQ = 0x15;
const JGT = 0x25;
const JGE = 0x35;
const AND = 0x54;
const OFFSET_NUMBER = 0;
const OFFSET_ARCHITECTURE = 4;
/** AUDIT_ARCH_X86_64 */
const X86_64 = 0xc000_003e;
const MAX_JUMP = 255;
const END = 2 ** 32;

interface Instruction {
  readonly code: number;
  readonly yes: number;
  readonly no: number;
  readonly k: number;
}

/** What a call of some number comes to: an action, or the instruction with which the filter asks for more than the number. */
type Outcome = { readonly action: number } | { readonly from: number };

interface Range {
  /** The first number; the last is that before the next range's. */
  readonly start: number;
  readonly outcome: Outcome;
}

/** `program`: struct sock_filter, 8 bytes each. It itself if it is of another form, or no shorter. */
export function shorten(program: Buffer): Buffer {
  const all = decode(program);
  const badArchitecture = otherArchitectures(all);
  if (badArchitecture === undefined) return program;
  const ranges = rangesOf(all);
  if (ranges === undefined) return program;
  const short = assemble(all, ranges, badArchitecture);
  return short !== undefined && short.length < program.length ? short : program;
}

function decode(program: Buffer): Instruction[] {
  return Array.from({ length: program.length / INSTRUCTION_BYTES }, (_, at) => {
    const from = at * INSTRUCTION_BYTES;
    const [yes = 0, no = 0] = program.subarray(from + 2, from + 4);
    return { code: program.readUInt16LE(from), yes, no, k: program.readUInt32LE(from + 4) };
  });
}

/** The action for calls of every other architecture, which it looks at first. */
function otherArchitectures(all: readonly Instruction[]): number | undefined {
  const [load, compare] = all;
  if (load?.code !== LD_ABS || load.k !== OFFSET_ARCHITECTURE) return undefined;
  if (compare?.code !== JEQ || compare.k !== X86_64) return undefined;
  const other = all[2 + compare.no];
  return other?.code === RET ? other.k : undefined;
}

/** Where a comparison with the number may change its answer: between two of these all numbers are alike. */
function rangesOf(all: readonly Instruction[]): Range[] | undefined {
  const starts = new Set([0]);
  for (const { code, k } of all) {
    if (code === JEQ || code === JGT || code === JGE) {
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
function outcomeOf(all: readonly Instruction[], number: number): Outcome | undefined {
  let accumulator = 0;
  // Jumps go forward only, so this ends.
  for (let at = 0; at < all.length; at++) {
    const { code, yes, no, k } = all[at] as Instruction;
    switch (code) {
      case LD_ABS:
        if (k !== OFFSET_NUMBER && k !== OFFSET_ARCHITECTURE) return { from: at };
        accumulator = k === OFFSET_NUMBER ? number : X86_64;
        break;
      case RET:
        return { action: k };
      case JA:
        at += k;
        break;
      case JEQ:
        at += accumulator === k ? yes : no;
        break;
      case JGT:
        at += accumulator > k ? yes : no;
        break;
      case JGE:
        at += accumulator >= k ? yes : no;
        break;
      default:
        return undefined;
    }
  }
  return undefined;
}

/** What can be reached from `entries`, in order; undefined if there is an instruction of another kind. */
function reachable(all: readonly Instruction[], entries: readonly number[]): number[] | undefined {
  const isReached = all.map((_, at) => entries.includes(at));
  for (const [at, { code, yes, no, k }] of all.entries()) {
    if (isReached[at] !== true) continue;
    if (code === RET) continue;
    if (code === JA) isReached[at + 1 + k] = true;
    else if (code === JEQ || code === JGT || code === JGE) {
      isReached[at + 1 + yes] = true;
      isReached[at + 1 + no] = true;
    } else if (code === LD_ABS || code === AND) isReached[at + 1] = true;
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
    const bytes = Buffer.alloc(this.#instructions.length * INSTRUCTION_BYTES);
    for (const [at, { code, k, yes, no }] of this.#instructions.entries()) {
      const [far, near] = [yes, no].map((name) => (name === "" ? 0 : (this.#places.get(name) ?? -1) - at - 1));
      if (far === undefined || near === undefined || far < 0 || near < 0) return undefined;
      const isJa = code === JA;
      if (!isJa && (far > MAX_JUMP || near > MAX_JUMP)) return undefined;
      const from = at * INSTRUCTION_BYTES;
      bytes.writeUInt16LE(code, from);
      bytes[from + 2] = isJa ? 0 : far;
      bytes[from + 3] = isJa ? 0 : near;
      bytes.writeUInt32LE(isJa ? far : k, from + 4);
    }
    return bytes;
  }
}

function nameOf(outcome: Outcome): string {
  return "action" in outcome ? `action ${String(outcome.action)}` : `at ${String(outcome.from)}`;
}

function assemble(all: readonly Instruction[], ranges: readonly Range[], badArchitecture: number): Buffer | undefined {
  const outcomes = ranges.map(({ outcome }) => outcome);
  const code = reachable(
    all,
    outcomes.flatMap((outcome) => ("from" in outcome ? [outcome.from] : [])),
  );
  if (code === undefined) return undefined;
  const assembler = new Assembler();
  assembler.add(LD_ABS, OFFSET_ARCHITECTURE);
  assembler.add(JEQ, X86_64, "number", nameOf({ action: badArchitecture }));
  assembler.name("number");
  assembler.add(LD_ABS, OFFSET_NUMBER);
  search(assembler, ranges);
  for (const at of code) {
    const { code: operation, yes, no, k } = all[at] as Instruction;
    const place = (distance: number): string => `at ${String(at + 1 + distance)}`;
    assembler.name(`at ${String(at)}`);
    if (operation === JA) assembler.add(JA, 0, place(k));
    else if (operation === RET || operation === LD_ABS || operation === AND) assembler.add(operation, k);
    else assembler.add(operation, k, place(yes), place(no));
  }
  const actions = new Set([badArchitecture, ...outcomes.flatMap((one) => ("action" in one ? [one.action] : []))]);
  for (const action of actions) {
    assembler.name(nameOf({ action }));
    assembler.add(RET, action);
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
    assembler.add(JA, 0, nameOf(first.outcome));
    return;
  }
  const own = `below ${String(first.start)}`;
  const above = `from ${String(first.start)}`;
  assembler.add(JGE, first.start, target(high, above), target(low, own));
  if (low.length > 1) {
    assembler.name(own);
    search(assembler, low);
  }
  if (high.length > 1) {
    assembler.name(above);
    search(assembler, high);
  }
}
