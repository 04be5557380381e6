// The processor's CPUID, which no kernel has edited: a few bytes of machine code in a page of
// their own. Any program may execute it; what /proc/cpuinfo leaves out, or lacks a name for, is here.
import { koffi } from "./koffi.js";
import { mmapExecutable, munmap } from "./memory.js";

const PAGE = 4096;
/** void cpuid(uint32_t leaf, uint32_t subleaf, uint32_t out[4]), System V calling convention. */
const CODE = [
  ...[0x53, 0x49, 0x89, 0xd0, 0x89, 0xf8, 0x89, 0xf1], // push rbx; mov r8, rdx; mov eax, edi; mov ecx, esi
  ...[0x0f, 0xa2], // cpuid
  ...[0x41, 0x89, 0x00, 0x41, 0x89, 0x58, 0x04], // mov [r8], eax; mov [r8+4], ebx
  ...[0x41, 0x89, 0x48, 0x08, 0x41, 0x89, 0x50, 0x0c], // mov [r8+8], ecx; mov [r8+12], edx
  ...[0x5b, 0xc3], // pop rbx; ret
];

export interface Cpuid {
  readonly eax: number;
  readonly ebx: number;
  readonly ecx: number;
  readonly edx: number;
}

/** Throws KvmIoctlError where no memory may be executable that was written (SELinux, systemd's MemoryDenyWriteExecute). */
export function cpuid(leaf: number, subleaf = 0): Cpuid {
  const [registers] = cpuidOf([[leaf, subleaf]]);
  if (registers === undefined) throw new Error("One leaf was asked for");
  return registers;
}

/** The same for several [leaf, subleaf]. */
export function cpuidOf(leaves: readonly (readonly [number, number])[]): Cpuid[] {
  const address = mmapExecutable(PAGE);
  try {
    new Uint8Array(koffi.view(address, PAGE)).set(CODE);
    const out = new Uint32Array(4);
    return leaves.map(([leaf, subleaf]) => {
      // SAFETY: the code above writes 16 bytes to `out`, which outlives this synchronous call, and
      // touches nothing else; the page is unmapped after the last one.
      koffi.call(BigInt(address), cpuidPrototype(), leaf, subleaf, out);
      const [eax = 0, ebx = 0, ecx = 0, edx = 0] = out;
      return { eax, ebx, ecx, edx };
    });
  } finally {
    munmap(address, PAGE);
  }
}

let prototype: unknown;

function cpuidPrototype(): unknown {
  return (prototype ??= koffi.proto("void vmlet_cpuid(uint32_t leaf, uint32_t subleaf, void *out)"));
}
