// `vmlet boot` through the lab: the same command in there, with the same files and result.
import type { BootOptions } from "../cli/arguments.js";
import { packageRoot } from "../cli/guest-files.js";
import type { Report } from "../cli/report.js";
import type { ResolvedConfig } from "../config/types.js";
import { LAB_CLI, packageInputs } from "./checkout.js";
import { runInLab } from "./connect.js";
import type { LabInput } from "./image.js";

/** What the lab itself needs beside the guest's memory, `MiB`: kernel, Node, page cache. */
export const LAB_OWN_MIB = 640;
const LAB_CPUS = 2;
const KERNEL = "/input/boot/kernel";
const INITRD = "/input/boot/initrd";
const REPORT = "report.json";

/** The result is the exit code of the command in the lab. */
export async function bootInLab(options: BootOptions, config: ResolvedConfig): Promise<number> {
  const inputs: LabInput[] = [...packageInputs(packageRoot()), { from: config.kernel, to: "boot/kernel" }];
  if (config.initrd !== undefined) inputs.push({ from: config.initrd, to: "boot/initrd" });
  const result = await runInLab(
    {
      packageRoot: packageRoot(),
      memoryMib: LAB_OWN_MIB + config.memoryMib,
      cpus: Math.max(LAB_CPUS, Math.min(config.cpus + 1, 8)),
      inputs,
    },
    { argv: labArguments(options, config) },
  );
  const report = result.files.get(REPORT);
  if (options.report !== undefined && report !== undefined) {
    const { writeReport } = await import("../cli/report.js");
    return writeReport(options.report, withUsersPath(report, config));
  }
  return result.status;
}

function labArguments(options: BootOptions, config: ResolvedConfig): string[] {
  const argv = ["node", "--no-rehash-snapshot", LAB_CLI, "boot", "--accel", "kvm"];
  argv.push("--kernel", KERNEL, ...(config.initrd === undefined ? ["--no-initrd"] : ["--initrd", INITRD]));
  // The command line is complete already: what this process knows of the terminal is in it.
  argv.push("--bare-cmdline", "--cmdline", config.cmdline);
  argv.push("--memory", String(config.memoryMib), "--cpus", String(config.cpus), "--protocol", config.protocol);
  if (config.nested) argv.push("--nested");
  if (options.report !== undefined) argv.push("--report", `/output/${REPORT}`);
  return argv;
}

/** The report as the lab wrote it, with the kernel's path on this host. */
function withUsersPath(bytes: Buffer, config: ResolvedConfig): Report {
  const report = JSON.parse(bytes.toString("utf8")) as Report;
  return { ...report, kernel: { ...report.kernel, path: config.kernel } };
}
