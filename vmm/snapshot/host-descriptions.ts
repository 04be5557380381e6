// One CPU template from what `vmlet doctor --json` says on several hosts.
import { StateError, StateReader } from "../../devices/state.js";
import { ConfigError } from "../errors.js";
import { cpuidFromData } from "../kvm/vcpu-data.js";
import { formatCpuTemplate } from "../machine/cpu-template-file.js";
import { commonTemplate, type TemplateHost } from "../x86/common-template.js";
import { vendorOf } from "../x86/cpu-features.js";

export interface HostDescription {
  readonly path: string;
  /** JSON, of `vmlet doctor --json`. */
  readonly text: string;
}

const MAX_ENTRIES = 256;

/** The template as a file. Throws ConfigError, with what is wrong with every host. */
export function templateOfHosts(descriptions: readonly HostDescription[]): string {
  const problems: string[] = [];
  const hosts = descriptions.flatMap(({ path, text }) => {
    const host = readHost(path, text);
    if (typeof host !== "string") return [{ path, ...host }];
    problems.push(host);
    return [];
  });
  const [first] = hosts;
  const vendor = vendorOf(first?.supported ?? []);
  for (const { path, supported } of hosts) {
    const other = vendorOf(supported);
    if (other === vendor) continue;
    problems.push(`${path}: ${other}; ${first?.path ?? ""}: ${vendor}; no template makes their processors alike`);
  }
  if (problems.length > 0) throw new ConfigError(problems);
  return formatCpuTemplate(commonTemplate("", vendor, hosts));
}

/** Or what is wrong with it. */
function readHost(path: string, text: string): TemplateHost | string {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch {
    return `${path}: no JSON; write it with: vmlet doctor --json > ${path}`;
  }
  try {
    const cpu = new StateReader(json, path).at("cpu");
    if (cpu.isNull) return `${path}: there is no /dev/kvm that can be used on that host`;
    if (cpu.boolean("software")) {
      return `${path}: that host's KVM has no hardware virtualization; its guests see the processor itself, whatever a template says`;
    }
    return {
      supported: cpu.list("cpuid", { minimum: 1, maximum: MAX_ENTRIES }).map(cpuidFromData),
      archCapabilities: cpu.hex64("arch_capabilities"),
    };
  } catch (error) {
    if (error instanceof StateError) return `${error.message}; write it with: vmlet doctor --json`;
    throw error;
  }
}
