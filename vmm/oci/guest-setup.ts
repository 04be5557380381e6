// From config.json to what the guest is told: what of the host's is shared with it, and the steps that make the container of
// that. What a VM cannot have is left out with a warning, or refused; docs/oci.md has the table.
import { existsSync, lstatSync, statfsSync, statSync } from "node:fs";
import { isAbsolute, join, posix } from "node:path";
import { NAMESPACES, steps } from "../agent/container-request.js";
import { show } from "../config/show.js";
import { ConfigError } from "../errors.js";
import { groupOf } from "./guest-group.js";
import { mountFlags, type MountFlags } from "./mount-options.js";
import { hasMountsBelow } from "./mounts-below.js";
import { hostNameOf, refusedOfHost } from "./of-the-host.js";
import type { PodRole } from "./pod.js";
import type { OciDevice, OciMount, OciSpec } from "./runtime-spec.js";

/** Where the guest has what is shared. */
export const SHARE_IN_GUEST = "/.vmlet/share";
export const ROOT_NAME = "root";
const SHM = "/dev/shm";
/** Where the guest has what a pod's containers share as /dev/shm. */
export const POD_MEMORY = "/.vmlet/shm";

const MS_RDONLY = 1;
const MS_REMOUNT = 32;
const MS_BIND = 4096;
const MS_REC = 16_384;
const MS_SLAVE = 1 << 19;
const MS_SHARED = 1 << 20;
const S_IFIFO = 0o010000;
const S_IFCHR = 0o020000;
const TMPFS_MAGIC = 0x0102_1994;
const DEFAULT_SHM_BYTES = 64 * 1024 * 1024;

/** A folder or file of the host's in the share. */
export interface SharedPath {
  readonly source: string;
  /** In the share. */
  readonly name: string;
  readonly isFile: boolean;
  /** Without what is mounted below it. */
  readonly isAlone?: boolean;
  readonly isReadonly: boolean;
  /** So is what is mounted below it. */
  readonly isReadonlyBelow?: boolean;
  /** What the host mounts in it later is seen: of a volume with "slave" or "shared". */
  readonly follows?: boolean;
}

export interface GuestSetup {
  readonly shared: readonly SharedPath[];
  readonly steps: readonly string[];
  /** Namespaces of its own in the guest, bits of NAMESPACES. */
  readonly namespaces: number;
  /** Those that it has from the sandbox of its pod. */
  readonly joined: number;
  /** What each of its processes takes first: the control group in the guest that counts it, with the limits of that. */
  readonly group: readonly string[];
  readonly warnings: readonly string[];
}

/** OCI runtime-spec, "Default Devices". */
const DEFAULT_DEVICES: readonly (OciDevice & { readonly major: number; readonly minor: number })[] = [
  { path: "/dev/null", type: "c", major: 1, minor: 3 },
  { path: "/dev/zero", type: "c", major: 1, minor: 5 },
  { path: "/dev/full", type: "c", major: 1, minor: 7 },
  { path: "/dev/random", type: "c", major: 1, minor: 8 },
  { path: "/dev/urandom", type: "c", major: 1, minor: 9 },
  { path: "/dev/tty", type: "c", major: 5, minor: 0 },
];
/** What a guest has under the same numbers as its host: memory devices, /dev/tty, /dev/ptmx, FUSE. */
const SAME_IN_GUEST = new Set(["1:3", "1:5", "1:7", "1:8", "1:9", "1:11", "5:0", "5:2", "10:229"]);
const DEFAULT_LINKS = [
  ["/proc/self/fd", "/dev/fd"],
  ["/proc/self/fd/0", "/dev/stdin"],
  ["/proc/self/fd/1", "/dev/stdout"],
  ["/proc/self/fd/2", "/dev/stderr"],
  ["pts/ptmx", "/dev/ptmx"],
] as const;

/**
 * `id`: its folder in the share of a pod's sandbox; "": the share is its own. Throws ConfigError for what cannot be had.
 */
