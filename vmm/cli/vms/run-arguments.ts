// argv -> what `vmlet run` is asked for: Docker's options, with its meanings.
import { JAIL_MODES } from "../../config/jail-modes.js";
import { VM_ACCELERATORS, type PortOption, type VmOptions, type VolumeOption } from "../../sdk/vm-options.js";
import type { TmpfsSpec } from "../../sdk/vm-spec.js";
import { parseBytes, parseWhole } from "../numbers.js";
import { parseOptions } from "../parse-options.js";
import { DetachKeys } from "./detach-keys.js";
import { DOCKER_FLAGS, refuseDockerOptions, withoutSwitches } from "./docker-options.js";
import { linesOf, variables } from "./file-lines.js";
import { splitAtCommand } from "./split-at-command.js";
import { UsageError } from "../usage-error.js";
import { parseGroups, parseHosts, parseMounts, parseShmSize, parseSysctls, parseUlimits } from "./world-arguments.js";

const NAME = "vmlet run";
const MIB = 2 ** 20;
const DOCKERS_LEAST_BYTES = 6 * MIB;
const MAX_GRACE_S = 2_000_000;
const NO_COMMAND = "; what is run comes behind all options";

/** As Node's parseArgs takes them. */
export const RUN_FLAGS = {
  rootfs: { type: "string" },
  disk: { type: "string" },
  memory: { type: "string", short: "m" },
  cpus: { type: "string" },
  env: { type: "string", short: "e", multiple: true },
  "env-file": { type: "string", multiple: true },
  workdir: { type: "string", short: "w" },
  user: { type: "string", short: "u" },
  volume: { type: "string", short: "v", multiple: true },
  tmpfs: { type: "string", multiple: true },
  publish: { type: "string", short: "p", multiple: true },
  network: { type: "string" },
  hostname: { type: "string", short: "h" },
  name: { type: "string" },
  label: { type: "string", short: "l", multiple: true },
  entrypoint: { type: "string" },
  "stop-signal": { type: "string" },
  "stop-timeout": { type: "string" },
  "label-file": { type: "string", multiple: true },
  cidfile: { type: "string" },
  "publish-all": { type: "boolean", short: "P" },
  expose: { type: "string", multiple: true },
  mount: { type: "string", multiple: true },
  "add-host": { type: "string", multiple: true },
  dns: { type: "string", multiple: true },
  "dns-search": { type: "string", multiple: true },
  "dns-option": { type: "string", multiple: true },
  "group-add": { type: "string", multiple: true },
  ulimit: { type: "string", multiple: true },
  "shm-size": { type: "string" },
  sysctl: { type: "string", multiple: true },
  pull: { type: "string" },
  timeout: { type: "string" },
  accel: { type: "string" },
  jail: { type: "string" },
  rm: { type: "boolean" },
  detach: { type: "boolean", short: "d" },
  "detach-keys": { type: "string" },
  interactive: { type: "boolean", short: "i" },
  tty: { type: "boolean", short: "t" },
  "read-only": { type: "boolean" },
  init: { type: "boolean" },
  quiet: { type: "boolean", short: "q" },
  help: { type: "boolean" },
} as const;

/** Docker's other names of some. */
const ALIASES = { net: { type: "string" }, "dns-opt": { type: "string", multiple: true } } as const;
const FLAGS = { ...RUN_FLAGS, ...ALIASES, ...DOCKER_FLAGS };

export interface RunOptions {
  readonly vm: VmOptions;
  /** Of the command line; empty: the image's. */
  readonly command: readonly string[];
  /** In place of the image's; an empty one is none. */
  readonly entrypoint: readonly string[] | undefined;
  readonly stopSignal: string | undefined;
  readonly stopTimeoutMs: number | undefined;
  /** Gets the VM's id; it must not be there. */
  readonly idFile: string | undefined;
  readonly autoRemove: boolean;
  readonly isDetached: boolean;
  readonly detachKeys: DetachKeys;
  readonly isInteractive: boolean;
  readonly hasTerminal: boolean;
  readonly isQuiet: boolean;
  readonly help: boolean;
}

