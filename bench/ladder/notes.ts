// Plain words under the figures: where they come from, and what they can and cannot tell.
import type { LadderResult } from "./result.js";

export function notesOf(result: LadderResult): string[] {
  const accelerators = new Set(result.rungs.flatMap(({ accelerator }) => accelerator ?? []));
  const has = (word: string): boolean => [...accelerators].some((name) => name.includes(word));
  const notes = [...result.notes];
  notes.push(
    "Every rung runs the same static program in the same root directory, with 128 MiB of memory and one CPU. " +
      'The row "process" is the floor: it contains what the measuring itself costs.',
  );
  if (has("software KVM")) {
    notes.push(
      "VMs on a software KVM: the guest's programs run at full speed, but each instruction of the guest's kernel is " +
        "emulated. Boot, system calls, page faults and processes are then some hundred to a thousand times slower than " +
        "on VT-x or AMD-V; those figures say nothing about hardware. Integer and memory work, and the monitor's own start, do.",
    );
  }
  if (has("TCG")) {
    notes.push(
      "VMs under QEMU TCG are interpreted, user and kernel code alike: their figures compare with each other, not with hardware.",
    );
  }
  if (result.stages.work !== undefined) {
    notes.push(
      "A rung whose root file system is in memory (VMs have an initramfs) has no figures for the disk, and its files are not comparable.",
    );
  }
  if (result.stages.memory !== undefined) {
    notes.push(
      "Memory is the proportional set size of all processes that an instance adds; the kernel's own memory is not in it.",
    );
  }
  if (result.quick) notes.push("A quick run: few rounds, for a first look, not for figures to keep.");
  return notes;
}