export function guestSetup(spec: OciSpec, bundle: string, role: PodRole = { kind: "alone" }, id = ""): GuestSetup {
  const problems = refusals(spec, role);
  problems.push(...refusedOfHost(spec, isInGuest));
  const warnings = lost(spec);
  const shared: SharedPath[] = [{ source: rootfs(spec, bundle), name: ROOT_NAME, isFile: false, isReadonly: false }];
  const folder = posix.join(SHARE_IN_GUEST, role.kind === "container" ? id : "");
  const all: string[] = [...steps.enter(posix.join(folder, ROOT_NAME))];
  for (const mount of spec.mounts ?? []) {
    const made = mountSteps(mount, { bundle, index: shared.length, folder, isInPod: role.kind !== "alone" });
    if (typeof made === "string") problems.push(made);
    else {
      if (made.shared !== undefined) shared.push(made.shared);
      if (made.warning !== undefined) warnings.push(made.warning);
      all.push(...made.steps);
    }
  }
  if (problems.length > 0) throw new ConfigError(problems);
  all.push(...deviceSteps(spec.linux?.devices ?? [], warnings));
  for (const [text, path] of DEFAULT_LINKS) all.push(...steps.link(text, path));
  all.push(...steps.terminal("/dev/console"));
  for (const [name, value] of Object.entries(spec.linux?.sysctl ?? {})) {
    all.push(...steps.sysctl(name.includes("/") ? name : name.replaceAll(".", "/"), value));
  }
  const hostName = hostNameOf(spec);
  if (hostName !== "") all.push(...steps.hostname(hostName));
  if (spec.domainname !== undefined && spec.domainname !== "") all.push(...steps.domainname(spec.domainname));
  if (spec.root?.readonly === true) all.push(...steps.propagation("/", MS_BIND | MS_REMOUNT | MS_RDONLY));
  for (const path of spec.linux?.readonlyPaths ?? []) all.push(...steps.readonly(path));
  for (const path of spec.linux?.maskedPaths ?? []) all.push(...steps.mask(path));
  // Below the guest's own root, which the process still stands in.
  all.push(...steps.unmount(SHARE_IN_GUEST.slice(1)));
  return { shared, steps: all, ...namespacesOf(spec, role), group: groupOf(spec, role, id), warnings };
}

export function rootfs(spec: OciSpec, bundle: string): string {
  const path = spec.root?.path ?? "";
  return isAbsolute(path) ? path : join(bundle, path);
}

interface MountSteps {
  readonly steps: readonly string[];
  readonly shared?: SharedPath;
  readonly warning?: string;
}

interface MountContext {
  readonly bundle: string;
  readonly index: number;
  /** In the guest, of what is shared for this container. */
  readonly folder: string;
  readonly isInPod: boolean;
}

/** Or what is wrong. */
function mountSteps(mount: OciMount, context: MountContext): MountSteps | string {
  const target = posix.join("/", mount.destination);
  const flags = mountFlags(mount.options);
  const propagation = flags.propagation === 0 ? [] : steps.propagation(target, flags.propagation);
  if (flags.isBind || mount.type === "bind") return bindSteps(mount, { ...context, target, flags, propagation });
  const { type = "", source = "" } = mount;
  const plain = (data = flags.data): MountSteps => ({
    steps: [...steps.mount(type, source === "" ? type : source, target, flags.flags, data), ...propagation],
  });
  switch (type) {
    case "proc":
    case "sysfs":
    case "tmpfs":
    case "mqueue":
    case "ramfs":
    case "overlay":
      return plain();
    case "devpts":
      // The terminal of a program is made before there is a container, in the guest's own.
      return { steps: [...steps.bind("dev/pts", target, 0, false), ...propagation] };
    case "cgroup":
    case "cgroup2":
      // Engines ask for one that can only be read in every container, and some take a warning for the container's own words.
      if ((flags.flags & MS_RDONLY) !== 0) return { steps: [] };
      return {
        steps: [],
        warning: `mount ${target}: a VM has no control groups of its host; it is as large as its limits say`,
      };
    default:
      return `mount ${target}: type ${show(type)} cannot be had in a VM`;
  }
}

