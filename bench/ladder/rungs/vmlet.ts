// vmlet, cold: a process, a VM, a kernel that boots, init, the program. And restored: from the same guest's template.
import { existsSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { join } from "node:path";
import { packageRoot } from "../../../vmm/host/guest-files.js";
import { VERSION } from "../../../vmm/host/version.js";
import type { Report } from "../../../vmm/cli/report.js";
import type { Detection } from "../detect.js";
import type { OpenRung, Rung } from "../rung.js";
import { CPUS, MEMORY_MIB, VM_TIMEOUT_MS } from "../limits.js";
import type { Workspace } from "../workspace.js";
import { whyNoHardware } from "../vm-guest.js";
import type { Sample } from "../../harness.js";
import { labInWords } from "../../stamp.js";

/** A stock kernel unpacks itself and needs more. */
const DEBIAN_MEMORY_MIB = 256;
const DEBIAN_KERNEL = /^vmlinuz-6\..*-amd64$/;

const ACCELERATORS: Readonly<Record<string, string>> = {
  "kvm-intel": "hardware (VT-x)",
  "kvm-amd": "hardware (AMD-V)",
  "kvm-pvm": "software KVM",
};

function vmletProgram(): string {
  return join(packageRoot(), "dist/vmlet.js");
}

/** Phases of one boot, by the monitor's own report, `ms`. */
function phases({ phases_ms: ms, exits }: Report): Sample {
  const known: [string, number | null][] = [
    ["phase_monitor_ms", ms.process_to_first_run],
    ["phase_kernel_ms", ms.first_run_to_init],
    ["phase_init_ms", ms.init_to_command],
    ["phase_program_ms", ms.command],
    ["phase_exit_ms", ms.command_to_exit],
  ];
  return {
    ...Object.fromEntries(known.filter((entry): entry is [string, number] => entry[1] !== null)),
    exits_count: exits["total"] ?? 0,
  };
}

function open(workspace: Workspace, options: readonly string[], memoryMib: number): OpenRung {
  let accelerator: string | undefined;
  return {
    command: ({ name, program, disk, network }) => [
      vmletProgram(),
      ...[
        "boot",
        "--quiet",
        "--initrd",
        workspace.initrd,
        ...options,
        "--memory",
        String(memoryMib),
        "--cpus",
        String(CPUS),
      ],
      ...(disk === undefined ? [] : ["--disk", `path=${disk}`]),
      ...(network?.kind === "tap" ? ["--net", `tap=${network.device}`] : []),
      ...["--report", join(workspace.folder, `${name}.json`), "--", ...program],
    ],
    ended: (name) => {
      const report = JSON.parse(readFileSync(join(workspace.folder, `${name}.json`), "utf8")) as Report;
      const { kind, lab } = report.accelerator;
      accelerator = lab ? labInWords(kind) : (ACCELERATORS[kind] ?? kind);
      return phases(report);
    },
    remove: (names) => {
      for (const name of names) rmSync(join(workspace.folder, `${name}.json`), { force: true });
    },
    accelerator: () => accelerator,
  };
}

export function detectVmlet(): Detection {
  return existsSync(vmletProgram()) ? { version: `vmlet ${VERSION}` } : { missing: "dist/vmlet.js is not built" };
}

/** Newest of the host's own kernels, or undefined. */
function debianKernel(): string | undefined {
  const names = readdirSync("/boot").filter((name) => DEBIAN_KERNEL.test(name));
  const newest = names.sort().at(-1);
  return newest === undefined ? undefined : join("/boot", newest);
}

export const vmlet: Rung = {
  name: "vmlet",
  adds: "a kernel of its own, on virtual hardware",
  family: "vm",
  limits: "own",
  network: "tap",
  takesDisk: true,
  timeoutMs: VM_TIMEOUT_MS,
  detect: detectVmlet,
  open: (workspace) => open(workspace, [], MEMORY_MIB),
};

/** Its first start, which is no round, boots the template. A guest that could write to a disk would find it changed. */
export const vmletRestored: Rung = {
  name: "vmlet-restored",
  adds: "the same guest, from a snapshot of it taken when its program had been started",
  family: "vm",
  limits: "own",
  network: { none: "its init sets up the network before the snapshot, and the TAP interfaces come after it" },
  timeoutMs: VM_TIMEOUT_MS,
  detect: detectVmlet,
  open: (workspace) => open(workspace, ["--from-template"], MEMORY_MIB),
};

export const vmletDebian: Rung = {
  name: "vmlet-debian",
  adds: "the same with Debian's stock kernel",
  family: "vm",
  limits: "own",
  network: { none: "Debian's kernel has its drivers in modules, and the initramfs has none" },
  timeoutMs: VM_TIMEOUT_MS,
  detect: () => {
    const found = detectVmlet();
    if ("missing" in found) return found;
    const reason = whyNoHardware();
    if (reason !== undefined) return { missing: reason };
    const kernel = debianKernel();
    return kernel === undefined ? { missing: "no Debian kernel in /boot" } : { version: `${found.version}, ${kernel}` };
  },
  open: (workspace) => open(workspace, ["--kernel", debianKernel() ?? ""], DEBIAN_MEMORY_MIB),
};
