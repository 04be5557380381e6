// What a guest's run writes beside the guest, checked before anything is opened: no file of the guest's or of somebody
// else's is overwritten. Only who asks for such a file pays for the code.
import type { NamedPath } from "./output-paths.js";

export interface Outputs {
  readonly report: string | undefined;
  readonly metrics: string | undefined;
  readonly control: string | undefined;
  readonly vsock: string | undefined;
}

/** Throws ConfigError or UnwritableError. `inputs`: what the guest is made of. */
export async function checkOutputs(
  { report, metrics, control, vsock }: Outputs,
  inputs: readonly NamedPath[],
): Promise<void> {
  if (report === undefined && metrics === undefined && control === undefined && vsock === undefined) return;
  const { checkClashes, checkWritable } = await import("./output-paths.js");
  const named = (option: string, path: string | undefined) => (path === undefined ? [] : [{ option, path }]);
  const files = [...named("--report", report), ...named("--metrics", metrics)];
  checkClashes([...files, ...named("--control", control), ...named("--vsock", vsock)], inputs);
  const { METRICS_BEGIN } = await import("./metrics.js");
  const { REPORT_BEGIN } = await import("./report.js");
  for (const file of files) {
    checkWritable({ ...file, begins: file.option === "--report" ? REPORT_BEGIN : METRICS_BEGIN });
  }
}
