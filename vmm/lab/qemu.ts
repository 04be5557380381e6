// The lab's AMD machine: QEMU's interpreter, which emulates AMD-V with nested paging. It boots, or goes on from a
// saved state (saved-state.ts); both are the same machine but for its RAM, which is a file in the second.
import { spawn } from "node:child_process";
import { closeSync, openSync } from "node:fs";
import { join } from "node:path";
import type { Duplex } from "node:stream";
import type { Emulator, LabDisk, LabMachine, LabOptions, MachineSize, SavedState } from "./emulator.js";
import { hostClock } from "./host-clock.js";
import type { LabBase } from "./image.js";
import { DiskError } from "../errors.js";
import { findProgram } from "../host/programs.js";
import { Monitor } from "./monitor.js";
import { emulatedDisk } from "./parts-description.js";

// KVM under TCG does not see the second level's XSETBV, so CPUID leaf 0xD would lie to it: no XSAVE at all.
// Without ERMS and FSRM, Linux copies by words and not by bytes, each of which the interpreter takes a turn of a loop for: pages are
// zeroed six times as fast, and pipes carry twice as much.
const CPU = "max,xsave=off,erms=off,fsrm=off";
/** What kvm_amd needs, and models of their own do not all have. */
const MODEL_FEATURES = "xsave=off,svm=on,npt=on,nrip-save=on";
// A processor of the lab that hangs in its kernel (seen now and then under TCG) ends the lab with a
// message; without softlockup_panic, the caller would wait for ever.
const CMDLINE =
  "console=ttyS0 quiet loglevel=4 panic=-1 softlockup_panic=1 mitigations=off random.trust_cpu=on rdinit=/init";
const MAX_COMPLAINT_CHARS = 4000;
/**
 * With an IOMMU: the host's own devices keep their addresses, which costs them nothing. The kernel does not look whether the timer
 * interrupts, which it takes for broken, and panics, where QEMU is slow.
 */
const IOMMU_WORDS = "intel_iommu=on iommu=pt no_timer_check";
/** Beside a processor with AMD-V, because it is the IOMMU that Debian's cloud kernel has; interrupts pass through it, too. */
const IOMMU_MACHINE = ["-machine", "q35,kernel-irqchip=split", "-device", "intel-iommu,intremap=on,caching-mode=on"];
/** Its queues and interrupts are what the virtual functions can be given. */
const NVME_CONTROLLER =
  "nvme,serial=vmlet,id=nvme0,bus=nvme-port,subsys=nvme-subsystem,sriov_max_vfs=4,sriov_vq_flexible=8,sriov_vi_flexible=4," +
  "max_ioqpairs=26,msix_qsize=20";
/** Behind the disk's. */
const FIRST_CARD_SLOT = 2;
/** It interrupts by MSI; its disk keeps nothing and reads as zeroes. */
const AHCI_CONTROLLER = [
  ...["-device", "ich9-ahci,id=ahci,addr=0xe", "-drive", "driver=null-co,size=64M,read-zeroes=on,if=none,id=zeroes"],
  ...["-device", "ide-hd,drive=zeroes,bus=ahci.0"],
];
/** What QEMU finds as its descriptors. */
const AGENT_FD = 3;
const MONITOR_FD = 4;
const STATE_FD = 5;
const PLUGGED = "OK";

export const QEMU: Emulator = {
  name: "QEMU",
  startLimitMs: 120_000,
  silenceMs: 60_000,
  check: () => undefined,
  start,
};

/** A machine and the line to its monitor. */
export interface MonitoredMachine extends LabMachine {
  readonly monitor: Monitor;
}

/** Of 32 on the bus. */
const FIRST_DISK_SLOT = 0x10;

/** Boots it. */
function start(options: LabOptions, base: LabBase, inputDisk: string, folder: string): LabMachine {
  const disks = (options.disks ?? []).flatMap((disk, index) => [
    ...["-drive", unpluggedDrive(disk, index, folder)],
    // Slots behind those of the base and the input disk: Linux names disks in the order of their slots.
    ...[
      "-device",
      `virtio-blk-pci,drive=${driveName(index)},id=${deviceName(index)},addr=0x${(FIRST_DISK_SLOT + index).toString(16)}`,
    ],
  ]);
  const model = options.model === undefined ? [] : modelArguments(options.model);
  const argv = [...machineArguments(options, base, inputDisk, folder), ...model, ...disks, ...nvmeArguments(options)];
  return withHotplug(withMonitor(launch(argv, { hasMonitor: true })), folder);
}

