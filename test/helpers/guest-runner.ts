// Runs `vmlet boot` where a real kernel boots: on this host if it has hardware virtualization,
// else in labs: one that all tests share, and one for each boot that needs none of its files.
import { spawn } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, existsSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { acceleratorKind, hasHardwareVirtualization } from "../../vmm/host/facts.js";
import { INPUT_DISK_BYTES, labBase, makeInputDisk, type LabInput } from "../../vmm/lab/image.js";
import { LAB_PACKAGE, packageInputs } from "../../vmm/lab/checkout.js";
import { missingLabPrograms } from "../../vmm/lab/programs.js";
import { LabError } from "../../vmm/errors.js";
import type { LabResult } from "../../vmm/lab/command.js";
import { LabSession } from "../../vmm/lab/session.js";
import type { Report } from "../../vmm/cli/report.js";
import { afterLimit, timeLimit } from "../../vmm/host/time-limit.js";
import { countBoot } from "./booted.js";
import { jailMode } from "./jail-lane.js";
import { LAB_ENVIRONMENT, LAB_PROGRAM, LAB_PROGRAM_INPUTS } from "./lab-program.js";
import { PROGRAM } from "./program.js";
import { buildGuestPrograms, buildVsockProgram, withVsockProgram } from "./guest-programs.js";
import { makeRootDisk, withDebianModules, withNestedModules } from "./guest-images.js";

const LAB_MEMORY_MIB = 1536;
const LAB_CPUS = 2;
/** Where one command leaves files for the next. */
const SHARED_FOLDER = "/tmp/";
/** A guest that has not ended by then never will, `s`. */
const LIMIT_S = 120;

export interface Boot {
  readonly status: number;
  readonly stdout: string;
  readonly stderr: string;
  readonly report: Report | undefined;
  /** Standard output of the command behind it. */
  readonly after: string;
}

export interface GuestFiles {
  readonly vmlinux: string;
  readonly bzImage: string;
  readonly initramfs: string;
  /** The same with test/programs/exercise.c and rtc.c. */
  readonly exercises: string;
  readonly debianKernel: string;
  /** The package's initramfs, with the Debian kernel's virtio modules in /modules. */
  readonly debianInitramfs: string;
  /** The same with its KVM modules, too: helpers/guest-images.ts, NESTED_MODULES. */
  readonly nestedInitramfs: string;
  /** A root disk to copy: its init counts the boots of the disk, says so and powers off. */
  readonly rootDisk: string;
  /** The package's initramfs, with test/programs/vsock.c as /bin/vsock. */
  readonly vsockInitramfs: string;
  /** The same program, for the host's side. */
  readonly vsockProgram: string;
  /** Folder of test/programs, for what runs on the host. */
  readonly programs: string;
  /** The bundled library. */
  readonly library: string;
}

export interface BootOptions {
  readonly stdin?: string;
  /** Runs before vmlet in the same shell, for instance a kill in the background. */
  readonly shell?: string;
  /** A shell command that makes the files of this boot, and of nothing else. */
  readonly files?: string;
  /** A shell command for behind the end, where those files are. */
  readonly after?: string;
  /** Without the package's kernel and initramfs, which are added by default. */
  readonly isBare?: boolean;
  /** In place of LIMIT_S, `s`. */
  readonly limitS?: number;
}

/** A command on a terminal, as the test meets it. */
export interface TerminalCommand {
  input(text: string): void;
  resize(rows: number, columns: number): void;
}

export interface GuestRunner {
  /** The host is the lab: its commands are root's, and may do there what they want. */
  readonly isLab: boolean;
  readonly files: GuestFiles;
  /** A shell command on a terminal of 33 rows and 101 columns; `onOutput` gets all output so far. Only the lab has one. */
  terminal?(script: string, onOutput: (text: string, command: TerminalCommand) => void): Promise<Boot>;
  /** `vmlet boot` with these arguments and a report. */
  boot(args: readonly string[], options?: BootOptions): Promise<Boot>;
  /** A shell command where vmlet runs; $VMLET starts it. */
  shell(script: string): Promise<Boot>;
  close(): Promise<void>;
}

let runner: Promise<GuestRunner> | undefined;

/** Why no real kernel can be booted here, or undefined. */
export function whyNoBoot(): string | undefined {
  if (hasHardwareVirtualization(acceleratorKind())) return undefined;
  const missing = missingLabPrograms();
  return missing.length === 0 ? undefined : `no hardware virtualization, and the lab lacks ${missing.join(", ")}`;
}

/** Commands of the test at hand in the lab that all share: one may need what another has left there. */
let earlierCommands = 0;

/** The shared runner; the first caller waits for the lab. */
export function guestRunner(): Promise<GuestRunner> {
  runner ??= hasHardwareVirtualization(acceleratorKind()) ? hostRunner() : labRunner();
  return runner;
}

