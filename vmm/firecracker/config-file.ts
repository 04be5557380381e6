// --config-file: all sections of a microVM in one file, as Firecracker reads it.
import { readFileSync } from "node:fs";
import { checkSection } from "./check-section.js";
import { Fault } from "./fault.js";
import { asFault } from "./host-paths.js";
import type { Logger } from "./logger.js";
import type { MetricsWriter } from "./metrics.js";
import type { ConfigFile, CpuConfig } from "./sections.js";
import { isGiven, type Settings } from "./settings.js";
import { parseJson, parseJsonText } from "./strict-json.js";

/** Throws Fault, which names the file. */
export function readConfigFile(path: string): ConfigFile {
  return within(path, () => checkSection("FullVmConfiguration", parseJson(readBytes(path)), ""));
}

/** The metadata of a guest, from a file. Throws Fault. */
export function readMetadata(path: string): unknown {
  return within(path, () => parseJsonText(readBytes(path).toString("utf8"), { isFree: true }));
}

export interface ConfigTargets {
  readonly settings: Settings;
  readonly logger: Logger;
  readonly metrics: MetricsWriter;
  readonly id: string;
}

/** In the order in which they depend on each other. Throws Fault. */
export function applyConfig(file: ConfigFile, { settings, logger, metrics, id }: ConfigTargets): void {
  if (isGiven(file.logger)) logger.configure(file.logger);
  if (isGiven(file.metrics)) metrics.configure(file.metrics, id);
  const machine = file["machine-config"];
  if (isGiven(machine)) settings.setMachine(machine);
  const cpuConfig = file["cpu-config"];
  if (isGiven(cpuConfig)) settings.setCpuConfig(typeof cpuConfig === "string" ? readCpuConfig(cpuConfig) : cpuConfig);
  settings.setBootSource(file["boot-source"]);
  for (const drive of file.drives) settings.setDrive(drive);
  for (const net of file["network-interfaces"] ?? []) settings.setNet(net);
  if (isGiven(file.vsock)) settings.setVsock(file.vsock);
  if (isGiven(file.balloon)) settings.setBalloon(file.balloon);
  if (isGiven(file["mmds-config"])) settings.setMmdsConfig(file["mmds-config"]);
  if (isGiven(file.entropy)) settings.setEntropy(file.entropy);
  if ((file.pmem ?? []).length > 0) throw new Fault("pmem: vmlet has no pmem devices");
  if (isGiven(file["memory-hotplug"])) throw new Fault("memory-hotplug: vmlet has no memory that is plugged in later");
}

function readCpuConfig(path: string): CpuConfig {
  return within(path, () => checkSection("CpuConfig", parseJson(readBytes(path))));
}

function readBytes(path: string): Buffer {
  try {
    return readFileSync(path);
  } catch (error) {
    throw asFault(error, path);
  }
}

function within<Result>(path: string, read: () => Result): Result {
  try {
    return read();
  } catch (error) {
    if (!(error instanceof Fault) || error.message.startsWith(`${path}: `)) throw error;
    throw new Fault(`${path}: ${error.message.replace(/^: /, "").replace(/^The body/, "It")}`);
  }
}
