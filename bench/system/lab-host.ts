// One lab for a bench, with all that it runs in there, and the stopwatch around every command.
import { resolve } from "node:path";
import { LAB_CLI, packageInputs } from "../../vmm/lab/checkout.js";
import { labBase, type LabInput } from "../../vmm/lab/image.js";
import { LabSession } from "../../vmm/lab/session.js";
import { timeLimit } from "../../vmm/host/time-limit.js";
import { compileProgram } from "../programs.js";
import { DEBIAN_MIB, GUEST_MIB, type GuestImages } from "./guest.js";
import { V8_FLAGS } from "../../vmm/host/v8-flags.js";

const LAB_MEMORY_MIB = 1536;
const LAB_CPUS = 2;
/** One monitor from start to end, interpreted, `ms`. */
const MONITOR_LIMIT_MS = 120_000;

const INITRD = "/input/bench/initramfs.cpio";
export const OUR_KERNEL: GuestImages = { kernel: "/input/bench/vmlinux", initrd: INITRD, memoryMib: GUEST_MIB };
export const DEBIAN_KERNEL: GuestImages = { kernel: "/input/bench/debian", initrd: INITRD, memoryMib: DEBIAN_MIB };

export const LAB_NODE: readonly string[] = ["node", ...V8_FLAGS];
export const LAB_VMLET: readonly string[] = [...LAB_NODE, LAB_CLI];
export const LAB_MONITOR = "/input/bench/monitor";
export const LAB_QEMU = "qemu-system-x86_64";

export interface Timed {
  readonly wallMs: number;
  readonly stdout: string;
  readonly files: ReadonlyMap<string, Buffer>;
}

export class LabHost {
  readonly #session: LabSession;

  private constructor(session: LabSession) {
    this.#session = session;
  }

  /** `more`: further files; those that every bench needs are there. */
  static async start(more: readonly LabInput[] = []): Promise<LabHost> {
    const packageRoot = resolve(".");
    const base = await labBase(packageRoot);
    const inputs: LabInput[] = [
      ...packageInputs(packageRoot),
      { from: "guest/out/default/vmlinux", to: "bench/vmlinux" },
      { from: "guest/out/initramfs.cpio", to: "bench/initramfs.cpio" },
      { from: base.kernel, to: "bench/debian" },
      { from: compileProgram("monitor"), to: "bench/monitor" },
      { from: compileProgram("stopwatch"), to: "bench/stopwatch" },
      ...more,
    ];
    return new LabHost(await LabSession.start({ packageRoot, memoryMib: LAB_MEMORY_MIB, cpus: LAB_CPUS, inputs }));
  }

  /** Runs a program to its end; throws if its status is not in `statuses`. */
  async time(program: readonly string[], statuses: readonly number[] = [0]): Promise<Timed> {
    const limitS = timeLimit("a monitor in the lab", MONITOR_LIMIT_MS) / 1000;
    const argv = ["timeout", String(limitS), "/input/bench/stopwatch", "/output/time.json", ...program];
    const { stdout, stderr, files } = await this.#session.run({ argv, stdin: "" });
    const time = files.get("time.json");
    if (time === undefined) throw new Error(`does not end: ${stderr.toString("utf8").trim()}`);
    const { wall_ms, status } = JSON.parse(time.toString("utf8")) as { wall_ms: number; status: number };
    if (!statuses.includes(status)) {
      throw new Error(`ends with status ${String(status)}: ${stderr.toString("utf8").trim()}`);
    }
    return { wallMs: wall_ms, stdout: stdout.toString("utf8"), files };
  }

  async shell(script: string): Promise<ReadonlyMap<string, Buffer>> {
    const { status, stderr, files } = await this.#session.run({ argv: ["sh", "-c", script], stdin: "" });
    if (status !== 0) throw new Error(`status ${String(status)}: ${stderr.toString("utf8").trim()}`);
    return files;
  }

  close(): Promise<void> {
    return this.#session.close();
  }
}
