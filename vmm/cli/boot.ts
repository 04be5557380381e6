// `vmlet boot`: options -> VM -> exit code. DESIGN.md, "Boot".
import { existsSync } from "node:fs";
import { checkGuest, type BuildOptions } from "../machine/builder.js";
import { NO_PCI_CMDLINE, OWN_KERNEL_CMDLINE, consoleParameter } from "../config/defaults.js";
import { resolveConfig } from "../config/resolve.js";
import type { ResolvedConfig } from "../config/types.js";
import type { Quirks } from "../fixups/quirks.js";
import type { Choice } from "../lab/accelerator.js";
import { chooseOrExplain, sayWhyLab } from "./accelerator.js";
import { argumentBytes } from "./argument-bytes.js";
import { parseBoot, type BootOptions } from "./arguments.js";
import { cpuTemplates } from "./cpu-templates.js";
import { defaultKernel, fastKernel } from "../host/guest-files.js";
import { checkOutputs } from "./check-outputs.js";
import { isInteractive, SELF_DESCRIPTION } from "./interactive.js";
import { kernelWords } from "./kernel-words.js";
import { runGuest } from "./run-guest.js";
import { changeRootArguments, checkUserWords, chooseInitrd } from "./root-disk.js";
import { print, say } from "../host/say.js";
import { expectedBoot, showBooting } from "./boot-progress.js";
import { Vm } from "../machine/vm.js";
import { UsageError } from "./usage-error.js";

const NUL = Buffer.alloc(1);
/** The word of the kernel command line that has the command for vmlet's init. */
const COMMAND_WORD = "vmlet.exec=";

/** Runs the command; the result is the process's exit code. `isRehearsal`: the process goes on, without the VM. */
export async function boot(argv: readonly string[], { isRehearsal = false } = {}): Promise<number> {
  const options = parseBoot(argv);
  if (options.help) {
    const { BOOT_HELP } = await import("./help.js");
    print(BOOT_HELP);
    return 0;
  }
  if (options.jail !== "off") (await import("../jail/threads.js")).noteThreads(poolSize(options));
  if (options.configFile !== undefined) return bootConfigured(options, options.configFile);
  if (options.vfio.length > 0 && options.fromTemplate) {
    throw new UsageError("vmlet boot: --vfio and --from-template contradict each other: such a guest cannot be saved");
  }
  checkUserWords(options);
  const resolved = resolveConfig(vmConfig(options));
  await checkOutputs({ ...options, vsock: options.vsock?.path }, [
    { option: "--kernel", path: resolved.kernel },
    ...(resolved.initrd === undefined ? [] : [{ option: "--initrd", path: resolved.initrd }]),
    ...resolved.disks.map(({ path }) => ({ option: "--disk", path })),
  ]);
  const choice = await chooseOrExplain(options.accel);
  const config = withFittingKernel(options, resolved, choice);
  await checkJailed(options, config, choice);
  if (choice.kind === "kvm" && config.nets.length > 0) (await import("./rights.js")).checkRights(config.nets);
  if (!existsSync(config.kernel) || (config.initrd !== undefined && !existsSync(config.initrd))) {
    await (await import("../host/first-use.js")).buildMissing([config.kernel, config.initrd]);
  }
  if (options.kernel === undefined && options.initrd !== undefined) {
    (await import("./own-kernel.js")).checkOwnInitrd(options.initrd);
  }
  if (options.fromTemplate) return (await import("./boot-from-template.js")).bootFromTemplate(options, config, choice);
  if (choice.kind === "lab") return inLab(options, config, choice);
  if (choice.quirks !== undefined && !options.quiet) {
    say(`this host's /dev/kvm emulates guest kernel code: ${expectedBoot(config.memoryMib)}`);
  }
  return run(options, config, choice.quirks, isRehearsal);
}

/** Threads for what waits for files: with no disk, that is the kernel and the initramfs. Undefined: as many as Node has. */
function poolSize({ disks, configFile, control }: BootOptions): number | undefined {
  return disks.length > 0 || configFile !== undefined || control !== undefined ? undefined : 2;
}

/** A machine that Firecracker's configuration file describes. */
async function bootConfigured(options: BootOptions, path: string): Promise<number> {
  const { checkBesides, configuredBoot } = await import("./boot-from-config.js");
  checkBesides(options);
  await checkOutputs({ ...options, vsock: undefined }, [{ option: "--config-file", path }]);
  const choice = await chooseOrExplain(options.accel);
  const quirks = choice.kind === "kvm" ? choice.quirks : undefined;
  const { config, openCpuTemplate } = await configuredBoot(path, choice.kind === "lab" || quirks !== undefined);
  await checkJailed(options, config, choice);
  if (choice.kind === "lab") return inLab(options, config, choice);
  return run(options, config, quirks, false, openCpuTemplate);
}

async function checkJailed(options: BootOptions, config: ResolvedConfig, choice: Choice): Promise<void> {
  if (options.jail !== "off") (await import("./jail.js")).checkJail(options, config, choice.kind === "lab");
}

