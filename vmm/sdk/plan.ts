// From what is asked for to what a VM is made of: its image is fetched, its root made, its program found.
import type { ImageProgress, PreparedImage } from "../image/types.js";
import { encodeExec } from "../agent/exec-request.js";
import { signalNumber } from "../agent/signals.js";
import { ConfigError } from "../errors.js";
import { chooseAccelerator, type Choice } from "../lab/accelerator.js";
import { commandOptions } from "./main-program.js";
import { refuseInLab } from "./in-lab.js";
import { exposedPorts, type CheckedOptions } from "./vm-options.js";
import { newVmId } from "./state-folder.js";
import type { PublishedPort } from "./vm-record.js";
import type { CommandDefaults, CommandSpec } from "./command-spec.js";
import type { RootSpec, VmSpec } from "./vm-spec.js";

const DEFAULT_STOP_SIGNAL = "SIGTERM";
const ROOT_FOLDER = "/";
/** With its home and its groups as the image has them, and not as every guest does. */
export const ROOT_USER = "0";

/** What a VM is started for. */
export interface ProgramOptions {
  /** In place of the image's; empty: the image's. */
  readonly command: readonly string[];
  /** In place of the image's; an empty list: none. */
  readonly entrypoint: readonly string[] | undefined;
  readonly hasTerminal: boolean;
  readonly isInteractive: boolean;
}

export interface PlanOptions {
  /** Undefined: the VM is started for what it will be asked. */
  readonly program: ProgramOptions | undefined;
  readonly autoRemove: boolean;
  readonly stopSignal?: string | undefined;
  /** `ms` from that to its being killed. */
  readonly stopTimeoutMs?: number | undefined;
  /** Default: what `accel` of the options comes to here. */
  readonly choice?: Choice | undefined;
  /** A line about what is otherwise than usual. */
  readonly onNotice?: ((line: string) => void) | undefined;
  readonly onProgress?: ((text: string) => void) | undefined;
  readonly signal?: AbortSignal | undefined;
}

export interface VmPlan {
  readonly spec: VmSpec;
  /** What it is made of may go from here on; a VM that runs from it keeps it otherwise. */
  release(): void;
}

interface Root {
  readonly root: RootSpec;
  readonly source: string;
  readonly image: PreparedImage | undefined;
}

/** Rejects with ConfigError, HostError for an accelerator that is not there, ImageError, and what fetching an image rejects with. */
export async function planVm(checked: CheckedOptions, options: PlanOptions): Promise<VmPlan> {
  const stopSignal = options.stopSignal === undefined ? undefined : signalNumber(options.stopSignal);
  const isInLab = choosesLab(checked, options);
  const given = await hostPorts(checked.ports);
  const { root, source, image } = await prepareRoot(checked, options);
  try {
    const config = image?.config;
    const all = allPorts(checked, given, config?.exposedPorts ?? []);
    const ports = all.length === given.length ? given : await hostPorts(all);
    const env = mergedEnv(config?.env ?? [], checked.env);
    const workingDirectory = checked.workdir ?? unlessEmpty(config?.workingDir) ?? ROOT_FOLDER;
    const user = checked.user ?? config?.user ?? "";
    const defaults: CommandDefaults = {
      env,
      workingDirectory,
      user,
      ...(checked.groups === undefined ? {} : { groups: checked.groups }),
      ...(checked.limits === undefined ? {} : { limits: checked.limits }),
    };
    const main = options.program === undefined ? undefined : program(options.program, image, defaults);
    // What no program could be started with is refused before there is a VM.
    const least = { ...defaults, argv: [""], hasTerminal: false, isInteractive: false };
    encodeExec((main ?? least).argv, commandOptions(main ?? least, undefined));
    const id = newVmId();
    const spec: VmSpec = {
      id,
      name: checked.name ?? `vm-${id}`,
      root,
      source,
      imageId: image?.id,
      memoryMib: checked.memoryMib,
      cpus: checked.cpus,
      network: ports.length > 0 && !checked.hasOwnNetwork ? { kind: "user" } : checked.network,
      ports,
      volumes: checked.volumes,
      tmpfs: checked.tmpfs,
      hostName: checked.hostName,
      isReadonly: checked.isReadonly,
      labels: { ...config?.labels, ...checked.labels },
      autoRemove: options.autoRemove,
      stopSignal: stopSignal ?? signalNumber(unlessEmpty(config?.stopSignal) ?? DEFAULT_STOP_SIGNAL),
      main,
      timeoutMs: checked.timeoutMs,
      defaults,
      ...(checked.world === undefined ? {} : { world: checked.world }),
      ...(options.stopTimeoutMs === undefined ? {} : { stopTimeoutMs: options.stopTimeoutMs }),
      ...(isInLab ? { isInLab } : {}),
      ...(checked.jail === "on" ? {} : { jail: checked.jail }),
    };
    return { spec, release: () => image?.release() };
  } catch (error) {
    image?.release();
    throw error;
  }
}

