// struct kvm_cpuid2 and its entries, to and from plain objects. KVM api.rst §4.46.
import type { CpuidEntry } from "../x86/cpuid.js";
import { SIZEOF_KVM_CPUID2, SIZEOF_KVM_CPUID_ENTRY2, kvm_cpuid2, kvm_cpuid_entry2 as entry } from "../sys/kvm-abi.js";

export type { CpuidEntry };

export function decodeCpuid(list: DataView): CpuidEntry[] {
  const count = list.getUint32(kvm_cpuid2.nent, true);
  return Array.from({ length: count }, (_, i) => {
    const at = SIZEOF_KVM_CPUID2 + i * SIZEOF_KVM_CPUID_ENTRY2;
    return {
      function: list.getUint32(at + entry.function, true),
      index: list.getUint32(at + entry.index, true),
      flags: list.getUint32(at + entry.flags, true),
      eax: list.getUint32(at + entry.eax, true),
      ebx: list.getUint32(at + entry.ebx, true),
      ecx: list.getUint32(at + entry.ecx, true),
      edx: list.getUint32(at + entry.edx, true),
    };
  });
}

/** Clones have the same entries: they are encoded once. */
const encodedLists = new WeakMap<readonly CpuidEntry[], DataView>();

/** The entries never change. */
export function encodeCpuid(entries: readonly CpuidEntry[]): DataView {
  const known = encodedLists.get(entries);
  if (known !== undefined) return known;
  const list = new DataView(new ArrayBuffer(SIZEOF_KVM_CPUID2 + entries.length * SIZEOF_KVM_CPUID_ENTRY2));
  list.setUint32(kvm_cpuid2.nent, entries.length, true);
  entries.forEach((value, i) => {
    const at = SIZEOF_KVM_CPUID2 + i * SIZEOF_KVM_CPUID_ENTRY2;
    list.setUint32(at + entry.function, value.function, true);
    list.setUint32(at + entry.index, value.index, true);
    list.setUint32(at + entry.flags, value.flags, true);
    list.setUint32(at + entry.eax, value.eax, true);
    list.setUint32(at + entry.ebx, value.ebx, true);
    list.setUint32(at + entry.ecx, value.ecx, true);
    list.setUint32(at + entry.edx, value.edx, true);
  });
  encodedLists.set(entries, list);
  return list;
}