async function inLab(
  options: BootOptions,
  config: ResolvedConfig,
  choice: Extract<Choice, { kind: "lab" }>,
): Promise<number> {
  if (config.cpuTemplate !== undefined) (await cpuTemplates(config))?.(config.cpuTemplate);
  // Checked here, at once, so that messages have the user's own paths, not those in the lab.
  checkGuest(config);
  await sayWhyLab(choice);
  const { bootInLab } = await import("./boot-in-lab.js");
  return bootInLab(options, config, choice.cpu);
}

async function run(
  options: BootOptions,
  config: ResolvedConfig,
  quirks: Quirks | undefined,
  isRehearsal: boolean,
  configured?: BuildOptions["openCpuTemplate"],
): Promise<number> {
  const { report, metrics, control } = options;
  const openCpuTemplate = configured ?? (await cpuTemplates(config));
  const kernel = report === undefined ? undefined : new (await import("./kernel-hash.js")).KernelHash();
  return runGuest({
    config,
    outputs: { report, metrics, control },
    // What describes the guest reads nothing.
    readsInput: options.command.length > 0 || options.bareCmdline || options.configFile !== undefined,
    runsCommand: config.cmdline.includes(COMMAND_WORD),
    kernel,
    isRehearsal,
    jail: options.jail,
    progress: await showBooting(config.memoryMib),
    make: (host, deviceSupport) =>
      Vm.build(config, host, {
        known: { quirks },
        deviceSupport,
        openCpuTemplate,
        readKernel: kernel?.read,
        hearsOwner: control !== undefined,
        mayBeSaved: control !== undefined,
      }),
  });
}

/**
 * Where kernel code is emulated, the package's own kernel is the one with the fewest instructions, for a guest that it
 * can serve. A disk's own init may be systemd, which freezes without control groups.
 */
function withFittingKernel(options: BootOptions, config: ResolvedConfig, choice: Choice): ResolvedConfig {
  if (options.kernel !== undefined) return config;
  const isEmulated = choice.kind === "kvm" && choice.quirks !== undefined;
  const startsDisksInit = config.initrd === undefined;
  const canBeFast = config.cpus === 1 && config.protocol !== "pvh" && !startsDisksInit && !config.pci;
  if (isEmulated && canBeFast) return { ...config, kernel: fastKernel() };
  const looksForBus = config.pci || options.bareCmdline;
  return looksForBus ? config : { ...config, cmdline: `${NO_PCI_CMDLINE} ${config.cmdline}` };
}

function vmConfig(options: BootOptions) {
  const kernel = options.kernel ?? defaultKernel();
  // The package's own kernels have no driver for a keyboard controller and only one serial port: they need no words for them.
  const usesOwnCmdline = options.kernel === undefined && !options.bareCmdline;
  const initrd = chooseInitrd(options);
  const cmdline = [
    ...(usesOwnCmdline ? [consoleParameter(options.console), OWN_KERNEL_CMDLINE] : []),
    ...changeRootArguments(options),
    ...initArguments(options, initrd),
    // The user's own words last: they win, and what follows a "--" of theirs is for their init alone.
    ...(options.cmdline === undefined ? [] : [options.cmdline]),
  ].join(" ");
  return {
    kernel,
    initrd,
    cmdline,
    bareCmdline: options.bareCmdline || usesOwnCmdline,
    memoryMib: options.memoryMib,
    cpus: options.cpus,
    nested: options.nested,
    pci: options.pci,
    vfio: options.vfio.map((device) => ({ device })),
    cpuTemplate: options.cpuTemplate,
    protocol: options.protocol,
    quiet: options.quiet,
    disks: options.disks,
    nets: options.nets,
    vsock: options.vsock,
    console: options.console,
    rng: options.rng,
    balloon: options.balloon,
    shares: options.shares,
    commandChannel: options.fromTemplate || (cmdline.includes(COMMAND_WORD) && !isInteractive()),
  };
}

/** What guest/init/init.c reads from the command line. */
function initArguments(options: BootOptions, initrd: string | undefined): string[] {
  // The kernel passes every word that it does not know to the root disk's own init.
  if (initrd === undefined) return [];
  // A caller who writes the whole command line gets exactly that.
  if (options.bareCmdline && options.command.length === 0) return [];
  // Another init knows none of these words, and its input is the terminal's.
  if (kernelWords(options.cmdline ?? "").get("rdinit") !== undefined) return [];
  if (options.fromTemplate) return ["vmlet.template"];
  const interactive = isInteractive();
  const describes = options.command.length === 0 && !interactive && options.initrd === undefined && !options.noInitrd;
  const command = describes ? SELF_DESCRIPTION : options.command;
  const words: string[] = [];
  if (command.length > 0) {
    const bytes = describes ? command.map((word) => Buffer.from(word)) : argumentBytes(command);
    const joined = Buffer.concat(bytes.flatMap((word, i) => (i === 0 ? [word] : [NUL, word])));
    words.push(`${COMMAND_WORD}${joined.toString("base64url")}`);
  }
  if (!interactive) return [...words, "vmlet.tty=raw"];
  const term = process.env["TERM"] ?? "";
  // Only characters that stay within one word of the kernel's command line.
  if (/^[\w.+-]{1,50}$/.test(term)) words.push(`vmlet.term=${term}`);
  return [...words, `vmlet.size=${String(process.stdout.rows)}x${String(process.stdout.columns)}`];
}
