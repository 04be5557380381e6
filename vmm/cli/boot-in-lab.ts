// `vmlet boot` through the lab: the same command in there, with the same files and result.
import type { BootOptions } from "./arguments.js";
import { CPU_TEMPLATE_NAMES } from "../config/defaults.js";
import { formatBalloon } from "./balloon-argument.js";
import { formatDisk } from "./disk-argument.js";
import type { Report } from "./report.js";
import type { ResolvedConfig } from "../config/types.js";
import { openDisks } from "../virtio/attach/disks.js";
import { closeDiskFile } from "../virtio/backends/disk-file.js";
import { ConfigError } from "../errors.js";
import { runInLab } from "../lab/connect.js";
import type { LabCpu } from "../lab/cpu.js";
import { formatInLab, LAB_INITRD, LAB_KERNEL, labOfGuest } from "../lab/guest-inputs.js";
import { PAUSE_SIGNALS } from "../sys/end-signals.js";
import { labDiskPath } from "../lab/disks.js";

const CPU_TEMPLATE = "/input/boot/cpu-template";
const REPORT = "report.json";
const METRICS = "metrics.jsonl";

/** The result is the exit code of the command in the lab. */
export async function bootInLab(options: BootOptions, config: ResolvedConfig, cpu: LabCpu): Promise<number> {
  refuseHostDevices(options, config);
  // Checked here, so that messages have the user's own paths, not those in the lab.
  const files = openDisks(config.disks);
  const closeFiles = (): void => {
    for (const file of files.splice(0)) closeDiskFile(file);
  };
  // QEMU takes the same locks itself; Bochs takes none, and these stay until it has ended.
  if (cpu === "amd") closeFiles();
  const lab = labOfGuest(config);
  const template = isTemplateFile(config) ? [{ from: config.cpuTemplate, to: "boot/cpu-template" }] : [];
  const result = await runInLab(
    { ...lab, cpu, inputs: [...lab.inputs, ...template] },
    { argv: labArguments(options, config), isVmlet: true, outlives: PAUSE_SIGNALS },
  ).finally(closeFiles);
  const report = result.files.get(REPORT);
  const metrics = result.files.get(METRICS);
  const { writeReport, writeWhole } = await import("./report.js");
  if (options.metrics !== undefined && metrics !== undefined) {
    await writeWhole("--metrics", options.metrics, metrics, result.status);
  }
  if (options.report !== undefined && report !== undefined) {
    return writeReport(options.report, { ...withUsersPath(report, config), exit_code: result.status });
  }
  return result.status;
}

function isTemplateFile<Config extends ResolvedConfig>(
  config: Config,
): config is Config & { readonly cpuTemplate: string } {
  const { cpuTemplate } = config;
  return cpuTemplate !== undefined && !CPU_TEMPLATE_NAMES.some((name) => name === cpuTemplate);
}

/** The lab is a host of its own: an interface or a socket of it would lead nowhere. */
function refuseHostDevices({ configFile, control }: BootOptions, { nets, vsock, shares, vfio }: ResolvedConfig): void {
  const given = [
    ...(nets.length > 0 ? [configFile === undefined ? "--net" : "network-interfaces"] : []),
    ...(vsock === undefined ? [] : [configFile === undefined ? "--vsock" : "vsock"]),
    ...(shares.length > 0 ? ["--share"] : []),
    ...(vfio.length > 0 ? ["--vfio"] : []),
    ...(control === undefined ? [] : ["--control"]),
  ];
  if (given.length === 0) return;
  throw new ConfigError([
    `${given.join(" and ")} cannot reach this host from the lab: leave it out, or use a host with a /dev/kvm`,
  ]);
}

function labArguments(options: BootOptions, config: ResolvedConfig): string[] {
  const argv = ["boot", "--accel", "kvm"];
  argv.push("--kernel", LAB_KERNEL, ...(config.initrd === undefined ? ["--no-initrd"] : ["--initrd", LAB_INITRD]));
  // The command line is complete already: it has what this process knows of the terminal.
  argv.push("--bare-cmdline", "--cmdline", config.cmdline);
  argv.push("--memory", String(config.memoryMib), "--cpus", String(config.cpus), "--protocol", config.protocol);
  if (config.nested) argv.push("--nested");
  if (config.pci) argv.push("--pci");
  if (config.cpuTemplate !== undefined) {
    argv.push("--cpu-template", isTemplateFile(config) ? CPU_TEMPLATE : config.cpuTemplate);
  }
  // The command line also names the root disk already.
  config.disks.forEach((disk, index) => {
    argv.push("--disk", formatDisk({ ...disk, format: formatInLab(disk.format) }, labDiskPath(index)));
  });
  if (config.console === "virtio") argv.push("--console", "virtio");
  if (config.rng) argv.push("--rng");
  if (config.balloon !== undefined) argv.push("--balloon", formatBalloon(config.balloon));
  if (options.report !== undefined) argv.push("--report", `/output/${REPORT}`);
  if (options.metrics !== undefined) argv.push("--metrics", `/output/${METRICS}`);
  return argv;
}

/** The report as the lab wrote it, with the kernel's path on this host. */
function withUsersPath(bytes: Buffer, config: ResolvedConfig): Report {
  const report = JSON.parse(bytes.toString("utf8")) as Report;
  return { ...report, kernel: { ...report.kernel, path: config.kernel } };
}