/** Throws ConfigError for what the lab has not. */
function choosesLab(
  checked: CheckedOptions,
  { choice = chooseAccelerator(checked.accel), onNotice }: PlanOptions,
): boolean {
  if (choice.kind !== "lab") return false;
  refuseInLab(checked, choice.reason);
  if (choice.reason !== undefined) onNotice?.(choice.reason);
  return true;
}

async function prepareRoot({ root, pull }: CheckedOptions, options: PlanOptions): Promise<Root> {
  if (root.kind === "disk") return { root: { kind: "disk", path: root.path }, source: root.path, image: undefined };
  const { prepareImage, prepareDirectory } = await import("../image/index.js");
  const { onProgress, signal } = options;
  const preparing = {
    ...(onProgress === undefined
      ? {}
      : {
          onProgress: (progress: ImageProgress) => {
            onProgress(progressText(progress));
          },
        }),
    ...(signal === undefined ? {} : { signal }),
  };
  const image =
    root.kind === "image"
      ? await prepareImage(root.reference, { pull, ...preparing })
      : await prepareDirectory(root.path, preparing);
  return {
    root: { kind: "image", manifest: image.manifestPath },
    source: root.kind === "image" ? image.reference : root.path,
    image,
  };
}

async function hostPorts(ports: readonly PublishedPort[]): Promise<PublishedPort[]> {
  return ports.length === 0 ? [] : (await import("./host-ports.js")).findHostPorts(ports);
}

/** With those that the image names, where all are to be published. As Docker has it: without a network there are none. */
function allPorts(
  { publishAll, network, hasOwnNetwork }: CheckedOptions,
  given: readonly PublishedPort[],
  exposed: readonly string[],
): PublishedPort[] {
  if (publishAll === undefined || (hasOwnNetwork && network.kind !== "user")) return [...given];
  const name = ({ guestPort, protocol }: PublishedPort): string => `${String(guestPort)}/${protocol}`;
  const named = new Set(given.map(name));
  const more = [...exposed, ...publishAll.expose].flatMap((text) => exposedPorts(text) ?? []);
  return [
    ...given,
    ...more.filter((port) => {
      const isNew = !named.has(name(port));
      named.add(name(port));
      return isNew;
    }),
  ];
}

function unlessEmpty(text: string | undefined): string | undefined {
  return text === "" ? undefined : text;
}

const MB = 1e6;
const PHASES = {
  download: "fetching the image",
  unpack: "unpacking the image",
  index: "making the image's root",
} as const;

function progressText({ phase, done, total }: ImageProgress): string {
  const mb = (bytes: number): string => (bytes / MB).toFixed(0);
  return `${PHASES[phase]}: ${mb(done)}${total === undefined ? "" : ` of ${mb(total)}`} MB`;
}

/** Those of the image, with the caller's in place of what has the same name. */
export function mergedEnv(image: readonly string[], own: readonly string[]): string[] {
  const name = (variable: string): string => variable.slice(0, variable.indexOf("="));
  const given = new Set(own.map(name));
  return [...image.filter((variable) => !given.has(name(variable))), ...own];
}

function program(
  { command, entrypoint, hasTerminal, isInteractive }: ProgramOptions,
  image: PreparedImage | undefined,
  defaults: CommandDefaults,
): CommandSpec {
  const first = entrypoint ?? image?.config.entrypoint ?? [];
  // As Docker has it: another entrypoint does not get the image's words.
  const rest = command.length > 0 || entrypoint !== undefined ? command : (image?.config.cmd ?? []);
  const argv = [...first, ...rest];
  if (argv.length === 0) throw new ConfigError(["No command is given, and the root names none"]);
  const user = defaults.user === "" ? ROOT_USER : defaults.user;
  return { ...defaults, user, argv, hasTerminal, isInteractive };
}
