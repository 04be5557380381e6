// What a program may ask of a VM that runs programs, checked before anything is made.
import { isAbsolute, posix, resolve } from "node:path";
import { statSync } from "node:fs";
import {
  DEFAULT_CPUS,
  DEFAULT_RUN_MEMORY_MIB,
  MAX_CPUS,
  MAX_MEMORY_MIB,
  MIN_RUN_MEMORY_MIB,
} from "../config/defaults.js";
import { JAIL_MODES, type JailMode } from "../config/jail-modes.js";
import { integerProblem } from "../config/check.js";
import { show } from "../config/show.js";
import { ConfigError } from "../errors.js";
import type { AcceleratorChoice } from "../lab/accelerator.js";
import { errnoText } from "../host/errno-text.js";
import { isHostName } from "../snapshot/host-name.js";
import { checkLimits, type CommandOptions } from "../agent/exec-request.js";
import { vmNameProblem } from "./state-folder.js";
import { tmpfsMount } from "./tmpfs-options.js";
import type { NetworkSpec, TmpfsSpec, VolumeSpec, WorldSpec } from "./vm-spec.js";
import type { PublishedPort } from "./vm-record.js";
import { checkWorld, WORLD_OPTIONS, type WorldOptions } from "./world-options.js";

const MAX_PORT = 65535;
/** Each costs a socket of this host. */
const MAX_PORTS = 1024;
const MAX_TIMEOUT_MS = 2 ** 31 - 1;
/** Of a user or group, as Docker has it. */
const MAX_ID = 2 ** 31 - 1;
/** Besides those of its user. */
const MAX_GROUPS = 32;
const LOOPBACK = "127.0.0.1";
const IPV4 = /^(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.|$)){4}$/;

export interface VmOptions extends WorldOptions {
  /** An image, as skopeo names it: docker-archive:FILE, oci:DIR, docker://HOST/NAME, a name of the local engine, … */
  readonly image?: string | undefined;
  /** A folder of this host that becomes the root, as it is now. */
  readonly rootfs?: string | undefined;
  /** The image of a file system that becomes the root, and that the guest writes to. */
  readonly disk?: string | undefined;
  /** Of the VM, among those of this user; default: made from its id. */
  readonly name?: string | undefined;
  /** Guest RAM in `MiB`. */
  readonly memoryMib?: number | undefined;
  /** Number of vCPUs. */
  readonly cpus?: number | undefined;
  /** Variables of all its programs, besides those of the image. */
  readonly env?: Readonly<Record<string, string>> | undefined;
  /** Where its programs start; default: the image's, or "/". */
  readonly workdir?: string | undefined;
  /** NAME, UID, NAME:GROUP or UID:GID; default: the image's, or root. */
  readonly user?: string | undefined;
  /** Supplementary groups of all its programs besides their user's, by number. */
  readonly groups?: readonly number[] | undefined;
  /** Resource limits of all its programs, as setrlimit(2) has them: { nofile: 1024 }. */
  readonly limits?: CommandOptions["limits"] | undefined;
  /** "user": a network that needs no rights. Default: "none", or "user" with ports. */
  readonly network?: "none" | "user" | { readonly tap: string } | undefined;
  /** Ports of this host, on 127.0.0.1, that lead to the guest's: { 8080: 80 }; or all there is to say of each. */
  readonly ports?: Readonly<Record<number, number>> | readonly PortOption[] | undefined;
  /** Each port that the image names, and those of `expose`, gets a port of this host that is free. */
  readonly publishAll?: boolean | undefined;
  /** More ports than the image names: "80", "53/udp", "8000-8002/tcp". */
  readonly expose?: readonly string[] | undefined;
  /** Folders and files of this host in the guest. */
  readonly volumes?: readonly VolumeOption[] | undefined;
  /** Folders in the guest's memory: paths, or paths with mount's options. */
  readonly tmpfs?: readonly (string | TmpfsSpec)[] | undefined;
  readonly hostName?: string | undefined;
  /** The guest may not write to its root. */
  readonly readonly?: boolean | undefined;
  readonly labels?: Readonly<Record<string, string>> | undefined;
  /** When an image is fetched. */
  readonly pull?: "missing" | "always" | "never" | undefined;
  /** `ms` until the VM is ended; default: it lives until it is closed. */
  readonly timeoutMs?: number | undefined;
  /** "kvm": this host's /dev/kvm. "lab": an emulated host, which is slower. "auto", the default: the lab where there is no /dev/kvm that can be used. */
  readonly accel?: VmAccelerator | undefined;
  /** Walls around the VM's own process while the guest runs. Default: "on". */
  readonly jail?: JailMode | undefined;
}

