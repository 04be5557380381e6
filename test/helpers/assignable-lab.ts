// A lab with an IOMMU and devices to give away, and a shell in it. The host's own drivers have what they know of them.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { guestFile } from "../../vmm/host/guest-files.js";
import { packageInputs } from "../../vmm/lab/checkout.js";
import { labBase } from "../../vmm/lab/image.js";
import { missingLabPrograms } from "../../vmm/lab/programs.js";
import { LabSession } from "../../vmm/lab/session.js";
import { withDmaProgram } from "./guest-programs.js";
import { LAB_ENVIRONMENT, LAB_PROGRAM, LAB_PROGRAM_INPUTS } from "./lab-program.js";
import { skip } from "./skip.js";

/** Of a disk whose contents are nobody's. */
const DISK_BYTES = 96 * 2 ** 20;
/** A guest that takes longer hangs. */
export const GUEST_LIMIT_S = 500;

const BOOT = `timeout ${String(GUEST_LIMIT_S)} ${LAB_PROGRAM} boot --accel kvm --quiet`;
const ENVIRONMENT = {
  ...LAB_ENVIRONMENT,
  BOOT: `${BOOT} --kernel /input/vmlinuz --initrd /input/initrd --memory 160`,
  OWN: `${BOOT} --kernel /input/vmlinux --initrd /input/initrd --memory 128`,
};

export interface AssignableLab {
  /** The output of a script: $VMLET is the program, $BOOT boots a guest with Debian's kernel, $OWN one with vmlet's own. */
  readonly shell: (script: string) => Promise<string>;
}

/** Of a suite: a lab that is there while its tests run, or the reason why they are skipped. */
export function assignableLab(): AssignableLab {
  let lab: LabSession | undefined;
  let folder = "";
  before(async function () {
    const missing = missingLabPrograms();
    if (missing.length > 0) skip(this, `the lab lacks ${missing.join(", ")}`);
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    lab = await startLab(folder);
  });
  after(async () => {
    await lab?.close();
    rmSync(folder, { recursive: true, force: true });
  });
  return {
    shell: async (script) => {
      assert.ok(lab !== undefined);
      const { stdout } = await lab.run({ argv: ["sh", "-c", script], env: ENVIRONMENT, stdin: "" });
      return stdout.toString("latin1").replaceAll("\r", "");
    },
  };
}

/** `folder` takes what it is made of. */
async function startLab(folder: string): Promise<LabSession> {
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
    ...LAB_PROGRAM_INPUTS,
  ];
  return LabSession.start({ packageRoot, memoryMib: 1792, cpus: 2, inputs, nvmeDisk });
}