/**
 * Behind the others: of each option the last one counts. Two such hosts must agree on the rate of the counter that QEMU
 * gives both, this host's: each would measure it anew, and find another.
 */
function modelArguments(model: string): string[] {
  return ["-cpu", `${model},${MODEL_FEATURES}`, "-append", `${CMDLINE} ${clockWords()} hpet=disable pmtmr=0`];
}

/**
 * The time stamp counter, which QEMU passes through, is the clock of the lab, as on any host of today: without being told, the
 * kernel does not trust it, and each look at a clock is a system call and an access to an emulated timer.
 */
function clockWords(khz = hostClock().khz): string {
  return `tsc=reliable tsc_early_khz=${String(khz)}`;
}

/** As modelArguments. */
function nvmeArguments({ nvmeDisk }: LabOptions): string[] {
  if (nvmeDisk === undefined) return [];
  return [
    ...IOMMU_MACHINE,
    ...["-append", `${CMDLINE} ${clockWords()} ${IOMMU_WORDS}`],
    ...["-device", "pcie-root-port,id=nvme-port,chassis=1,slot=1", "-device", "nvme-subsys,id=nvme-subsystem"],
    ...["-drive", `file=${quoteComma(nvmeDisk)},format=raw,if=none,id=nvme-drive`, "-device", NVME_CONTROLLER],
    ...["-device", "nvme-ns,drive=nvme-drive,bus=nvme0,nsid=1,shared=on"],
    ...[0, 1].flatMap(networkCard),
    ...AHCI_CONTROLLER,
  ];
}

/** A whole card for a guest; all of them are on one wire, which leads nowhere else. */
function networkCard(index: number): string[] {
  const [wire, port, slot] = [`wire${String(index)}`, `card-port${String(index)}`, String(FIRST_CARD_SLOT + index)];
  return [
    ...["-netdev", `hubport,hubid=0,id=${wire}`],
    ...["-device", `pcie-root-port,id=${port},chassis=${slot},slot=${slot}`],
    ...["-device", `e1000e,netdev=${wire},bus=${port}`],
  ];
}

/** Boots one whose RAM is a file, so that its state can be saved. It has no disks of a run. */
export function startForSaving(
  size: MachineSize,
  base: LabBase,
  inputDisk: string,
  ram: string,
  folder: string,
): MonitoredMachine {
  const argv = [...machineArguments(size, base, inputDisk, folder), ...ramArguments(size, ram, "on")];
  return withMonitor(launch(argv, { hasMonitor: true }));
}

/** Goes on from a saved state, once its promise `running` resolves; disks are plugged in before. */
export function restore(
  state: SavedState,
  { disks = [] }: LabOptions,
  base: LabBase,
  inputDisk: string,
  folder: string,
): LabMachine {
  const fd = openSync(state.machine, "r");
  let machine: MonitoredMachine;
  try {
    const argv = [
      ...machineArguments(state.size, base, inputDisk, folder),
      ...ramArguments(state.size, state.ram, "off"),
    ];
    machine = withMonitor(launch([...argv, "-incoming", "defer"], { hasMonitor: true, stateFd: fd }));
  } finally {
    closeSync(fd);
  }
  return { ...withHotplug(machine, folder), running: goOn(machine.monitor, disks, folder) };
}

async function goOn(monitor: Monitor, disks: readonly LabDisk[], folder: string): Promise<void> {
  await monitor.migrate("load", `fd:${String(STATE_FD)}`);
  for (const [index, disk] of disks.entries()) await plug(monitor, disk, index, folder);
  await monitor.execute("cont");
}

function withHotplug({ monitor, ...machine }: MonitoredMachine, folder: string): LabMachine {
  return {
    ...machine,
    hotplug: {
      plug: (disk, index) => plug(monitor, disk, index, folder),
      unplug: async (index) => {
        // Its drive goes with it.
        await monitor.execute("device_del", { id: deviceName(index) });
      },
    },
  };
}

