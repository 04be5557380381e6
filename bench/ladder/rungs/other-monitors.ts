// Firecracker and Cloud Hypervisor, if they are installed (Debian has no packages of them), with vmlet's
// kernel and initramfs. Both need VT-x or AMD-V.
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { detectProgram, program as hostProgram } from "../detect.js";
import type { Detection } from "../detect.js";
import { CPUS, MEMORY_MIB, VM_TIMEOUT_MS } from "../limits.js";
import type { Instance, Rung } from "../rung.js";
import { findProgram } from "../../../vmm/host/programs.js";
import { vmCmdline, vmKernel, whyNoHardware } from "../vm-guest.js";

function detectMonitor(name: string): Detection {
  if (findProgram(name) === undefined) return { missing: `${name} is not installed` };
  const reason = whyNoHardware();
  return reason === undefined ? detectProgram(name, name) : { missing: reason };
}

export const firecracker: Rung = {
  name: "firecracker",
  adds: "the same kernel and root under Firecracker",
  family: "vm",
  limits: "own",
  network: "tap",
  takesDisk: true,
  timeoutMs: VM_TIMEOUT_MS,
  detect: () => detectMonitor("firecracker"),
  open: (workspace) => {
    const files = new Map<string, string>();
    const fileFor = ({ program, disk, network }: Instance): string => {
      const key = program.join("\0");
      const known = files.get(key);
      if (known !== undefined) return known;
      const file = join(workspace.folder, `firecracker-${String(files.size)}.json`);
      const config = {
        "boot-source": {
          kernel_image_path: vmKernel(),
          initrd_path: workspace.initrd,
          boot_args: vmCmdline(program, "k"),
        },
        "machine-config": { vcpu_count: CPUS, mem_size_mib: MEMORY_MIB },
        drives:
          disk === undefined
            ? []
            : [{ drive_id: "disk", path_on_host: disk, is_root_device: false, is_read_only: false }],
        "network-interfaces": network?.kind === "tap" ? [{ iface_id: "net", host_dev_name: network.device }] : [],
      };
      writeFileSync(file, JSON.stringify(config));
      files.set(key, file);
      return file;
    };
    return {
      command: (instance) => [hostProgram("firecracker"), "--no-api", "--config-file", fileFor(instance)],
      accelerator: () => "hardware",
    };
  },
};

export const cloudHypervisor: Rung = {
  network: { none: "its devices are on a PCI bus, which vmlet's kernel does not have" },
  name: "cloud-hypervisor",
  adds: "the same kernel and root under Cloud Hypervisor",
  family: "vm",
  limits: "own",
  timeoutMs: VM_TIMEOUT_MS,
  detect: () => detectMonitor("cloud-hypervisor"),
  open: (workspace) => ({
    command: ({ program }) => [
      hostProgram("cloud-hypervisor"),
      ...["--kernel", vmKernel(), "--initramfs", workspace.initrd, "--cmdline", vmCmdline(program, "switch-off")],
      ...["--memory", `size=${String(MEMORY_MIB)}M`, "--cpus", `boot=${String(CPUS)}`],
      ...["--serial", "tty", "--console", "off"],
    ],
    accelerator: () => "hardware",
  }),
};
