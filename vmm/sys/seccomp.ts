// Filters of system calls, made by Debian's libseccomp (which apt itself needs, so it is everywhere): seccomp_init(3) and its
// kin. The program is exported as bytes; here it is never loaded.
import { closeSync, fstatSync, readSync } from "node:fs";
import { HostError } from "../errors.js";
import { errnoName } from "./errno.js";
import { koffi } from "./koffi.js";
import { sharedMemoryFile } from "./shared-memory.js";

const LIBRARY = "libseccomp.so.2";
const EEXIST = 17;

export interface FilterCondition {
  /** Which argument of the call, 0 to 5. */
  readonly index: number;
  /** SCMP_CMP_… */
  readonly operator: number;
  readonly value: bigint;
  /** Of SCMP_CMP_MASKED_EQ; `value` is the mask then. */
  readonly valueTwo: bigint;
}

type Bound = ReturnType<ReturnType<typeof koffi.load>["func"]>;

function bind(): Record<"init" | "resolve" | "addRule" | "setAttribute" | "export" | "release", Bound> {
  let library;
  try {
    library = koffi.load(LIBRARY);
  } catch (error) {
    throw new HostError(`${LIBRARY} cannot be loaded`, { cause: error, cure: "apt-get install libseccomp2" });
  }
  return {
    init: library.func("seccomp_init", "int64_t", ["uint"]),
    resolve: library.func("seccomp_syscall_resolve_name", "int", ["str"]),
    addRule: library.func("seccomp_rule_add_array", "int", ["int64_t", "uint", "int", "uint", "void *"]),
    setAttribute: library.func("seccomp_attr_set", "int", ["int64_t", "int", "uint"]),
    export: library.func("seccomp_export_bpf", "int", ["int64_t", "int"]),
    release: library.func("seccomp_release", "void", ["int64_t"]),
  };
}

const SCMP_FLTATR_ACT_BADARCH = 2;
const SCMP_ACT_ERRNO = 0x0005_0000;
const SCMP_FLTATR_CTL_OPTIMIZE = 8;
/** A search by halves in place of one call after the other. */
const OPTIMIZE_TREE = 2;

/** One filter under construction; `close` gives it back. */
export class SeccompFilter {
  readonly #library = bind();
  readonly #context: number;

  /** `action`: SCMP_ACT_… for what no rule names. */
  constructor(action: number) {
    this.#context = this.#library.init(action);
    if (this.#context === 0) throw new HostError(`libseccomp knows no action 0x${action.toString(16)}`);
    this.#library.setAttribute(this.#context, SCMP_FLTATR_CTL_OPTIMIZE, OPTIMIZE_TREE);
  }

  /** Calls of others than x86-64 fail with `errno`; otherwise they kill the thread. */
  refuseOtherArchitectures(errno: number): void {
    const result = this.#library.setAttribute(this.#context, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_ERRNO | errno);
    if (result < 0) throw refused("seccomp_attr_set of SCMP_FLTATR_ACT_BADARCH", result);
  }

  /** False if no system call has that name. */
  addRule(name: string, action: number, conditions: readonly FilterCondition[]): boolean {
    const ABSENT = -1;
    const number = this.#library.resolve(name);
    if (number === ABSENT) return false;
    // struct scmp_arg_cmp: which one, how, and two values.
    const bytes = Buffer.alloc(24 * Math.max(conditions.length, 1));
    for (const [at, { index, operator, value, valueTwo }] of conditions.entries()) {
      bytes.writeUInt32LE(index, 24 * at);
      bytes.writeUInt32LE(operator, 24 * at + 4);
      bytes.writeBigUInt64LE(value, 24 * at + 8);
      bytes.writeBigUInt64LE(valueTwo, 24 * at + 16);
    }
    // SAFETY: as many structures as it is told, read during the call only.
    const result = this.#library.addRule(this.#context, action, number, conditions.length, bytes);
    if (result < 0 && result !== -EEXIST) throw refused(`seccomp_rule_add_array of ${name}`, result);
    return true;
  }

  /** struct sock_filter, 8 bytes each. */
  program(): Buffer {
    const file = sharedMemoryFile("vmlet-seccomp");
    try {
      const result = this.#library.export(this.#context, file);
      if (result < 0) throw refused("seccomp_export_bpf", result);
      const bytes = Buffer.alloc(fstatSync(file).size);
      readSync(file, bytes, 0, bytes.length, 0);
      return bytes;
    } finally {
      closeSync(file);
    }
  }

  close(): void {
    this.#library.release(this.#context);
  }
}

function refused(what: string, result: number): HostError {
  return new HostError(`${what} failed with ${errnoName(-result)}`);
}