/** Bochs' lab is for those who look at VT-x itself: it takes minutes. */
export const VM_ACCELERATORS = ["auto", "kvm", "lab"] as const satisfies readonly AcceleratorChoice[];
export type VmAccelerator = (typeof VM_ACCELERATORS)[number];

export interface PortOption {
  readonly hostAddress?: string | undefined;
  /** 0: any that is free; `vm.ports` has it. */
  readonly hostPort: number;
  readonly guestPort: number;
  readonly protocol?: "tcp" | "udp" | undefined;
}

export interface VolumeOption {
  readonly hostPath: string;
  readonly guestPath: string;
  readonly readonly?: boolean | undefined;
}

export interface CheckedOptions {
  readonly root:
    | { readonly kind: "image"; readonly reference: string }
    | { readonly kind: "rootfs" | "disk"; readonly path: string };
  readonly name: string | undefined;
  readonly memoryMib: number;
  readonly cpus: number;
  readonly env: readonly string[];
  readonly workdir: string | undefined;
  readonly user: string | undefined;
  readonly network: NetworkSpec;
  readonly ports: readonly PublishedPort[];
  readonly volumes: readonly VolumeSpec[];
  readonly tmpfs: readonly TmpfsSpec[];
  readonly hostName: string | undefined;
  readonly isReadonly: boolean;
  readonly labels: Readonly<Record<string, string>>;
  readonly pull: "missing" | "always" | "never";
  readonly timeoutMs: number;
  readonly accel: VmAccelerator;
  readonly jail: JailMode;
  readonly groups: CommandOptions["groups"];
  readonly limits: CommandOptions["limits"];
  /** Undefined: none but those of `ports`. */
  readonly publishAll: { readonly expose: readonly string[] } | undefined;
  /** The network was chosen, and is not what goes with the rest. */
  readonly hasOwnNetwork: boolean;
  readonly world: WorldSpec | undefined;
}

const KNOWN = [
  ...["image", "rootfs", "disk", "name", "memoryMib", "cpus", "env", "workdir", "user", "network", "ports"],
  ...["volumes", "tmpfs", "hostName", "readonly", "labels", "pull", "timeoutMs", "accel", "jail"],
  ...["groups", "limits", "publishAll", "expose", ...WORLD_OPTIONS],
];

/** Throws ConfigError with one line a problem; its callers may be JavaScript. */
export function checkVmOptions(given: VmOptions): CheckedOptions {
  if (typeof given !== "object" || (given as unknown) === null)
    throw new ConfigError([`Options ${show(given)} are no object`]);
  const problems = Object.keys(given)
    .filter((key) => !KNOWN.includes(key))
    .map((key) => `Unknown option ${JSON.stringify(key)}; known are ${KNOWN.join(", ")}`);
  const checker = new Checker(given as unknown as Readonly<Record<string, unknown>>, problems);
  const checked = checker.all();
  if (problems.length > 0) throw new ConfigError(problems);
  return checked;
}

/** What is wrong with a user before the guest is asked: it alone knows names. */
export function userProblem(user: string): string | undefined {
  const isTooLarge = user.split(":").some((part) => /^\d+$/.test(part) && Number(part) > MAX_ID);
  if (!isTooLarge) return undefined;
  return `user ${show(user)}: users and groups have numbers from 0 to ${String(MAX_ID)}`;
}

/** What an image's EXPOSE says: each port of it gets one of this host that is free. Undefined for what it cannot say. */
export function exposedPorts(text: string): PublishedPort[] | undefined {
  const [, first, last = first, protocol = "tcp"] = /^(\d{1,5})(?:-(\d{1,5}))?(?:\/(tcp|udp))?$/.exec(text) ?? [];
  const [from, to] = [Number(first), Number(last)];
  if (first === undefined || from < 1 || to < from || to > MAX_PORT || to - from >= MAX_PORTS) return undefined;
  return Array.from({ length: to - from + 1 }, (_, at) => ({
    hostAddress: LOOPBACK,
    hostPort: 0,
    guestPort: from + at,
    protocol: protocol as PublishedPort["protocol"],
  }));
}