interface BindContext extends MountContext {
  readonly target: string;
  readonly flags: MountFlags;
  readonly propagation: readonly string[];
}

function bindSteps(
  { source = "" }: OciMount,
  { target, flags, bundle, index, folder, isInPod, propagation }: BindContext,
): MountSteps | string {
  const path = isAbsolute(source) ? source : join(bundle, source);
  const stat = statSync(path, { throwIfNoEntry: false });
  if (stat === undefined) return `mount ${target}: bind source ${path}: no such file or directory`;
  if (target === SHM && statfsSync(path).type === TMPFS_MAGIC) {
    return isInPod
      ? { steps: steps.bind(POD_MEMORY.slice(1), target, flags.flags, false) }
      : memoryOf(path, target, flags);
  }
  const device = stat.isCharacterDevice() ? deviceNumbers(stat.rdev) : undefined;
  if (device !== undefined && SAME_IN_GUEST.has(device)) {
    return { steps: steps.bind(`dev/${posix.basename(path)}`, target, 0, true) };
  }
  if (stat.isCharacterDevice() || stat.isBlockDevice()) return `mount ${target}: ${path} is a device of the host's`;
  const isFile = !stat.isDirectory();
  const name = `v${String(index)}`;
  const { isReadonly, isReadonlyBelow } = flags;
  const isAlone = !flags.isRecursive;
  const follows = isFollowing(flags.propagation);
  // In the guest all of the volume is one mount. Where something below may be written to, only the host keeps the rest.
  const isKeptByHost = isReadonly && !isReadonlyBelow && !isFile && (follows || (!isAlone && hasMountsBelow(path)));
  const guestFlags = MS_REC | (isKeptByHost ? flags.flags & ~MS_RDONLY : flags.flags);
  return {
    shared: { source: path, name, isFile, isAlone, isReadonly, isReadonlyBelow, follows },
    steps: [...steps.bind(posix.join(folder, name).slice(1), target, guestFlags, isFile), ...propagation],
    ...(lstatSync(path).isSocket()
      ? { warning: `mount ${target}: nobody listens in the VM at a socket of the host's: ${path}` }
      : {}),
  };
}

/** Memory that processes of the container share is the guest's: through a file server it would be no faster than a disk. */
function memoryOf(path: string, target: string, { flags }: MountFlags): MountSteps {
  return { steps: steps.mount("tmpfs", "shm", target, flags, memoryOptions(path)) };
}

function memoryOptions(path: string): string {
  const { blocks, bsize } = statfsSync(path);
  const bytes = blocks * bsize;
  return `mode=1777,size=${String(bytes > 0 ? bytes : DEFAULT_SHM_BYTES)}`;
}

/** Options of the file system in memory that a pod's containers share, as large as the engine's; undefined: they have none. */
export function podMemory({ mounts = [] }: OciSpec): string | undefined {
  // An engine may have a mount of its own there first.
  const sources = mounts.flatMap(({ destination, source = "" }) =>
    destination === SHM && isAbsolute(source) ? source : [],
  );
  return sources.filter((source) => existsSync(source)).map(memoryOptions)[0];
}

/** makedev(3) */
function deviceNumbers(rdev: number): string {
  return `${String((rdev >> 8) & 0xfff)}:${String((rdev & 0xff) | ((rdev >> 12) & 0xfff00))}`;
}

function isFollowing(propagation: number): boolean {
  return (propagation & (MS_SLAVE | MS_SHARED)) !== 0;
}

function isInGuest({ type, major = 0, minor = 0 }: OciDevice): boolean {
  return type === "p" || (type !== "b" && SAME_IN_GUEST.has(`${String(major)}:${String(minor)}`));
}

