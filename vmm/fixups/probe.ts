// Finds out what this KVM cannot do, by a guest of a few instructions that tries each thing.
// Nothing is inferred from the module's name: a newer version may know more instructions.
import type { KvmSystem } from "../kvm/system.js";
import type { VcpuFd } from "../kvm/vcpu-fd.js";
import { KVM_EXIT_INTERNAL_ERROR, KVM_EXIT_MMIO, kvm_regs, kvm_run } from "../sys/kvm-abi.js";
import {
  TINY_CODE_GPA,
  TINY_MMIO_GPA,
  TINY_STACK_GPA,
  createTinyVm,
  enterLongMode,
  setRegisters,
  type RegisterValues,
} from "./tiny-vm.js";
import type { FixupName } from "./fixup.js";
import type { Quirks } from "./quirks.js";
import { MSR_LSTAR, MSR_STAR, MSR_SYSCALL_MASK } from "./syscall.js";
import type { XsaveComponent } from "./xsave.js";

interface Candidate {
  readonly fixup: FixupName;
  readonly bytes: readonly number[];
  /** CPUID bit without which the instruction is undefined; none for what every processor has. */
  readonly feature?: { readonly leaf: 1 | 7; readonly register: "rbx" | "rcx"; readonly bit: number };
}

const INT3 = 0xcc;
const XSAVE_FEATURE = { leaf: 1, register: "rcx", bit: 26 } as const;

/** RSI points to aligned scratch memory, RCX is 0; only INT3 raises an exception. */
const CANDIDATES: readonly Candidate[] = [
  { fixup: "xcr", bytes: [0x0f, 0x01, 0xd0], feature: XSAVE_FEATURE }, // xgetbv
  { fixup: "xsave", bytes: [0x0f, 0xae, 0x26], feature: XSAVE_FEATURE }, // xsave [rsi]
  { fixup: "smap", bytes: [0x0f, 0x01, 0xcb], feature: { leaf: 7, register: "rbx", bit: 20 } }, // stac
  {
    fixup: "cmpxchg16b",
    bytes: [0xf0, 0x48, 0x0f, 0xc7, 0x0e], // lock cmpxchg16b [rsi]
    feature: { leaf: 1, register: "rcx", bit: 13 },
  },
  { fixup: "popcnt", bytes: [0xf3, 0x48, 0x0f, 0xb8, 0xc8], feature: { leaf: 1, register: "rcx", bit: 23 } },
  { fixup: "fwait", bytes: [0x9b] },
  // Last: without an interrupt table, a processor that knows it shuts down.
  { fixup: "int3", bytes: [INT3] },
];
const CR4_OSXSAVE = 1n << 18n;

/** mov [rdi], eax: an exit that says "done". */
const REPORT_EAX = [0x89, 0x07];
/** cpuid */
const CPUID = [0x0f, 0xa2, ...REPORT_EAX];
/** syscall */
const SYSCALL = [0x0f, 0x05];
/** mov eax, cs; mov [rdi], eax: an exit with the privilege level. */
const REPORT_CS = [0x8c, 0xc8, ...REPORT_EAX];
const KERNEL_SELECTOR = 0x10n;
const USER_SELECTOR = 0x23n;

/** Each piece of code starts at its own multiple of this, in `bytes`. */
const PIECE = 32;
const CPUID_AT = 0;
const SYSCALL_AT = 1;
const ENTRY_AT = 2;
const CANDIDATES_AT = 3;

let remembered: { readonly quirks: Quirks | undefined } | undefined;

/** The same, asked once: this process has one KVM. A probe takes as long as all else that restores a VM. */
export function knownQuirks(system: KvmSystem): Quirks | undefined {
  remembered ??= { quirks: probeQuirks(system) };
  return remembered.quirks;
}

/** What is left to the monitor; undefined if nothing is. */
export function probeQuirks(system: KvmSystem): Quirks | undefined {
  const pieces = [CPUID, SYSCALL, REPORT_CS, ...CANDIDATES.map(({ bytes }) => [...bytes, ...REPORT_EAX])];
  const code = pieces.flatMap((piece) => [...piece, ...new Array<number>(PIECE - piece.length).fill(INT3)]);
  const { vcpu, close } = createTinyVm(system, { code, cpl: 0 });
  const run = (piece: number, registers: RegisterValues = {}): number => {
    const rip = TINY_CODE_GPA + piece * PIECE;
    setRegisters(vcpu, { rip, rsp: TINY_STACK_GPA, rsi: TINY_STACK_GPA, rdi: TINY_MMIO_GPA, ...registers });
    while (!vcpu.enter());
    return vcpu.run.exitReason;
  };
  try {
    // The guest's own view: a software KVM may show it more than KVM_SET_CPUID2 said.
    const features = new Map<number, DataView>();
    for (const leaf of [1, 7]) if (run(CPUID_AT, { rax: leaf }) === KVM_EXIT_MMIO) features.set(leaf, vcpu.getRegs());
    const has = ({ leaf, register, bit }: NonNullable<Candidate["feature"]>): boolean =>
      (((features.get(leaf)?.getUint32(kvm_regs[register], true) ?? 0) >>> bit) & 1) === 1;
    const cr4 = has(XSAVE_FEATURE) ? CR4_OSXSAVE : 0n;

    // First, while the vCPU still works: INT3 may shut it down.
    const syscallStaysInUserMode = staysInUserMode(vcpu, cr4, () => run(SYSCALL_AT));
    enterLongMode(vcpu, 0, cr4);
    const missing = CANDIDATES.filter(({ feature }) => feature === undefined || has(feature))
      .filter((candidate) => run(CANDIDATES_AT + CANDIDATES.indexOf(candidate)) === KVM_EXIT_INTERNAL_ERROR)
      .map(({ fixup }) => fixup);
    if (missing.length === 0 && !syscallStaysInUserMode) return undefined;
    return { missing, syscallStaysInUserMode, tscKhz: vcpu.tscKhz(), xsaveComponents: xsaveComponents(system) };
  } finally {
    close();
  }
}

/** SYSCALL from user code to an entry that any level may run, and that reports its own. */
function staysInUserMode(vcpu: VcpuFd, cr4: bigint, run: () => number): boolean {
  vcpu.setMsrs([
    [MSR_STAR, (USER_SELECTOR << 48n) | (KERNEL_SELECTOR << 32n)],
    [MSR_LSTAR, BigInt(TINY_CODE_GPA + ENTRY_AT * PIECE)],
    [MSR_SYSCALL_MASK, 0n],
  ]);
  enterLongMode(vcpu, 3, cr4);
  return run() === KVM_EXIT_MMIO && (vcpu.run.loadU32(kvm_run.mmio_data) & 3) === 3;
}

/** User-state components from 2 on, CPUID leaf 0xD. Intel SDM vol. 1 §13.2. */
function xsaveComponents(system: KvmSystem): XsaveComponent[] {
  return system
    .supportedCpuid()
    .filter((entry) => entry.function === 0xd && entry.index >= 2 && entry.eax > 0 && (entry.ecx & 1) === 0)
    .map(({ index, eax, ebx }) => ({ index, offset: ebx, size: eax }));
}