class Checker {
  readonly #given: Readonly<Record<string, unknown>>;
  readonly #problems: string[];

  constructor(given: Readonly<Record<string, unknown>>, problems: string[]) {
    this.#given = given;
    this.#problems = problems;
  }

  all(): CheckedOptions {
    const ports = this.#ports();
    const volumes = this.#list("volumes").map((volume, at) => this.#volume(volume, at));
    const tmpfs = this.#list("tmpfs").map((one, at) => this.#tmpfs(one, at));
    this.#refuseSamePlace([...volumes, ...tmpfs].map(({ guestPath }) => guestPath));
    return {
      root: this.#root(),
      name: this.#name(),
      memoryMib: this.#integer("memoryMib", DEFAULT_RUN_MEMORY_MIB, MIN_RUN_MEMORY_MIB, MAX_MEMORY_MIB),
      cpus: this.#integer("cpus", DEFAULT_CPUS, 1, MAX_CPUS),
      env: Object.entries(this.#texts("env")).map(([name, value]) => `${name}=${value}`),
      workdir: this.#guestPath("workdir", this.#given["workdir"]),
      user: this.#user(),
      network: this.#network(ports),
      ports,
      volumes,
      tmpfs,
      hostName: this.#hostName(),
      isReadonly: this.#flag("readonly"),
      labels: this.#texts("labels"),
      pull: this.#oneOf("pull", ["missing", "always", "never"]) ?? "missing",
      timeoutMs: this.#integer("timeoutMs", 0, 0, MAX_TIMEOUT_MS),
      accel: this.#oneOf("accel", VM_ACCELERATORS) ?? "auto",
      jail: this.#oneOf("jail", JAIL_MODES) ?? "on",
      groups: this.#groups(),
      limits: this.#limits(),
      publishAll: this.#publishAll(),
      hasOwnNetwork: this.#given["network"] !== undefined,
      world: checkWorld(this.#given, this.#problems),
    };
  }

  #root(): CheckedOptions["root"] {
    const kinds = (["image", "rootfs", "disk"] as const).filter((kind) => this.#given[kind] !== undefined);
    const [kind, another] = kinds;
    if (kind === undefined || another !== undefined) {
      this.#problems.push(
        kind === undefined
          ? "No root is given: image, rootfs or disk"
          : `A VM has one root; given are ${kinds.join(" and ")}`,
      );
      return { kind: "image", reference: "" };
    }
    const value = this.#text(kind) ?? "";
    if (kind === "image") return { kind, reference: value };
    const path = resolve(value);
    const stat = statSync(path, { throwIfNoEntry: false });
    if (stat === undefined)
      this.#problems.push(`${kind} ${show(value)}: no such ${kind === "rootfs" ? "folder" : "file"}`);
    else if (kind === "rootfs" && !stat.isDirectory()) this.#problems.push(`rootfs ${show(value)} is not a folder`);
    return { kind, path };
  }

  #name(): string | undefined {
    const name = this.#text("name");
    const problem = name === undefined ? undefined : vmNameProblem(name);
    if (problem !== undefined) this.#problems.push(problem);
    return name;
  }

