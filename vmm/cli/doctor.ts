// `vmlet doctor`: what this host can do, for people and for programs.
import { CHECKS, PASSTHROUGH_CHECKS, lookAt } from "../doctor/all-checks.js";
import type { Finding, Status } from "../doctor/checks.js";
import type { CpuDescription } from "../doctor/cpu-description.js";
import { fixScript } from "../doctor/fix-script.js";
import type { Capability } from "../doctor/host-view.js";
import { thisHost } from "../doctor/this-host.js";
import { decide, type Verdict } from "../doctor/verdict.js";
import { parseDoctor } from "./arguments.js";
import { EXIT_HOST, EXIT_LAB_ONLY } from "../host/exit-codes.js";
import { VERSION } from "../host/version.js";
import { print } from "../host/say.js";

/** Raised when a field goes or changes its meaning; new fields and codes do not raise it. */
const SCHEMA = 1;

/** The JSON of --json. */
export interface Diagnosis {
  readonly schema: number;
  readonly vmlet: string;
  readonly findings: readonly Finding[];
  readonly capabilities: readonly Capability[];
  /** Million guest kernel instructions a second, null if no KVM could be asked. */
  readonly guest_kernel_mips: number | null;
  /** What a guest can be shown of the processor; null if no KVM could be asked, or without --json. */
  readonly cpu: CpuDescription | null;
  readonly verdict: Verdict;
  readonly exit_code: number;
}

const MARKS: Readonly<Record<Status, string>> = { ok: "ok  ", note: "note", bad: "BAD " };
const EXIT_CODES: Readonly<Record<Verdict["accelerator"], number>> = { kvm: 0, lab: EXIT_LAB_ONLY, none: EXIT_HOST };

export async function doctor(argv: readonly string[]): Promise<number> {
  const { help, json, fix, passthrough } = parseDoctor(argv);
  if (help) {
    print((await import("./help.js")).DOCTOR_HELP);
    return 0;
  }
  const diagnosis = diagnose(passthrough, json ? (await import("../doctor/cpu-description.js")).describeCpu() : null);
  print(
    json
      ? `${JSON.stringify(diagnosis, null, 2)}\n`
      : fix
        ? fixScript(diagnosis.findings)
        : describeDiagnosis(diagnosis),
  );
  return diagnosis.exit_code;
}

function diagnose(passthrough: boolean, cpu: CpuDescription | null): Diagnosis {
  const host = thisHost();
  const findings = lookAt(host, passthrough ? [...CHECKS, ...PASSTHROUGH_CHECKS] : CHECKS);
  const verdict = decide(host, findings);
  return {
    schema: SCHEMA,
    vmlet: VERSION,
    findings,
    capabilities: host.kvm.capabilities,
    guest_kernel_mips: host.kvm.mips ?? null,
    cpu,
    verdict,
    exit_code: EXIT_CODES[verdict.accelerator],
  };
}

function describeDiagnosis({ findings, capabilities, verdict }: Diagnosis): string {
  const width = Math.max(...findings.map(({ title }) => title.length));
  const lines = findings.flatMap(({ status, title, detail, cure, code }) => [
    `${MARKS[status]}  ${title.padEnd(width)}  ${detail}${status === "bad" ? ` [${code}]` : ""}`,
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
