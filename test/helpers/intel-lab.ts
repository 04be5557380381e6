// `vmlet boot` on VT-x: one Intel lab for all tests that want it. Its start costs half a minute
// or more, whatever runs in it.
import { resolve } from "node:path";
import type { Report } from "../../vmm/cli/report.js";
import { LAB_CLI, packageInputs } from "../../vmm/lab/checkout.js";
import type { LabResult } from "../../vmm/lab/command.js";
import { LabSession } from "../../vmm/lab/session.js";
import { countBoot } from "./booted.js";
import { describeRunning } from "./running.js";
import { V8_FLAGS } from "../../vmm/host/v8-flags.js";

const MEMORY_MIB = 1024;
/** A guest that has not ended by then never will, seconds of the lab's clock. */
const LIMIT_S = 300;
const KERNEL = "/input/kernels/vmlinux";
const INITRAMFS = "/input/kernels/initramfs.cpio";

export interface IntelBoot {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly report: Report | undefined;
}

export class IntelLab {
  readonly #session: LabSession;

  private constructor(session: LabSession) {
    this.#session = session;
  }

  static async start(): Promise<IntelLab> {
    const packageRoot = resolve(".");
    const inputs = [
      ...packageInputs(packageRoot),
      { from: "guest/out/default/vmlinux", to: "kernels/vmlinux" },
      { from: "guest/out/initramfs.cpio", to: "kernels/initramfs.cpio" },
    ];
    const options = { cpu: "intel", packageRoot, memoryMib: MEMORY_MIB, cpus: 1, inputs } as const;
    let step = "Bochs interprets the firmware and the kernel";
    let lastLife: number | undefined;
    describeRunning(() => {
      const heard =
        lastLife === undefined ? "" : `, heard of ${String(Math.round((performance.now() - lastLife) / 1000))} s ago`;
      return `${step}${heard}`;
    });
    const session = await LabSession.start(options, {
      onProgress: (text) => (step = `the lab is starting: ${text}`),
      onLife: () => (lastLife = performance.now()),
    });
    step = "the lab is at it";
    return new IntelLab(session);
  }

  /** A shell command on the emulated host. */
  shell(script: string, stdin = ""): Promise<LabResult> {
    return this.#session.run({ argv: ["sh", "-c", script], stdin });
  }

  /** `vmlet boot` of the package's kernel with these arguments and a report. */
  async boot(args: readonly string[]): Promise<IntelBoot> {
    const { status, stdout, stderr, files } = await this.#session.run({
      argv: [
        ...["timeout", String(LIMIT_S), "node", ...V8_FLAGS, LAB_CLI, "boot", "--accel", "kvm"],
        ...["--report", "/output/report.json", "--kernel", KERNEL, "--initrd", INITRAMFS, "--quiet", ...args],
      ],
      stdin: "",
    });
    const bytes = files.get("report.json");
    const report = bytes === undefined ? undefined : (JSON.parse(bytes.toString("utf8")) as Report);
    if (report?.phases_ms.first_run_to_init != null) countBoot();
    return { status, stdout: stdout.toString("latin1"), stderr: stderr.toString("latin1"), report };
  }

  close(): Promise<void> {
    describeRunning(undefined);
    return this.#session.close();
  }
}