function deviceSteps(devices: readonly OciDevice[], warnings: string[]): string[] {
  const given = new Map(devices.map((device) => [device.path, device]));
  const all = [...DEFAULT_DEVICES.filter(({ path }) => !given.has(path)), ...devices];
  return all.flatMap((device) => {
    const { path, type, major = 0, minor = 0, fileMode = 0o666, uid = 0, gid = 0 } = device;
    const isPipe = type === "p";
    if (!isInGuest(device)) {
      warnings.push(`device ${path} (${type} ${String(major)}:${String(minor)}): the VM does not have it`);
      return [];
    }
    return steps.node({ path, mode: (isPipe ? S_IFIFO : S_IFCHR) | (fileMode & 0o7777), major, minor, uid, gid });
  });
}

/** What the guest's kernel makes for the container, where config.json asks for it; otherwise it has the guest's own. */
const IN_GUEST = new Set(["pid", "ipc", "uts", "mount", "cgroup"]);
/** That of the clocks is not in it: each VM has its own. */
const KNOWN = new Set([...IN_GUEST, "time"]);
/** Of another container's of the same pod, they are in the same VM. */
const OF_A_POD = new Set(["pid", "ipc", "uts"]);

/** A path is that of the pod's, which its sandbox makes. */
function namespacesOf({ linux }: OciSpec, { kind }: PodRole): Pick<GuestSetup, "namespaces" | "joined"> {
  const known = (linux?.namespaces ?? []).filter(({ type }) => IN_GUEST.has(type));
  const bits = (all: typeof known): number =>
    all.reduce((sum, { type }) => sum | NAMESPACES[type as keyof typeof NAMESPACES], 0);
  const isJoined = ({ path }: { readonly path?: string }): boolean => kind === "container" && (path ?? "") !== "";
  return {
    namespaces: bits(known.filter((one) => !isJoined(one))) | NAMESPACES.mount,
    joined: bits(known.filter(isJoined)),
  };
}

function refusals({ linux = {} }: OciSpec, { kind }: PodRole): string[] {
  const problems: string[] = [];
  const { namespaces = [], uidMappings = [], gidMappings = [], personality } = linux;
  for (const { type, path } of namespaces) {
    if (type === "user") problems.push("linux.namespaces: a user namespace: users and groups are those of the VM");
    else if (type === "network") continue;
    else if (!KNOWN.has(type)) problems.push(`linux.namespaces: ${show(type)} is none that is known`);
    else if (path !== undefined && path !== "" && !(kind !== "alone" && OF_A_POD.has(type))) {
      problems.push(`linux.namespaces: ${type} at ${path}: a VM cannot enter the namespace of another container`);
    }
  }
  if (uidMappings.length + gidMappings.length > 0) {
    problems.push("linux.uidMappings, linux.gidMappings: users and groups are those of the VM");
  }
  if (!namespaces.some(({ type }) => type === "network")) {
    problems.push("linux.namespaces: no network namespace: a VM has a network of its own, and not its host's");
  }
  if (personality !== undefined && personality.domain !== "LINUX") {
    problems.push(`linux.personality: ${show(personality.domain)} is not LINUX`);
  }
  return problems;
}

function lost({ linux = {}, process }: OciSpec): string[] {
  const { intelRdt, mountLabel, rootfsPropagation } = linux;
  const warnings: string[] = [];
  const warn = (is: boolean, text: string): void => {
    if (is) warnings.push(text);
  };
  const isSet = (text: string | undefined): boolean => text !== undefined && text !== "";
  warn(
    isSet(process?.apparmorProfile),
    "process.apparmorProfile is not applied: it is the host's kernel that would keep it",
  );
  warn(isSet(process?.selinuxLabel) || isSet(mountLabel), "labels of SELinux are not applied in the VM");
  warn(intelRdt !== undefined, "linux.intelRdt is not applied");
  warn(
    isSet(rootfsPropagation) && rootfsPropagation?.includes("shared") === true,
    "linux.rootfsPropagation ends at the VM",
  );
  return warnings;
}
