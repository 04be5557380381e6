// The lab's AMD machine: QEMU's interpreter, which emulates AMD-V with nested paging.
import { spawn } from "node:child_process";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import type { Emulator, LabMachine, LabOptions } from "./emulator.js";
import type { LabBase } from "./image.js";
import { findProgram } from "../host/programs.js";

// KVM under TCG does not see the second level's XSETBV, so CPUID leaf 0xD would lie to it: no XSAVE at all.
const CPU = "max,xsave=off";
// A processor of the lab that hangs in its kernel (seen now and then under TCG) ends the lab with a
// message; without softlockup_panic, the caller would wait for ever.
const CMDLINE =
  "console=ttyS0 quiet loglevel=4 panic=-1 softlockup_panic=1 mitigations=off random.trust_cpu=on rdinit=/init";
const MAX_COMPLAINT_CHARS = 4000;

export const QEMU: Emulator = {
  name: "QEMU",
  startLimitMs: 120_000,
  silenceMs: 60_000,
  check: () => undefined,
  start,
};

function start(options: LabOptions, base: LabBase, inputDisk: string, folder: string): LabMachine {
  const program = findProgram("qemu-system-x86_64") ?? "qemu-system-x86_64";
  const qemu = spawn(program, qemuArguments(options, base, inputDisk, folder), {
    // Its own group: a Ctrl-C at the terminal is for us to handle.
    detached: true,
    stdio: ["ignore", "ignore", "pipe", "pipe"],
  });
  let complaints = "";
  qemu.stderr?.setEncoding("utf8").on("data", (text: string) => {
    complaints = (complaints + text).slice(-MAX_COMPLAINT_CHARS);
  });
  const port = qemu.stdio[3] as Duplex;
  return {
    output: port,
    input: port,
    ended: new Promise((resolve) => {
      qemu.once("close", resolve);
      qemu.once("error", (error) => {
        complaints += error.message;
        resolve();
      });
    }),
    kill: () => {
      port.destroy();
      qemu.kill("SIGKILL");
    },
    complaints: () => complaints,
  };
}

function qemuArguments(
  { memoryMib, cpus, disks = [] }: LabOptions,
  base: LabBase,
  inputDisk: string,
  folder: string,
): string[] {
  const drive = (file: string, options: string): string[] => [
    "-drive",
    `file=${file.replaceAll(",", ",,")},format=raw,if=virtio,${options}`,
  ];
  const disk = (file: string): string[] => drive(file, "readonly=on");
  return [
    ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
    ...["-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", CPU],
    ...["-smp", String(cpus), "-m", String(memoryMib)],
    ...["-kernel", base.kernel, "-initrd", join(base.folder, "initrd.gz")],
    ...["-append", CMDLINE],
    ...disk(join(base.folder, "base.ext4")),
    ...disk(inputDisk),
    ...disks.flatMap(({ path, isReadonly, cache, lock }) => {
      const locking = lock ? "" : ",file.locking=off";
      return drive(path, `${isReadonly ? "readonly=on" : `cache=${cache},discard=unmap,detect-zeroes=off`}${locking}`);
    }),
    ...["-chardev", `file,id=console,path=${join(folder, "console.log").replaceAll(",", ",,")}`],
    ...["-serial", "chardev:console"],
    ...["-device", "virtio-serial-pci", "-chardev", "socket,id=agent,fd=3"],
    ...["-device", "virtserialport,chardev=agent,name=vmlet.agent"],
  ];
}