  #user(): string | undefined {
    const user = this.#text("user");
    const problem = user === undefined ? undefined : userProblem(user);
    if (problem !== undefined) this.#problems.push(problem);
    return user;
  }

  #groups(): CommandOptions["groups"] {
    if (this.#given["groups"] === undefined) return undefined;
    const groups = this.#list("groups");
    for (const group of groups) {
      const problem = integerProblem("groups", group, { minimum: 0, maximum: MAX_ID });
      if (problem !== undefined) this.#problems.push(problem);
    }
    if (groups.length > MAX_GROUPS)
      this.#problems.push(`groups: ${String(groups.length)} are too many; the limit is ${String(MAX_GROUPS)}`);
    return groups as readonly number[];
  }

  #limits(): CommandOptions["limits"] {
    const { limits } = this.#given;
    if (limits === undefined) return undefined;
    if (typeof limits === "object" && limits !== null && !Array.isArray(limits)) {
      checkLimits(limits, this.#problems);
      return limits;
    }
    this.#problems.push(`limits ${show(limits)} are not an object`);
    return undefined;
  }

  #publishAll(): CheckedOptions["publishAll"] {
    const expose = this.#list("expose");
    for (const text of expose) {
      if (typeof text !== "string" || exposedPorts(text) === undefined)
        this.#problems.push(`expose: ${show(text)} is not PORT[-LAST][/tcp|/udp]`);
    }
    return this.#flag("publishAll") ? { expose: expose as readonly string[] } : undefined;
  }

  #hostName(): string | undefined {
    const { hostName } = this.#given;
    if (hostName === undefined || isHostName(hostName)) return hostName;
    this.#problems.push(`hostName ${show(hostName)} is not 1 to 64 letters, digits, "." and "-"`);
    return undefined;
  }

  #network(ports: readonly PublishedPort[]): NetworkSpec {
    const { network } = this.#given;
    if (network === undefined) return { kind: ports.length > 0 ? "user" : "none" };
    if (network === "user" || network === "none") {
      if (network === "none" && ports.length > 0) this.#problems.push('network "none" has no ports');
      return { kind: network };
    }
    const tap: unknown = typeof network === "object" ? (network as { tap?: unknown } | null)?.tap : undefined;
    if (typeof tap === "string") {
      if (ports.length > 0)
        this.#problems.push('ports are for the network "user"; an interface has addresses of its own');
      return { kind: "tap", tap };
    }
    this.#problems.push(`network ${show(network)} is not "none", "user" or { tap: NAME }`);
    return { kind: "none" };
  }

  #ports(): PublishedPort[] {
    const { ports } = this.#given;
    if (ports === undefined) return [];
    if (typeof ports !== "object" || ports === null) {
      this.#problems.push(`ports ${show(ports)} are neither an object nor a list`);
      return [];
    }
    const list: readonly unknown[] = Array.isArray(ports)
      ? ports
      : Object.entries(ports).map(([hostPort, guestPort]) => ({
          hostPort: Number(hostPort),
          guestPort: guestPort as unknown,
        }));
    if (list.length > MAX_PORTS) {
      this.#problems.push(`ports: ${String(list.length)} are too many; the limit is ${String(MAX_PORTS)}`);
      return [];
    }
    const all = list.map((one) => this.#port(one));
    // passt does not tell addresses of this host apart there.
    const ends = all
      .filter(({ hostPort }) => hostPort !== 0)
      .map((port) => `${String(port.hostPort)}/${port.protocol}`);
    for (const end of new Set(ends.filter((one, at) => ends.indexOf(one) !== at))) {
      this.#problems.push(`ports: ${end} of this host is given more than once`);
    }
    return all;
  }

  #port(given: unknown): PublishedPort {
    const {
      hostAddress = LOOPBACK,
      hostPort,
      guestPort,
      protocol = "tcp",
    } = typeof given === "object" && given !== null ? (given as Readonly<Record<string, unknown>>) : {};
    for (const [name, port, minimum] of [
      ["hostPort", hostPort, 0],
      ["guestPort", guestPort, 1],
    ] as const) {
      const problem = integerProblem(`ports: ${name}`, port, { minimum, maximum: MAX_PORT });
      if (problem !== undefined) this.#problems.push(problem);
    }
    if (typeof hostAddress !== "string" || !IPV4.test(hostAddress)) {
      this.#problems.push(`ports: hostAddress ${show(hostAddress)} is not an IPv4 address`);
    }
    if (protocol !== "tcp" && protocol !== "udp")
      this.#problems.push(`ports: protocol ${show(protocol)} is not tcp or udp`);
    return { hostAddress, hostPort, guestPort, protocol } as PublishedPort;
  }

  #volume(given: unknown, at: number): VolumeSpec {
    const where = `volumes: ${String(at + 1)}`;
    const {
      hostPath,
      guestPath,
      readonly = false,
    } = typeof given === "object" && given !== null ? (given as Readonly<Record<string, unknown>>) : {};
    const kind = this.#sharedKind(`${where}: hostPath`, hostPath);
    if (typeof readonly !== "boolean") this.#problems.push(`${where}: readonly ${show(readonly)} is not true or false`);
    return {
      hostPath: typeof hostPath === "string" ? resolve(hostPath) : "",
      guestPath: this.#mountPoint(`${where}: guestPath`, guestPath),
      isReadonly: readonly === true,
      isFile: kind === "file",
    };
  }

  #sharedKind(what: string, path: unknown): "folder" | "file" | undefined {
    if (typeof path !== "string" || path === "" || path.includes("\0")) {
      this.#problems.push(`${what} ${show(path)} is not a path`);
      return undefined;
    }
    try {
      const stat = statSync(path, { throwIfNoEntry: false });
      if (stat?.isDirectory() === true) return "folder";
      if (stat?.isFile() === true) return "file";
      this.#problems.push(
        `${what} ${show(path)}${stat === undefined ? ": no such folder or file" : " is neither a folder nor a file"}`,
      );
    } catch (error) {
      this.#problems.push(`${what} ${show(path)}: ${errnoText((error as NodeJS.ErrnoException).code ?? "")}`);
    }
    return undefined;
  }

  #tmpfs(given: unknown, at: number): TmpfsSpec {
    const where = `tmpfs: ${String(at + 1)}`;
    const { guestPath, options = "" } =
      typeof given === "string"
        ? { guestPath: given }
        : typeof given === "object" && given !== null
          ? (given as { guestPath?: unknown; options?: unknown })
          : { guestPath: null };
    const mount = typeof options === "string" ? tmpfsMount(options) : `options ${show(options)} are no text`;
    if (typeof mount === "string") this.#problems.push(`${where}: ${mount}`);
    return { guestPath: this.#mountPoint(where, guestPath), options: String(options) };
  }

  #mountPoint(name: string, value: unknown): string {
    const path = this.#guestPath(name, value ?? null) ?? "";
    if (path === "/") this.#problems.push(`${name} "/" is the root itself; --rootfs and --disk give another`);
    // A slash at the end means nothing.
    return path.length > 1 && path.endsWith("/") ? path.slice(0, -1) : path;
  }

  #refuseSamePlace(paths: readonly string[]): void {
    const twice = paths.filter((path, at) => path !== "" && paths.indexOf(path) !== at);
    for (const path of new Set(twice)) this.#problems.push(`More than one volume or tmpfs is at ${show(path)}`);
  }

  #guestPath(name: string, value: unknown): string | undefined {
    if (value === undefined) return undefined;
    if (typeof value === "string" && isAbsolute(value) && !value.includes("\0")) return posix.normalize(value);
    this.#problems.push(`${name} ${show(value)} is not an absolute path of the guest`);
    return undefined;
  }

  #list(name: string): readonly unknown[] {
    const value = this.#given[name];
    if (value === undefined) return [];
    if (Array.isArray(value)) return value as unknown[];
    this.#problems.push(`${name} ${show(value)} is not a list`);
    return [];
  }

  #flag(name: string): boolean {
    const value = this.#given[name] ?? false;
    if (typeof value !== "boolean") this.#problems.push(`${name} ${show(value)} is not true or false`);
    return value === true;
  }

  #text(name: string): string | undefined {
    const value = this.#given[name];
    if (value === undefined || (typeof value === "string" && value !== "" && !value.includes("\0"))) return value;
    this.#problems.push(`${name} ${show(value)} is not a text without NUL`);
    return undefined;
  }

  #oneOf<const Word extends string>(name: string, words: readonly Word[]): Word | undefined {
    const value = this.#given[name];
    if (value === undefined || words.includes(value as Word)) return value as Word | undefined;
    this.#problems.push(`${name} ${show(value)} is not one of ${words.join(", ")}`);
    return undefined;
  }

  #integer(name: string, otherwise: number, minimum: number, maximum: number): number {
    const value = this.#given[name] ?? otherwise;
    const problem = integerProblem(name, value, { minimum, maximum });
    if (problem !== undefined) this.#problems.push(problem);
    return value as number;
  }

  /** A record of texts. */
  #texts(name: string): Readonly<Record<string, string>> {
    const value: unknown = this.#given[name] ?? {};
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      this.#problems.push(`${name} ${show(value)} is not an object`);
      return {};
    }
    for (const [key, text] of Object.entries(value as Record<string, unknown>)) {
      if (key === "" || key.includes("\0") || (name === "env" && key.includes("="))) {
        this.#problems.push(`${name} has no entry ${show(key)}: a name has no "=" and no NUL`);
      } else if (typeof text !== "string" || text.includes("\0")) {
        this.#problems.push(`${name}.${key} ${show(text)} is not a text without NUL`);
      }
    }
    return value as Record<string, string>;
  }
}
