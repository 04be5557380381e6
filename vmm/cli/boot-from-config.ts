// `vmlet boot --config-file FILE`: a microVM as Firecracker's configuration file describes it, with the terminal, report and exit codes
// of `vmlet boot`. Loaded where there is such a file.
import { MAX_BODY_BYTES } from "../firecracker/command-line.js";
import { readConfigFile, applyConfig } from "../firecracker/config-file.js";
import { Fault } from "../firecracker/fault.js";
import { Logger } from "../firecracker/logger.js";
import { MetricsWriter } from "../firecracker/metrics.js";
import { Settings } from "../firecracker/settings.js";
import { cpuTemplateOpener } from "../firecracker/templates.js";
import { vmConfig } from "../firecracker/vm-config.js";
import { ConfigError } from "../errors.js";
import type { ResolvedConfig } from "../config/types.js";
import type { BuildOptions } from "../machine/builder.js";
import { parseBoot, type BootOptions } from "./arguments.js";
import { UsageError } from "./usage-error.js";

/** What else may be given: what is no part of the machine. */
const BESIDES = ["configFile", "report", "metrics", "control", "jail", "accel", "quiet", "help"];

/** Throws UsageError for options that the file has. */
export function checkBesides(options: BootOptions): void {
  const defaults: Readonly<Record<string, unknown>> = { ...parseBoot([]) };
  const given = Object.entries(options).filter(
    ([name, value]) => !BESIDES.includes(name) && JSON.stringify(value) !== JSON.stringify(defaults[name]),
  );
  if (given.length > 0) {
    const names = given.map(([name]) => name).join(", ");
    throw new UsageError(`vmlet boot: --config-file has the whole machine; leave ${names} out`);
  }
}

export interface ConfiguredBoot {
  readonly config: ResolvedConfig;
  readonly openCpuTemplate: BuildOptions["openCpuTemplate"];
}

/** Throws ConfigError. */
export async function configuredBoot(path: string, isSoftwareKvm: boolean): Promise<ConfiguredBoot> {
  try {
    const settings = new Settings({ maxBytes: MAX_BODY_BYTES });
    const logger = new Logger("vmlet", "vmlet");
    const metrics = new MetricsWriter(logger);
    // Log and metrics are those of vmlet boot.
    applyConfig({ ...readConfigFile(path), logger: null, metrics: null }, { settings, logger, metrics, id: "vmlet" });
    const config = vmConfig(settings, { isSoftwareKvm });
    return { config, openCpuTemplate: await cpuTemplateOpener(config, settings) };
  } catch (error) {
    if (error instanceof Fault) throw new ConfigError([error.message]);
    throw error;
  }
}
