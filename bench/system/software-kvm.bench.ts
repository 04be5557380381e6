// What a software KVM costs (DESIGN.md, "A KVM without hardware virtualization"): a whole boot
// directly on this host, one fixed-up system call, and what QEMU makes of the same KVM.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { probeQuirks } from "../../vmm/fixups/probe.js";
import { MSR_LSTAR, MSR_STAR, MSR_SYSCALL_MASK } from "../../vmm/fixups/syscall.js";
import { KvmSystem } from "../../vmm/kvm/system.js";
import { findProgram } from "../../vmm/host/programs.js";
import { timeLimit } from "../../vmm/host/time-limit.js";
import type { Report } from "../../vmm/cli/report.js";
import { KERNEL_PAGES_GPA, REPORT, kernelGuest } from "../../test/helpers/kernel-guest.js";
import { measure, type Bench, type BenchContext, type BenchResult, type Variant } from "../harness.js";
import { acceleratorInWords } from "../stamp.js";
import { GUEST_MIB, qemuArguments } from "./guest.js";

const SYSCALLS = 500;
const BOOT_LIMIT_MS = 300_000;
const QEMU_LIMIT_MS = 30_000;
const QEMU_CPU = "host,-arch-capabilities";

/** User code that runs natively, and a kernel of one instruction. */
function systemCall(): Variant {
  return {
    name: "SYSCALL and SYSRET",
    turn: () => {
      const count = [SYSCALLS & 0xff, SYSCALLS >> 8, 0, 0];
      // mov ebx, SYSCALLS; again: syscall; dec ebx; jnz again; mov [rdi], eax
      const guest = kernelGuest({ code: [0xbb, ...count, 0x0f, 0x05, 0xff, 0xcb, 0x75, 0xfa, ...REPORT], cpl: 3 });
      try {
        guest.memory.slice(KERNEL_PAGES_GPA, 3).set([0x48, 0x0f, 0x07]); // sysretq
        guest.vcpu.setMsrs([
          [MSR_STAR, (0x23n << 48n) | (0x10n << 32n)],
          [MSR_LSTAR, BigInt(KERNEL_PAGES_GPA)],
          [MSR_SYSCALL_MASK, 0n],
        ]);
        guest.rearm();
        const started = process.hrtime.bigint();
        const { fixups } = guest.run(1);
        const ns = Number(process.hrtime.bigint() - started);
        if (fixups.syscall !== SYSCALLS) throw new Error(`${String(fixups.syscall)} calls were fixed up`);
        return { fixed_up_syscall_us: ns / SYSCALLS / 1000 };
      } finally {
        guest.close();
      }
    },
  };
}

function boot(folder: string, name: string, extra: readonly string[]): Variant {
  const report = join(folder, "report.json");
  return {
    name,
    turn: () => {
      const argv = ["boot", "--accel", "kvm", "--quiet", "--report", report, ...extra, "--", "true"];
      const { status, stderr } = spawnSync("dist/vmlet.js", argv, {
        stdio: ["ignore", "ignore", "pipe"],
        timeout: timeLimit("a boot", BOOT_LIMIT_MS),
        encoding: "utf8",
      });
      if (status !== 0) throw new Error(`Exit status ${String(status)}: ${stderr}`);
      const { phases_ms, exits, fixups } = JSON.parse(readFileSync(report, "utf8")) as Report;
      return {
        process_to_first_run_ms: phases_ms.process_to_first_run ?? Number.NaN,
        first_run_to_init_ms: phases_ms.first_run_to_init ?? Number.NaN,
        init_to_exit_ms: phases_ms.init_to_exit ?? Number.NaN,
        exits_total: exits["total"] ?? 0,
        fixups_total: Object.values(fixups).reduce((sum, count) => sum + count, 0),
      };
    },
  };
}

/** QEMU on the same KVM and kernel: recorded as what it does. */
function qemuSays(): string {
  const qemu = findProgram("qemu-system-x86_64");
  if (qemu === undefined) return "QEMU is not installed.";
  const images = {
    kernel: resolve("guest/out/default/vmlinux"),
    initrd: resolve("guest/out/initramfs.cpio"),
    memoryMib: GUEST_MIB,
  };
  const argv = qemuArguments(images, ["true"], QEMU_CPU);
  const { stdout, stderr, signal } = spawnSync(qemu, argv, { timeout: QEMU_LIMIT_MS, encoding: "utf8" });
  const said = `${stderr}${stdout}`.split("\n").find((line) => /KVM|error|Error/.test(line));
  return `QEMU microvm on the same KVM: ${said?.trim() ?? `nothing within ${String(QEMU_LIMIT_MS / 1000)} s`}${signal === null ? "" : ` (ended by us after ${String(QEMU_LIMIT_MS / 1000)} s)`}`;
}

function hasQuirks(): boolean {
  const system = KvmSystem.open();
  try {
    return probeQuirks(system) !== undefined;
  } finally {
    system.close();
  }
}

async function run(context: BenchContext): Promise<BenchResult> {
  if (!hasQuirks()) {
    const error = "this host's KVM has hardware virtualization behind it";
    return { series: [], failures: [{ variant: "all", error }], targets: [], notes: [] };
  }
  const folder = mkdtempSync(join(tmpdir(), "vmlet-bench-"));
  try {
    const tiny = ["--initrd", "guest/out/tiny.cpio"];
    const measured = await measure(
      [
        systemCall(),
        boot(folder, "fast kernel, init alone", tiny),
        boot(folder, "fast kernel, busybox", []),
        boot(folder, "kernel for hardware, init alone", [...tiny, "--kernel", "guest/out/default/vmlinux"]),
      ],
      context,
    );
    return {
      ...measured,
      targets: [],
      notes: [acceleratorInWords(), `${String(GUEST_MIB)} MiB of guest RAM.`, qemuSays()],
    };
  } finally {
    rmSync(folder, { recursive: true });
  }
}

export const softwareKvm: Bench = {
  name: "software-kvm",
  about: "boots directly on a KVM that emulates kernel code, and one fixed-up system call",
  run,
};
