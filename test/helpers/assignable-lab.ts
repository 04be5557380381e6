// A lab with an IOMMU and devices to give away, and a shell in it. The host's own drivers have what they know of them.
import { execFileSync } from "node:child_process";
import { truncateSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { guestFile } from "../../vmm/host/guest-files.js";
import { V8_FLAGS } from "../../vmm/host/v8-flags.js";
import { LAB_CLI, packageInputs } from "../../vmm/lab/checkout.js";
import { labBase } from "../../vmm/lab/image.js";
import { LabSession } from "../../vmm/lab/session.js";
import { withDmaProgram } from "./guest-programs.js";

/** Of a disk whose contents are nobody's. */
const DISK_BYTES = 96 * 2 ** 20;
/** A guest that takes longer hangs. */
export const GUEST_LIMIT_S = 500;

export interface AssignableLab {
  readonly lab: LabSession;
  /** The output of a script: $VMLET is the program, $BOOT boots a guest with Debian's kernel, $OWN one with vmlet's own. */
  readonly shell: (script: string) => Promise<string>;
}

/** `folder` takes what it is made of. */
export async function assignableLab(folder: string): Promise<AssignableLab> {
  const packageRoot = resolve(".");
  const nvmeDisk = join(folder, "nvme.img");
  writeFileSync(nvmeDisk, "");
  truncateSync(nvmeDisk, DISK_BYTES);
  const programs = ["nvme-functions", "dma"].map((name) => {
    const program = join(folder, name);
    execFileSync("gcc", ["-O2", "-Wall", "-Werror", "-static", "-o", program, `test/programs/${name}.c`]);
    return { from: program, to: name };
  });
  const base = await labBase(packageRoot);
  const inputs = [
    ...packageInputs(packageRoot),
    // It has NVMe's driver built in.
    { from: base.kernel, to: "vmlinuz" },
    { from: guestFile("default/vmlinux"), to: "vmlinux" },
    { from: withDmaProgram(folder), to: "initrd" },
    ...programs,
  ];
  const lab = await LabSession.start({ packageRoot, memoryMib: 1792, cpus: 2, inputs, nvmeDisk });
  const program = `node ${V8_FLAGS.join(" ")} ${LAB_CLI}`;
  const boot = `timeout ${String(GUEST_LIMIT_S)} ${program} boot --accel kvm --quiet`;
  const env = {
    VMLET: program,
    BOOT: `${boot} --kernel /input/vmlinuz --initrd /input/initrd --memory 160`,
    OWN: `${boot} --kernel /input/vmlinux --initrd /input/initrd --memory 128`,
  };
  return {
    lab,
    shell: async (script) => {
      const { stdout } = await lab.run({ argv: ["sh", "-c", script], env, stdin: "" });
      return stdout.toString("latin1").replaceAll("\r", "");
    },
  };
}
