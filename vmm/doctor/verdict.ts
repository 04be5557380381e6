// What `vmlet boot` will use on this host, why, and what would make it better.
import type { Quirks } from "../fixups/quirks.js";
import type { Finding, Verdict } from "./checks.js";

export function decide(
  isUsable: boolean,
  quirks: Quirks | undefined,
  hasLab: boolean,
  findings: readonly Finding[],
): Verdict {
  const better = findings.flatMap(({ status, cure }) => (status === "ok" || cure === undefined ? [] : [cure]));
  if (isUsable && quirks === undefined) {
    return { accelerator: "kvm", reason: "it has hardware virtualization behind it", better: [] };
  }
  if (isUsable) {
    const reason = "it emulates guest kernel code, and what it cannot emulate is done by hand: a boot takes seconds";
    return { accelerator: "kvm", reason, better };
  }
  const why = "/dev/kvm cannot be used";
  if (hasLab) return { accelerator: "lab", reason: why, better };
  return { accelerator: "none", reason: `${why}, and the lab is not complete`, better };
}
