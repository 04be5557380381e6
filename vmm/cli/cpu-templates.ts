// What opens CPU templates: loaded where there is one.
import type { ResolvedConfig } from "../config/types.js";
import type { BuildOptions } from "../machine/builder.js";

export async function cpuTemplates({ cpuTemplate }: ResolvedConfig): Promise<BuildOptions["openCpuTemplate"]> {
  return cpuTemplate === undefined ? undefined : (await import("../machine/cpu-template-file.js")).openCpuTemplate;
}
