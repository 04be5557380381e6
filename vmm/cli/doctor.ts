// `vmlet doctor`: what this host can do, for people and for programs.
import type { Diagnosis, Status } from "../doctor/checks.js";
import { cgroupFinding, cpuFinding, engineFinding, labFinding, moduleFinding } from "../doctor/host-findings.js";
import { kvmFindings } from "../doctor/kvm-findings.js";
import { decide } from "../doctor/verdict.js";
import { parseDoctor } from "./arguments.js";
import { EXIT_HOST } from "./exit-codes.js";
import { VERSION } from "./version.js";

const MARKS: Readonly<Record<Status, string>> = { ok: "ok  ", note: "note", bad: "BAD " };

export async function doctor(argv: readonly string[]): Promise<number> {
  const { help, json } = parseDoctor(argv);
  if (help) {
    process.stdout.write((await import("./help.js")).DOCTOR_HELP);
    return 0;
  }
  const diagnosis = diagnose();
  process.stdout.write(json ? `${JSON.stringify(diagnosis, null, 2)}\n` : describe(diagnosis));
  return diagnosis.verdict.accelerator === "none" ? EXIT_HOST : 0;
}

function diagnose(): Diagnosis {
  const kvm = kvmFindings();
  const lab = labFinding();
  const findings = [cpuFinding(), moduleFinding(), ...kvm.findings, cgroupFinding(), engineFinding(), lab];
  return {
    vmlet: VERSION,
    findings,
    capabilities: kvm.capabilities,
    guest_kernel_mips: kvm.mips ?? null,
    verdict: decide(kvm.isUsable, kvm.quirks, lab.status === "ok", findings),
  };
}

function describe({ findings, capabilities, verdict }: Diagnosis): string {
  const width = Math.max(...findings.map(({ title }) => title.length));
  const lines = findings.flatMap(({ status, title, detail, cure }) => [
    `${MARKS[status]}  ${title.padEnd(width)}  ${detail}`,
    ...(cure === undefined ? [] : [`      ${"".padEnd(width)}  what helps: ${cure}`]),
  ]);
  const asked = capabilities.map(({ name, present }) => `${name.replace("KVM_CAP_", "")} ${present ? "yes" : "no"}`);
  if (asked.length > 0) lines.push("", `Capabilities: ${asked.join(", ")}`);
  const better = verdict.better.length === 0 ? "" : `; better with: ${verdict.better.join("; or ")}`;
  const use = {
    kvm: "vmlet boot uses this host's /dev/kvm",
    lab: "vmlet boot uses the lab, an emulated host",
    none: "vmlet boot does not work here",
  }[verdict.accelerator];
  return `${lines.join("\n")}\n\n${use}: ${verdict.reason}${better}.\n`;
}
