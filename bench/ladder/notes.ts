// The notes under the figures: where they come from, and what they can and cannot tell.
import type { LadderResult } from "./result.js";

/** What a run's accelerators can and cannot tell about hardware. */
export function accelerationNotes(result: LadderResult): string[] {
  const accelerators = new Set(result.rungs.flatMap(({ accelerator }) => accelerator ?? []));
  const has = (word: string): boolean => [...accelerators].some((name) => name.includes(word));
  const notes: string[] = [];
  if (has("software KVM")) {
    notes.push(
      "VMs on a software KVM: the guest's programs run at full speed, but each instruction of the guest's kernel is " +
        "emulated. Boot, system calls, page faults and processes are then some hundred to a thousand times slower than " +
        "on VT-x or AMD-V; those figures say nothing about hardware. Integer and memory work, and the monitor's own start, do. " +
        'vmlet boots its kernel "fast" there, which has fewer instructions to emulate; other monitors get its usual one.',
    );
  }
  if (has("TCG")) {
    notes.push(
      "VMs under QEMU TCG are interpreted, user and kernel code alike: their figures compare with each other, not with hardware.",
    );
  }
  return notes;
}

export function notesOf(result: LadderResult): string[] {
  const notes = [...result.notes];
  notes.push(
    "Every rung runs the same static program in the same root directory, with 128 MiB of memory and one CPU. " +
      'The row "process" is the floor: it contains what the measuring itself costs.',
  );
  notes.push(...accelerationNotes(result));
  const unlimited = result.rungs.filter(({ limits, skipped }) => limits === "none" && skipped === null);
  if (unlimited.length > 0) {
    notes.push(`Not root: no limits of memory and CPU on ${unlimited.map(({ name }) => name).join(", ")}.`);
  }
  if (result.stages.work !== undefined) {
    notes.push(
      "Files and disk: a VM has an ext4 file system of its own on a virtio disk, a file of the host in the folder where the other " +
        "rungs have their files; one that Docker starts has Docker's files, shared by virtio-fs or the like. What a VM reads past its own page " +
        "cache may still come from the host's.",
    );
  }
  if (result.stages.memory !== undefined) {
    notes.push(
      "Memory is the proportional set size of all processes that an instance adds. What the host's kernel keeps for it (page tables, " +
        "namespaces, control groups, KVM) is only in what the host has less of, and so is whatever else took memory meanwhile.",
    );
  }
  if (result.quick) notes.push("A quick run: few rounds, for a first look, not for figures to keep.");
  return notes;
}