/** Throws UsageError, and HostError for a file of variables that cannot be read. */
export function parseRun(argv: readonly string[]): RunOptions {
  const [given, words] = splitAtCommand(argv, FLAGS);
  const { args, isWithoutEntrypoint } = takeEmptyEntrypoint(withoutSwitches(given, FLAGS));
  const { values } = parseOptions(args, FLAGS, NAME, { hint: NO_COMMAND });
  refuseDockerOptions(NAME, values);
  const mounts = parseMounts(values.mount ?? []);
  const hasOwnRoot = values.rootfs !== undefined || values.disk !== undefined;
  const [image, ...rest]: (string | undefined)[] = hasOwnRoot ? [undefined, ...words] : [...words];
  const command = (rest[0] === "--" ? rest.slice(1) : rest) as string[];
  const help = values.help ?? false;
  if (!hasOwnRoot && image === undefined && !help) {
    throw new UsageError(`${NAME}: no IMAGE is given, nor --rootfs or --disk; try: ${NAME} --help`);
  }
  if (image === "") throw new UsageError(`${NAME}: the IMAGE is an empty word`);
  return {
    vm: {
      image,
      rootfs: values.rootfs,
      disk: values.disk,
      name: values.name,
      memoryMib: values.memory === undefined ? undefined : parseMemory(values.memory),
      cpus: values.cpus === undefined ? undefined : parseCpus(values.cpus),
      env: variables(values["env-file"] ?? [], values.env ?? []),
      workdir: values.workdir,
      user: values.user,
      groups: parseGroups(values["group-add"] ?? []),
      limits: parseUlimits(values.ulimit ?? []),
      hosts: values["add-host"] === undefined ? undefined : parseHosts(values["add-host"]),
      dns: values.dns,
      dnsSearch: values["dns-search"],
      dnsOptions: joined(values["dns-option"], values["dns-opt"]),
      shmBytes: parseShmSize(values["shm-size"]),
      sysctls: values.sysctl === undefined ? undefined : parseSysctls(values.sysctl),
      network: parseNetwork(values.network ?? values.net),
      ports: (values.publish ?? []).flatMap(parsePorts),
      publishAll: values["publish-all"] ?? false,
      expose: values.expose,
      volumes: [...(values.volume ?? []).map(parseVolume), ...mounts.volumes],
      tmpfs: [...(values.tmpfs ?? []).map(parseTmpfs), ...mounts.tmpfs],
      hostName: values.hostname,
      readonly: values["read-only"] ?? false,
      labels: { ...fileLabels(values["label-file"] ?? []), ...labels(values.label ?? []) },
      pull: oneOf("--pull", values.pull, ["missing", "always", "never"]),
      timeoutMs: values.timeout === undefined ? undefined : parseTimeout(values.timeout),
      accel: oneOf("--accel", values.accel, VM_ACCELERATORS),
      jail: oneOf("--jail", values.jail, JAIL_MODES),
    },
    command,
    entrypoint: isWithoutEntrypoint ? [] : values.entrypoint === undefined ? undefined : [values.entrypoint],
    stopSignal: values["stop-signal"],
    stopTimeoutMs:
      values["stop-timeout"] === undefined ? undefined : parseGrace("--stop-timeout", values["stop-timeout"]),
    idFile: values.cidfile,
    autoRemove: values.rm ?? false,
    isDetached: values.detach ?? false,
    detachKeys: new DetachKeys(values["detach-keys"]),
    isInteractive: values.interactive ?? false,
    hasTerminal: values.tty ?? false,
    isQuiet: values.quiet ?? false,
    help,
  };
}

/** The one option that may be empty: in one word or two. */
function takeEmptyEntrypoint(args: readonly string[]): { args: string[]; isWithoutEntrypoint: boolean } {
  const at = args.findIndex(
    (word, index) => word === "--entrypoint=" || (word === "--entrypoint" && args[index + 1] === ""),
  );
  if (at < 0) return { args: [...args], isWithoutEntrypoint: false };
  return { args: args.toSpliced(at, args[at] === "--entrypoint" ? 2 : 1), isWithoutEntrypoint: true };
}

function joined(...lists: readonly (readonly string[] | undefined)[]): string[] | undefined {
  const all = lists.flatMap((list) => list ?? []);
  return all.length === 0 ? undefined : all;
}

/** In MiB; a number that as MiB would be more than any host has is Docker's: bytes, of which it wants 6 MiB. */
function parseMemory(text: string): number {
  const number = parseWhole(text);
  const unit = number !== undefined && number >= DOCKERS_LEAST_BYTES ? 1 : MIB;
  const bytes = parseBytes(text.replace(/(\d)b$/i, "$1"), /b$/i.test(text) ? 1 : unit);
  if (bytes === undefined || bytes % MIB !== 0) {
    throw new UsageError(`--memory ${JSON.stringify(text)} is not a whole number of MiB, or a size such as 512M or 2G`);
  }
  return bytes / MIB;
}

function parseCpus(text: string): number {
  const number = /^\d+\.\d+$/.test(text) ? Number(text) : undefined;
  if (number !== undefined && !Number.isInteger(number)) {
    throw new UsageError(
      `--cpus ${JSON.stringify(text)}: a VM has whole vCPUs; for a part of one run vmlet under systemd-run -p CPUQuota=`,
    );
  }
  return number ?? whole("--cpus", text);
}

/** Seconds, as `ms`. */
export function parseGrace(option: string, text: string): number {
  const seconds = parseWhole(text);
  const what = `${option} ${JSON.stringify(text)}`;
  if (seconds === undefined) throw new UsageError(`${what} is not a whole number of seconds`);
  if (seconds > MAX_GRACE_S) throw new UsageError(`${what}: the limit is ${String(MAX_GRACE_S)} seconds`);
  return seconds * 1000;
}

