// The lab's Intel machine: Bochs, which interprets a processor with VT-x and EPT. Unlike QEMU it has
// only one processor, no virtio, and only serial lines to talk through.
import { spawn, spawnSync } from "node:child_process";
import { constants, openSync, readFileSync, statSync, symlinkSync, writeFileSync } from "node:fs";
import { Socket } from "node:net";
import { join, resolve } from "node:path";
import { ConfigError, LabError } from "../errors.js";
import { diskGeometry, type Geometry } from "./disk-geometry.js";
import type { Emulator, LabDisk, LabMachine, LabOptions } from "./emulator.js";
import type { LabBase } from "./image.js";
import { BOCHS_BIOS, BOCHS_VGA_BIOS } from "./programs.js";
import { findProgram } from "../host/programs.js";

/** Two IDE channels of two disks each, less the lab's own. */
const MAX_DISKS = 2;
/** Bochs refuses more, `MiB`. */
const MAX_MEMORY_MIB = 2048;
/** Instructions a second of the emulated clock; near what Bochs reaches, so that time passes as it does outside. */
const INSTRUCTIONS_PER_SECOND = 100_000_000;
const CPU_MODEL = "corei7_skylake_x";
const MAX_COMPLAINTS = 5;

export const BOCHS: Emulator = {
  name: "Bochs",
  startLimitMs: 900_000,
  silenceMs: 300_000,
  check,
  start,
};

function check({ memoryMib, disks = [] }: LabOptions): void {
  const problems: string[] = [];
  if (memoryMib > MAX_MEMORY_MIB) {
    const limit = `${String(memoryMib)} MiB for host and guest are more than the ${String(MAX_MEMORY_MIB)} that Bochs has`;
    problems.push(`The Intel lab is too small: ${limit}`);
  }
  if (disks.length > MAX_DISKS) {
    problems.push(`${String(disks.length)} disks are more than the ${String(MAX_DISKS)} of the Intel lab`);
  }
  for (const { path, format } of disks) {
    if (format === "parts") {
      problems.push(`${path} is a disk of parts, which the Intel lab cannot have`);
      continue;
    }
    if (!statSync(path).isFile()) problems.push(`${path} is not a file, which the disks of the Intel lab must be`);
    else if (diskGeometry(statSync(path).size) === undefined) problems.push(`${path} has a size that no IDE disk has`);
  }
  if (problems.length > 0) throw new ConfigError(problems);
}

function start(options: LabOptions, base: LabBase, inputDisk: string, folder: string): LabMachine {
  const output = join(folder, "from-agent");
  const input = join(folder, "to-agent");
  const log = join(folder, "bochs.log");
  const made = spawnSync("mkfifo", ["-m", "600", output, input], { encoding: "utf8" });
  if (made.status !== 0) throw new LabError(`mkfifo could not make the lab's lines: ${made.stderr}`);
  const configuration = join(folder, "bochsrc");
  writeFileSync(configuration, bochsConfiguration(options, base, inputDisk, folder));
  // Debian's Bochs has its debugger in, which would wait for a command.
  const commands = join(folder, "debugger-commands");
  writeFileSync(commands, "c\n");

  const fromAgent = openLine(output, { readable: true });
  const toAgent = openLine(input, { writable: true });
  // A serial line does not tell the agent that this process is gone: the kernel must end Bochs then.
  const bochs = spawn(
    findProgram("setpriv") ?? "setpriv",
    ["--pdeathsig", "KILL", findProgram("bochs-bin") ?? "bochs-bin", "-q", "-f", configuration, "-rc", commands],
    // Bochs draws the machine's screen for a terminal of this kind; nobody sees it.
    { detached: true, stdio: "ignore", env: { ...process.env, TERM: "xterm" } },
  );
  let failure = "";
  return {
    output: fromAgent,
    input: toAgent,
    running: Promise.resolve(),
    ended: new Promise((done) => {
      const end = (): void => {
        fromAgent.destroy();
        toAgent.destroy();
        done();
      };
      bochs.once("close", end);
      bochs.once("error", (error) => {
        failure = error.message;
        end();
      });
    }),
    kill: () => {
      bochs.kill("SIGKILL");
    },
    complaints: () => failure || panics(log),
  };
}

/** Opened for reading and writing: open(2) then does not wait for the other end, and a close there ends nothing. */
function openLine(path: string, use: { readable: true } | { writable: true }): Socket {
  const fd = openSync(path, constants.O_RDWR | constants.O_NONBLOCK);
  // A writer must not read back what it has written.
  const line = new Socket({ fd, readable: "readable" in use, writable: "writable" in use });
  // Errors of it show as the end of Bochs.
  line.on("error", () => undefined);
  return line;
}

function panics(log: string): string {
  let text: string;
  try {
    text = readFileSync(log, "latin1");
  } catch {
    return "";
  }
  const lines = text.split("\n").filter((line) => line.includes(">>PANIC<<"));
  return lines
    .slice(0, MAX_COMPLAINTS)
    .map((line) => `Bochs: ${line.replace(/^.*>>PANIC<< /, "")}`)
    .join("\n");
}

function bochsConfiguration(
  { memoryMib, disks = [] }: LabOptions,
  base: LabBase,
  inputDisk: string,
  folder: string,
): string {
  const own = (path: string): LabDisk => ({ path, isReadonly: true, cache: "unsafe", lock: false });
  const drives = [own(join(base.folder, "base.img")), own(inputDisk), ...disks];
  return [
    `megs: ${String(memoryMib)}`,
    // MSRs that a newer Linux tries are read as zero, as on hardware that has them.
    `cpu: model=${CPU_MODEL}, ips=${String(INSTRUCTIONS_PER_SECOND)}, ignore_bad_msrs=1`,
    `romimage: file=${BOCHS_BIOS}`,
    `vgaromimage: file=${BOCHS_VGA_BIOS}`,
    ...drives.map((disk, index) => drive(disk, index, folder)),
    "boot: disk",
    "display_library: term",
    // Without it, a guest that waits would make Bochs busy for nothing.
    "clock: sync=slowdown",
    `log: ${join(folder, "bochs.log")}`,
    ...["info: action=ignore", "error: action=ignore", "panic: action=fatal"],
    `com1: enabled=1, mode=file, dev=${join(folder, "from-agent")}`,
    `com2: enabled=1, mode=term, dev=${join(folder, "to-agent")}`,
    `com3: enabled=1, mode=file, dev=${join(folder, "console.log")}`,
    "",
  ].join("\n");
}

/** The configuration line of disk `index`; Bochs forgets what is written to a read-only one. */
function drive({ path, isReadonly }: LabDisk, index: number, folder: string): string {
  // Bochs makes its lock file next to the image, and its configuration cannot express a comma.
  const link = join(folder, `disk${String(index)}`);
  symlinkSync(resolve(path), link);
  const at = `ata${String(index >> 1)}-${index % 2 === 0 ? "master" : "slave"}`;
  const mode = isReadonly ? `mode=volatile, journal=${link}.journal` : "mode=flat";
  const geometry = diskGeometry(statSync(path).size);
  if (geometry === undefined) throw new LabError(`${path} has a size that no IDE disk has`);
  return `${at}: type=disk, ${mode}, path=${link}, ${formatGeometry(geometry)}`;
}

function formatGeometry({ cylinders, heads, sectors }: Geometry): string {
  return `cylinders=${String(cylinders)}, heads=${String(heads)}, spt=${String(sectors)}`;
}
