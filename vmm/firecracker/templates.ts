// What opens the CPU template of a configuration: one by its name, or the custom one of the settings.
import type { ResolvedConfig } from "../config/types.js";
import type { BuildOptions } from "../machine/builder.js";
import type { Settings } from "./settings.js";
import { CUSTOM_TEMPLATE } from "./vm-config.js";

export async function cpuTemplateOpener(
  { cpuTemplate }: ResolvedConfig,
  { cpuConfig }: Settings,
): Promise<BuildOptions["openCpuTemplate"]> {
  if (cpuTemplate === undefined) return undefined;
  const { openCpuTemplate, parseCpuTemplate } = await import("../machine/cpu-template-file.js");
  if (cpuTemplate !== CUSTOM_TEMPLATE) return openCpuTemplate;
  const { cpuid_modifiers, msr_modifiers } = cpuConfig ?? {};
  return () => parseCpuTemplate(JSON.stringify({ cpuid_modifiers, msr_modifiers }), "cpu-config");
}