async function plug(monitor: Monitor, disk: LabDisk, index: number, folder: string): Promise<void> {
  const quoted = unpluggedDrive(disk, index, folder).replaceAll(/["\\]/g, "\\$&");
  const words = await monitor.executeLine(`drive_add 0 "${quoted}"`);
  if (words !== PLUGGED) throw new DiskError(`${disk.path} cannot be a disk of the lab: QEMU says: ${words}`);
  await monitor.execute("device_add", {
    driver: "virtio-blk-pci",
    drive: driveName(index),
    id: deviceName(index),
  });
}

interface Launched {
  readonly machine: LabMachine;
  readonly monitorPort: Duplex | undefined;
}

function withMonitor({ machine, monitorPort }: Launched): MonitoredMachine {
  if (monitorPort === undefined) throw new Error("A machine without a monitor");
  return { ...machine, monitor: new Monitor(monitorPort) };
}

function launch(
  argv: readonly string[],
  { hasMonitor = false, stateFd }: { readonly hasMonitor?: boolean; readonly stateFd?: number },
): Launched {
  const program = findProgram("qemu-system-x86_64") ?? "qemu-system-x86_64";
  // The agent turns the machine off when it finds this process gone; a machine that stands still cannot.
  const setpriv = findProgram("setpriv");
  const [file = program, ...words] = [
    ...(setpriv === undefined ? [] : [setpriv, "--pdeathsig", "KILL"]),
    program,
    ...argv,
    ...(hasMonitor ? ["-chardev", `socket,id=monitor,fd=${String(MONITOR_FD)}`, "-mon", "monitor,mode=control"] : []),
  ];
  const qemu = spawn(file, words, {
    // Its own group: a Ctrl-C at the terminal is for us to handle.
    detached: true,
    stdio: ["ignore", "ignore", "pipe", "pipe", hasMonitor ? "pipe" : "ignore", stateFd ?? "ignore"],
  });
  let complaints = "";
  qemu.stderr?.setEncoding("utf8").on("data", (text: string) => {
    complaints = (complaints + text).slice(-MAX_COMPLAINT_CHARS);
  });
  const port = qemu.stdio[AGENT_FD] as Duplex;
  const monitorPort = hasMonitor ? (qemu.stdio[MONITOR_FD] as Duplex) : undefined;
  const machine: LabMachine = {
    output: port,
    input: port,
    running: Promise.resolve(),
    ended: new Promise((resolve) => {
      qemu.once("close", resolve);
      qemu.once("error", (error) => {
        complaints += error.message;
        resolve();
      });
    }),
    kill: () => {
      port.destroy();
      monitorPort?.destroy();
      qemu.kill("SIGKILL");
    },
    complaints: () => complaints,
  };
  return { machine, monitorPort };
}

function quoteComma(path: string): string {
  return path.replaceAll(",", ",,");
}

/** The drive of the disk `index` of a run, which may be made of parts; no device has it yet. */
function unpluggedDrive(disk: LabDisk, index: number, folder: string): string {
  const { path, format } = emulatedDisk(disk, index, folder);
  return `${driveOptions({ ...disk, path }, format)},if=none,id=${driveName(index)}`;
}

function driveName(index: number): string {
  return `disk${String(index)}`;
}

function deviceName(index: number): string {
  return `device${String(index)}`;
}

function driveOptions({ path, isReadonly, cache, lock }: LabDisk, format = "raw"): string {
  const locking = lock ? "" : ",file.locking=off";
  const access = isReadonly ? "readonly=on" : `cache=${cache},discard=unmap,detect-zeroes=off`;
  return `file=${quoteComma(path)},format=${format},${access}${locking}`;
}

/** The same for a machine that is saved and one that goes on from there, but for the files' names and the clock's exact rate. */
export function machineArguments(
  { memoryMib, cpus }: MachineSize,
  base: LabBase,
  inputDisk: string,
  folder: string,
  khz?: number,
): string[] {
  const own = (path: string): string[] => [
    "-drive",
    `${driveOptions({ path, isReadonly: true, cache: "writeback", lock: true })},if=virtio`,
  ];
  return [
    ...["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"],
    ...["-machine", "pc", "-accel", "tcg,thread=multi", "-cpu", CPU],
    ...["-smp", String(cpus), "-m", String(memoryMib)],
    ...["-kernel", base.kernel, "-initrd", join(base.folder, "initrd.gz")],
    ...["-append", `${CMDLINE} ${clockWords(khz)}`],
    ...own(join(base.folder, "base.ext4")),
    ...own(inputDisk),
    ...["-chardev", `file,id=console,path=${quoteComma(join(folder, "console.log"))}`],
    ...["-serial", "chardev:console"],
    ...["-device", "virtio-serial-pci", "-chardev", `socket,id=agent,fd=${String(AGENT_FD)}`],
    ...["-device", "virtserialport,chardev=agent,name=vmlet.agent"],
  ];
}

/** `share`: what the machine writes goes to the file; else the file stays as it is, and is read page by page. */
function ramArguments({ memoryMib }: MachineSize, ram: string, share: "on" | "off"): string[] {
  const backend = `memory-backend-file,id=ram,size=${String(memoryMib)}M,mem-path=${quoteComma(ram)},share=${share}`;
  return ["-object", backend, "-machine", "memory-backend=ram"];
}