// Hooks of the root suite: the files of the boot lane share the lab.
beforeEach(() => {
  earlierCommands = 0;
});
after(async () => {
  await (await runner)?.close();
  runner = undefined;
});

const quote = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`;

function script(args: readonly string[], report: string, { stdin, shell = "", limitS = LIMIT_S }: BootOptions): string {
  const input = stdin === undefined ? "</dev/null" : "";
  const allowedS = timeLimit("a guest", limitS * 1000) / 1000;
  return `${shell} timeout ${String(allowedS)} $VMLET boot --accel kvm --report ${report} ${args.map(quote).join(" ")} ${input}`;
}

function result(status: number, stdout: Buffer, stderr: Buffer, report: Buffer | undefined, after = ""): Boot {
  const parsed = report === undefined ? undefined : (JSON.parse(report.toString("utf8")) as Report);
  if (parsed?.phases_ms.first_run_to_init != null) countBoot();
  return { status, stdout: stdout.toString("latin1"), stderr: stderr.toString("latin1"), report: parsed, after };
}

async function labRunner(): Promise<GuestRunner> {
  const packageRoot = resolve(".");
  const base = await labBase(packageRoot);
  const folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
  const inputs: LabInput[] = [
    ...packageInputs(packageRoot),
    { from: "guest/out/default", to: "kernels" },
    { from: "guest/out/initramfs.cpio", to: "kernels/initramfs.cpio" },
    // Where `vmlet boot` looks by itself.
    { from: "guest/out/default/vmlinux", to: "vmlet/guest/out/default/vmlinux" },
    { from: "guest/out/tiny.cpio", to: "vmlet/guest/out/tiny.cpio" },
    { from: base.kernel, to: "kernels/debian-vmlinuz" },
    { from: withDebianModules(base.kernel, folder), to: "kernels/debian-initramfs.cpio" },
    { from: withNestedModules(base.kernel, folder), to: "kernels/nested-initramfs.cpio" },
    { from: makeRootDisk(folder), to: "kernels/root.ext4" },
    { from: buildGuestPrograms(folder), to: "kernels/exercises.cpio" },
    { from: withVsockProgram(folder), to: "kernels/vsock-initramfs.cpio" },
    { from: buildVsockProgram(folder), to: "kernels/vsock" },
    { from: "test/programs", to: "programs" },
    ...LAB_PROGRAM_INPUTS,
  ];
  const disk = makeInputDisk(folder, inputs, INPUT_DISK_BYTES);
  await disk.filled;
  const start = (): Promise<LabSession> =>
    LabSession.start(
      { packageRoot, memoryMib: LAB_MEMORY_MIB, cpus: LAB_CPUS, inputs: [], inputDisk: disk.path },
      {
        onNotice: (line) => {
          console.log(`      ${line}`);
        },
      },
    );
  let session = await start();
  const env = LAB_ENVIRONMENT;
  /** In a lab of its own, whose vmlet is warm: that starts sooner than one in the lab that all share. */
  const bootAlone = async (args: readonly string[], options: BootOptions, isAgain = false): Promise<Boot> => {
    const { stdin = "", limitS = LIMIT_S, files, after } = options;
    const own = await start();
    const late = new AbortController();
    const end = afterLimit("a guest", limitS * 1000, () => {
      late.abort();
      void own.close();
    });
    try {
      const shell = async (text: string): Promise<string> => {
        const { status, stdout, stderr } = await own.run({ argv: ["sh", "-c", text], env });
        if (status !== 0) throw new Error(`${text}\n${stderr.toString("latin1")}`);
        return stdout.toString("latin1");
      };
      if (files !== undefined) await shell(files);
      const argv = ["boot", "--accel", "kvm", "--report", "/output/report.json", ...args];
      // The warm one was no process of its own from its start on.
      const command = jailMode === undefined ? { argv, isVmlet: true } : { argv: [LAB_PROGRAM, ...argv], env };
      const done = await own.run({ ...command, stdin });
      const said = after === undefined ? "" : await shell(after);
      return result(done.status, done.stdout, done.stderr, done.files.get("report.json"), said);
    } catch (error) {
      if (!(error instanceof LabError) || late.signal.aborted || isAgain) throw error;
      console.log(`      once more, because the lab has ended: ${error.message.split("\n").at(-1) ?? ""}`);
      return await bootAlone(args, options, true);
    } finally {
      end();
      await own.close();
    }
  };
  const run = async (text: string, stdin = ""): Promise<Boot> => {
    const command = { argv: ["sh", "-c", text], env, stdin };
    let done: LabResult;
    try {
      done = await session.run(command);
    } catch (error) {
      // On a busy machine the emulated host itself may hang, with everything in it: tried once more.
      if (!(error instanceof LabError)) throw error;
      console.log(`      a new lab, because the last one has ended: ${error.message.split("\n").at(-1) ?? ""}`);
      await session.close();
      session = await start();
      // A test that goes on without its files would fail in a way that nobody understands.
      if (earlierCommands > 0)
        throw new Error("The lab has ended, and with it what this test had there", { cause: error });
      done = await session.run(command);
    }
    earlierCommands++;
    return result(done.status, done.stdout, done.stderr, done.files.get("report.json"));
  };
  const command: TerminalCommand = {
    input: (text) => void session.input(Buffer.from(text)),
    resize: (rows, columns) => session.resize(rows, columns),
  };
  const terminal: GuestRunner["terminal"] = async (text, onOutput) => {
    let output = "";
    const { status } = await session.run({
      argv: ["sh", "-c", text],
      env,
      terminal: { rows: 33, columns: 101 },
      onOutput: (bytes) => {
        output += bytes.toString("latin1");
        onOutput(output, command);
      },
    });
    return { status, stdout: output, stderr: "", report: undefined, after: "" };
  };
  return {
    isLab: true,
    terminal,
    files: {
      vmlinux: "/input/kernels/vmlinux",
      bzImage: "/input/kernels/bzImage",
      initramfs: "/input/kernels/initramfs.cpio",
      exercises: "/input/kernels/exercises.cpio",
      debianKernel: "/input/kernels/debian-vmlinuz",
      debianInitramfs: "/input/kernels/debian-initramfs.cpio",
      nestedInitramfs: "/input/kernels/nested-initramfs.cpio",
      rootDisk: "/input/kernels/root.ext4",
      vsockInitramfs: "/input/kernels/vsock-initramfs.cpio",
      vsockProgram: "/input/kernels/vsock",
      programs: "/input/programs",
      library: `${LAB_PACKAGE}/dist/index.js`,
    },
    boot: (args, options = {}) => {
      const own = { "--kernel": "/input/kernels/vmlinux", "--initrd": "/input/kernels/initramfs.cpio" };
      const all = options.isBare === true ? args : withDefaults(own, args);
      const hasOthersFiles = options.files === undefined && hostWords(all).some((word) => word.includes(SHARED_FOLDER));
      const needsFiles = options.shell !== undefined || hasOthersFiles;
      return needsFiles ? run(script(all, "/output/report.json", options), options.stdin) : bootAlone(all, options);
    },
    shell: (text) => run(text),
    close: async () => {
      await session.close();
      rmSync(folder, { recursive: true });
    },
  };
}

/** What is behind "--" is the guest's. */
function hostWords(args: readonly string[]): readonly string[] {
  const end = args.indexOf("--");
  return end < 0 ? args : args.slice(0, end);
}

/** The options that `args` do not give themselves. */
function withDefaults(defaults: Readonly<Record<string, string>>, args: readonly string[]): readonly string[] {
  const given = hostWords(args);
  return [...Object.entries(defaults).filter(([option]) => !given.includes(option)), args].flat();
}

async function hostRunner(): Promise<GuestRunner> {
  const base = await labBase(resolve("."));
  const folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
  const report = join(folder, "report.json");
  const run = async (text: string, stdin = ""): Promise<Boot> => {
    rmSync(report, { force: true });
    const env = { ...process.env, VMLET: PROGRAM };
    const child = spawn("sh", ["-c", text], { env, stdio: "pipe" });
    const stdout: Buffer[] = [];
    const stderr: Buffer[] = [];
    child.stdout.on("data", (chunk: Buffer) => stdout.push(chunk));
    child.stderr.on("data", (chunk: Buffer) => stderr.push(chunk));
    child.stdin.end(stdin);
    const status = await new Promise<number>((done) => child.once("close", (code) => done(code ?? 255)));
    const bytes = existsSync(report) ? readFileSync(report) : undefined;
    return result(status, Buffer.concat(stdout), Buffer.concat(stderr), bytes);
  };
  return {
    isLab: false,
    files: {
      vmlinux: resolve("guest/out/default/vmlinux"),
      bzImage: resolve("guest/out/default/bzImage"),
      initramfs: resolve("guest/out/initramfs.cpio"),
      exercises: buildGuestPrograms(folder),
      debianKernel: base.kernel,
      debianInitramfs: withDebianModules(base.kernel, folder),
      nestedInitramfs: withNestedModules(base.kernel, folder),
      rootDisk: makeRootDisk(folder),
      vsockInitramfs: withVsockProgram(folder),
      vsockProgram: buildVsockProgram(folder),
      programs: resolve("test/programs"),
      library: resolve("dist/index.js"),
    },
    boot: async (args, options = {}) => {
      const { files, after } = options;
      if (files !== undefined) await run(files);
      const booted = await run(script(args, report, options), options.stdin);
      return after === undefined ? booted : { ...booted, after: (await run(after)).stdout };
    },
    shell: (text) => run(text),
    close: () => {
      rmSync(folder, { recursive: true });
      return Promise.resolve();
    },
  };
}
