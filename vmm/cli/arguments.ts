// argv -> options of one command; values that need more than a string
// are read here, with the value and the limit in the message.
import type { BalloonConfig } from "../config/balloon.js";
import type { DiskConfig } from "../config/disks.js";
import type { NetConfig } from "../config/nets.js";
import type { BootProtocol, ConsoleKind } from "../config/types.js";
import type { ShareConfig } from "../config/shares.js";
import type { VsockConfig } from "../config/vsock.js";
import { JAIL_MODES, type JailMode } from "../config/jail-modes.js";
import { ACCELERATORS, type AcceleratorChoice } from "../lab/accelerator.js";
import { LAB_CPUS, type LabCpu } from "../lab/cpu.js";
import { parseBalloon } from "./balloon-argument.js";
import { parseBytes, parseWhole } from "./numbers.js";
import { parseDisk } from "./disk-argument.js";
import { parseOptions } from "./parse-options.js";
import { UsageError } from "./usage-error.js";
import { parseNet } from "./net-argument.js";
import { parseShare } from "./share-argument.js";
import { parseVsock } from "./vsock-argument.js";

const PROTOCOLS: readonly BootProtocol[] = ["auto", "linux64", "pvh"];
const MIB = 2 ** 20;
const COMMAND_HINT = '; a COMMAND follows "--"';
const CONSOLES: readonly ConsoleKind[] = ["serial", "virtio"];

export interface BootOptions {
  readonly kernel: string | undefined;
  readonly initrd: string | undefined;
  readonly noInitrd: boolean;
  readonly cmdline: string | undefined;
  readonly bareCmdline: boolean;
  readonly memoryMib: number | undefined;
  readonly cpus: number | undefined;
  readonly accel: AcceleratorChoice;
  readonly protocol: BootProtocol;
  readonly nested: boolean;
  readonly pci: boolean;
  readonly vfio: readonly string[];
  readonly cpuTemplate: string | undefined;
  readonly disks: readonly DiskConfig[];
  readonly nets: readonly NetConfig[];
  readonly vsock: VsockConfig | undefined;
  readonly console: ConsoleKind;
  readonly rng: boolean;
  readonly balloon: BalloonConfig | undefined;
  readonly shares: readonly ShareConfig[];
  readonly report: string | undefined;
  readonly metrics: string | undefined;
  readonly control: string | undefined;
  readonly jail: JailMode;
  readonly fromTemplate: boolean;
  /** Of Firecracker's form. */
  readonly configFile: string | undefined;
  readonly quiet: boolean;
  readonly help: boolean;
  readonly command: readonly string[];
}

/** As Node's parseArgs takes them. */
export const BOOT_FLAGS = {
  kernel: { type: "string", short: "k" },
  initrd: { type: "string", short: "i" },
  "no-initrd": { type: "boolean" },
  cmdline: { type: "string", short: "c" },
  "bare-cmdline": { type: "boolean" },
  memory: { type: "string", short: "m" },
  cpus: { type: "string" },
  accel: { type: "string" },
  protocol: { type: "string" },
  nested: { type: "boolean" },
  pci: { type: "boolean" },
  vfio: { type: "string", multiple: true },
  "cpu-template": { type: "string" },
  disk: { type: "string", multiple: true },
  net: { type: "string", multiple: true },
  vsock: { type: "string" },
  console: { type: "string" },
  rng: { type: "boolean" },
  balloon: { type: "string" },
  share: { type: "string", multiple: true },
  report: { type: "string" },
  metrics: { type: "string" },
  control: { type: "string" },
  jail: { type: "string" },
  "from-template": { type: "boolean" },
  "config-file": { type: "string" },
  quiet: { type: "boolean", short: "q" },
  help: { type: "boolean", short: "h" },
} as const;

/** Everything after the first `--` is the guest's command; before it only options may stand. */
function split(argv: readonly string[]): [options: string[], command: string[]] {
  const at = argv.indexOf("--");
  return at < 0 ? [[...argv], []] : [argv.slice(0, at), argv.slice(at + 1)];
}

export function parseBoot(argv: readonly string[]): BootOptions {
  const [args, command] = split(argv);
  const { values } = parseOptions(args, BOOT_FLAGS, "vmlet boot", { hint: COMMAND_HINT });
  if (values["no-initrd"] === true && values.initrd !== undefined) {
    throw new UsageError(`vmlet boot: --no-initrd and --initrd ${values.initrd} contradict each other`);
  }
  if (command[0] === "") throw new UsageError("vmlet boot: the COMMAND after -- begins with an empty word");
  return {
    kernel: values.kernel,
    initrd: values.initrd,
    noInitrd: values["no-initrd"] ?? false,
    cmdline: values.cmdline,
    bareCmdline: values["bare-cmdline"] ?? false,
    memoryMib: values.memory === undefined ? undefined : parseMemory(values.memory),
    cpus: values.cpus === undefined ? undefined : parseCount("--cpus", values.cpus),
    accel: oneOf("--accel", values.accel ?? "auto", ACCELERATORS),
    protocol: oneOf("--protocol", values.protocol ?? "auto", PROTOCOLS),
    nested: values.nested ?? false,
    pci: values.pci ?? false,
    vfio: (values.vfio ?? []).map(parseVfio),
    cpuTemplate: values["cpu-template"],
    disks: (values.disk ?? []).map(parseDisk),
    nets: (values.net ?? []).map(parseNet),
    vsock: values.vsock === undefined ? undefined : parseVsock(values.vsock),
    console: oneOf("--console", values.console ?? "serial", CONSOLES),
    rng: values.rng ?? false,
    balloon: values.balloon === undefined ? undefined : parseBalloon(values.balloon),
    shares: (values.share ?? []).map(parseShare),
    report: values.report,
    metrics: values.metrics,
    control: values.control,
    jail: oneOf("--jail", values.jail ?? "off", JAIL_MODES),
    fromTemplate: values["from-template"] ?? false,
    configFile: values["config-file"],
    quiet: values.quiet ?? false,
    help: values.help ?? false,
    command,
  };
}