function whole(option: string, text: string): number {
  const value = parseWhole(text);
  if (value === undefined) throw new UsageError(`${option} ${JSON.stringify(text)} is not a whole number`);
  return value;
}

/** Seconds, or with a unit: 90, 1.5s, 500ms, 2m, 1h. */
function parseTimeout(text: string): number {
  const [, amount, unit = "s"] = /^(\d+(?:\.\d+)?)(ms|s|m|h)?$/.exec(text) ?? [];
  const ms = Math.round(Number(amount) * { ms: 1, s: 1000, m: 60_000, h: 3_600_000 }[unit as "s"]);
  if (amount === undefined || ms < 1) {
    throw new UsageError(`--timeout ${JSON.stringify(text)} is not a time such as 90, 500ms, 2m or 1h`);
  }
  return ms;
}

function parseNetwork(text: string | undefined): VmOptions["network"] {
  if (text === undefined) return undefined;
  if (text === "none" || text === "user") return text;
  const [, tap] = /^tap[=:](.+)$/.exec(text) ?? [];
  if (tap !== undefined) return { tap };
  if (text === "tap") return { tap: "auto" };
  const hint =
    text === "host"
      ? ": a VM has a network of its own, and cannot have the host's"
      : text === "bridge" || text === "default"
        ? ": as with Docker's default, --network user leads out"
        : "";
  throw new UsageError(`--network ${JSON.stringify(text)} is not none, user, tap or tap=NAME${hint}`);
}

/** [[ADDRESS:][HOSTPORT[-LAST]]:]GUESTPORT[-LAST][/udp]; without a port of this host, any that is free. */
export function parsePorts(text: string): PortOption[] {
  const match = /^(?:(?:([\d.]+):)?(?:(\d{1,5})(?:-(\d{1,5}))?)?:)?(\d{1,5})(?:-(\d{1,5}))?(?:\/(tcp|udp))?$/.exec(
    text,
  );
  if (match === null) {
    throw new UsageError(
      `--publish ${JSON.stringify(text)} is not [IPV4ADDRESS:]HOSTPORT:GUESTPORT, of which each may be a range, with /udp behind it for UDP`,
    );
  }
  const [, hostAddress, host, lastHost = host, guest, lastGuest = guest, protocol] = match;
  const guests = range(Number(guest), Number(lastGuest));
  const hosts = host === undefined ? guests.map(() => 0) : range(Number(host), Number(lastHost));
  if (guests.length === 0 || hosts.length !== guests.length) {
    throw new UsageError(
      `--publish ${JSON.stringify(text)}: the ranges are not of one length, or end before they begin`,
    );
  }
  return guests.map((guestPort, at) => ({
    hostAddress,
    hostPort: hosts[at] ?? 0,
    guestPort,
    protocol: protocol as PortOption["protocol"],
  }));
}

function range(first: number, last: number): number[] {
  return Array.from({ length: Math.max(0, last - first + 1) }, (_, at) => first + at);
}

/** HOST:GUEST[:ro|rw] */
export function parseVolume(text: string): VolumeOption {
  const [hostPath = "", guestPath, mode = "rw", ...more] = text.split(":");
  if (
    guestPath === undefined ||
    hostPath === "" ||
    guestPath === "" ||
    !["ro", "rw"].includes(mode) ||
    more.length > 0
  ) {
    throw new UsageError(
      `--volume ${JSON.stringify(text)} is not HOST:GUEST, with :ro behind it for one that the guest may not write to`,
    );
  }
  if (!hostPath.includes("/") && hostPath !== "." && hostPath !== "..") {
    throw new UsageError(`--volume ${JSON.stringify(text)}: volumes have no names here; write a path: ./${hostPath}`);
  }
  return { hostPath, guestPath, readonly: mode === "ro" };
}

/** GUEST[:OPTIONS] */
function parseTmpfs(text: string): TmpfsSpec {
  const at = text.indexOf(":");
  return at < 0 ? { guestPath: text, options: "" } : { guestPath: text.slice(0, at), options: text.slice(at + 1) };
}

function oneOf<const Word extends string>(
  option: string,
  text: string | undefined,
  words: readonly Word[],
): Word | undefined {
  if (text === undefined || words.includes(text as Word)) return text as Word | undefined;
  throw new UsageError(`${option} ${JSON.stringify(text)} is not one of ${words.join(", ")}`);
}

function labels(words: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    words.map((word) => {
      const at = word.indexOf("=");
      return at < 0 ? [word, ""] : [word.slice(0, at), word.slice(at + 1)];
    }),
  );
}

/** Lines of NAME=VALUE, as of an --env-file. */
function fileLabels(files: readonly string[]): Record<string, string> {
  return labels(files.flatMap((file) => linesOf("--label-file", file, "the name of a label").map(({ line }) => line)));
}
