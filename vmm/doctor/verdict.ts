// What `vmlet boot` will use on this host, why, and what would make it better.
import { CHECKS } from "./all-checks.js";
import type { Area, Finding } from "./checks.js";
import type { HostView } from "./host-view.js";

export interface Verdict {
  readonly accelerator: "kvm" | "lab" | "none";
  readonly reason: string;
  /** Cures, the most important first; empty if nothing is known. */
  readonly better: readonly string[];
}

export function decide({ kvm }: Pick<HostView, "kvm">, findings: readonly Finding[]): Verdict {
  const inArea = (area: Area): Finding[] =>
    findings.filter(({ code, status }) => status !== "ok" && CHECKS.some((c) => c.code === code && c.area === area));
  const cures = (found: readonly Finding[]): string[] =>
    [...found.filter(({ status }) => status === "bad"), ...found.filter(({ status }) => status === "note")].flatMap(
      ({ cure }) => cure ?? [],
    );

  const host = inArea("host");
  if (host.length > 0) {
    return { accelerator: "none", reason: host.map(({ detail }) => detail).join("; "), better: cures(host) };
  }
  const inTheWay = inArea("kvm");
  const isUsable = kvm.failure === undefined && !inTheWay.some(({ status }) => status === "bad");
  if (isUsable && kvm.quirks === undefined) {
    return { accelerator: "kvm", reason: "it has hardware virtualization behind it", better: [] };
  }
  if (isUsable) {
    const reason = "it emulates guest kernel code, and what it cannot emulate is done by hand: a boot takes seconds";
    return { accelerator: "kvm", reason, better: cures(inTheWay) };
  }
  const why = "/dev/kvm cannot be used";
  const lab = inArea("lab");
  if (lab.length === 0) return { accelerator: "lab", reason: why, better: cures(inTheWay) };
  return {
    accelerator: "none",
    reason: `${why}, and the lab is not complete`,
    better: cures([...inTheWay, ...lab]),
  };
}