/** As Node's parseArgs takes them. */
export const LAB_FLAGS = {
  cpu: { type: "string" },
  model: { type: "string" },
  nvme: { type: "string" },
  help: { type: "boolean", short: "h" },
} as const;

/** As QEMU names processors: EPYC-Rome, Opteron_G3. */
const MODEL = /^[A-Za-z0-9][A-Za-z0-9_.-]*$/;

export function parseLab(argv: readonly string[]): {
  help: boolean;
  cpu: LabCpu;
  model: string | undefined;
  nvme: string | undefined;
  command: string[];
} {
  const [args, command] = split(argv);
  const { values } = parseOptions(args, LAB_FLAGS, "vmlet lab");
  const cpu = oneOf("--cpu", values.cpu ?? "amd", LAB_CPUS);
  const { model, nvme } = values;
  if (model !== undefined && !MODEL.test(model)) {
    throw new UsageError(`--model ${JSON.stringify(model)} is not a processor's name, such as EPYC or Opteron_G3`);
  }
  if (model !== undefined && cpu !== "amd") throw new UsageError("--model is for --cpu amd: Bochs has one processor");
  if (nvme !== undefined && cpu !== "amd") throw new UsageError("--nvme is for --cpu amd: Bochs has no IOMMU");
  return { help: values.help ?? false, cpu, model, nvme, command };
}

/** As Node's parseArgs takes them. */
export const STATS_FLAGS = {
  follow: { type: "boolean", short: "f" },
  json: { type: "boolean" },
  help: { type: "boolean", short: "h" },
} as const;

export function parseStats(argv: readonly string[]): {
  help: boolean;
  json: boolean;
  follow: boolean;
  file: string | undefined;
} {
  const { values, positionals } = parseOptions([...argv], STATS_FLAGS, "vmlet stats", { allowPositionals: true });
  const [file, ...more] = positionals;
  if (values.help !== true && (file === undefined || file === "" || more.length > 0)) {
    throw new UsageError("vmlet stats: give one FILE, the one of --metrics");
  }
  return { help: values.help ?? false, json: values.json ?? false, follow: values.follow ?? false, file };
}

/** As Node's parseArgs takes them. */
export const BALLOON_FLAGS = { help: { type: "boolean", short: "h" } } as const;

export function parseBalloonCommand(argv: readonly string[]): { help: boolean; socket: string; targetMib: number } {
  const { values, positionals } = parseOptions([...argv], BALLOON_FLAGS, "vmlet balloon", { allowPositionals: true });
  if (values.help === true) return { help: true, socket: "", targetMib: 0 };
  const [socket = "", mib = "", ...more] = positionals;
  if (socket === "" || mib === "" || more.length > 0) {
    throw new UsageError("vmlet balloon: give SOCKET, that of --control, and MIB");
  }
  return { help: false, socket, targetMib: parseCount("vmlet balloon: MIB", mib) };
}

/** As Node's parseArgs takes them; of `vmlet pause` and `vmlet resume`. */
export const PAUSE_FLAGS = { help: { type: "boolean", short: "h" } } as const;

export function parsePause(command: "pause" | "resume", argv: readonly string[]): { help: boolean; socket: string } {
  const { values, positionals } = parseOptions([...argv], PAUSE_FLAGS, `vmlet ${command}`, { allowPositionals: true });
  if (values.help === true) return { help: true, socket: "" };
  const [socket = "", ...more] = positionals;
  if (socket === "" || more.length > 0) throw new UsageError(`vmlet ${command}: give SOCKET, that of --control`);
  return { help: false, socket };
}

/** As Node's parseArgs takes them. */
export const DOCTOR_FLAGS = {
  json: { type: "boolean" },
  fix: { type: "boolean" },
  passthrough: { type: "boolean" },
  help: { type: "boolean", short: "h" },
} as const;

export interface DoctorOptions {
  readonly json: boolean;
  readonly fix: boolean;
  readonly passthrough: boolean;
  readonly help: boolean;
}

export function parseDoctor(argv: readonly string[]): DoctorOptions {
  const { values } = parseOptions([...argv], DOCTOR_FLAGS, "vmlet doctor");
  const { json = false, fix = false, passthrough = false, help = false } = values;
  if (json && fix) throw new UsageError("vmlet doctor: --json has the commands, too: leave --fix out");
  return { json, fix, passthrough, help };
}

/** MiB, or a number with a unit: 256, 256M, 2G, 1.5GiB. */
export function parseMemory(text: string): number {
  const bytes = parseBytes(text, MIB);
  if (bytes === undefined) throw new UsageError(`--memory ${text}: not a size; give MiB (256) or a unit (512M, 2G)`);
  const mib = bytes / MIB;
  if (!Number.isInteger(mib)) throw new UsageError(`--memory ${text}: not a whole number of MiB`);
  return mib;
}

/** The rest is said of a configuration. */
function parseVfio(text: string): string {
  if (text === "") throw new UsageError('--vfio "": give the address of a PCI device, such as 0000:01:00.1');
  return text;
}

function parseCount(flag: string, text: string): number {
  const count = parseWhole(text);
  if (count === undefined) throw new UsageError(`${flag} ${text}: not a whole number`);
  return count;
}

function oneOf<T extends string>(flag: string, value: string, allowed: readonly T[]): T {
  const found = allowed.find((candidate) => candidate === value);
  if (found === undefined) throw new UsageError(`${flag} ${value}: not one of ${allowed.join(", ")}`);
  return found;
}
