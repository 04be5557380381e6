// argv -> what `vmlet run` is asked for: Docker's options, with its meanings.
import { readFileSync } from "node:fs";
import { HostError } from "../../errors.js";
import { errnoText } from "../../host/errno-text.js";
import { VM_ACCELERATORS, type PortOption, type VmOptions, type VolumeOption } from "../../sdk/vm-options.js";
import type { TmpfsSpec } from "../../sdk/vm-spec.js";
import { parseBytes, parseWhole } from "../numbers.js";
import { parseOptions } from "../parse-options.js";
import { DetachKeys } from "./detach-keys.js";
import { splitAtCommand } from "./split-at-command.js";
import { UsageError } from "../usage-error.js";

const NAME = "vmlet run";
const MIB = 2 ** 20;
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
  pull: { type: "string" },
  timeout: { type: "string" },
  accel: { type: "string" },
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

export interface RunOptions {
  readonly vm: VmOptions;
  /** Of the command line; empty: the image's. */
  readonly command: readonly string[];
  /** In place of the image's; an empty one is none. */
  readonly entrypoint: readonly string[] | undefined;
  readonly stopSignal: string | undefined;
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
  const [args, words] = splitAtCommand(argv, RUN_FLAGS);
  const { values } = parseOptions(
    args.filter((word) => word !== "--entrypoint="),
    RUN_FLAGS,
    NAME,
    { hint: NO_COMMAND },
  );
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
      cpus: values.cpus === undefined ? undefined : whole("--cpus", values.cpus),
      env: variables(values["env-file"] ?? [], values.env ?? []),
      workdir: values.workdir,
      user: values.user,
      network: values.network === undefined ? undefined : parseNetwork(values.network),
      ports: (values.publish ?? []).flatMap(parsePorts),
      volumes: (values.volume ?? []).map(parseVolume),
      tmpfs: (values.tmpfs ?? []).map(parseTmpfs),
      hostName: values.hostname,
      readonly: values["read-only"] ?? false,
      labels: labels(values.label ?? []),
      pull: oneOf("--pull", values.pull, ["missing", "always", "never"]),
      timeoutMs: values.timeout === undefined ? undefined : parseTimeout(values.timeout),
      accel: oneOf("--accel", values.accel, VM_ACCELERATORS),
    },
    command,
    entrypoint: args.includes("--entrypoint=") ? [] : values.entrypoint === undefined ? undefined : [values.entrypoint],
    stopSignal: values["stop-signal"],
    autoRemove: values.rm ?? false,
    isDetached: values.detach ?? false,
    detachKeys: new DetachKeys(values["detach-keys"]),
    isInteractive: values.interactive ?? false,
    hasTerminal: values.tty ?? false,
    isQuiet: values.quiet ?? false,
    help,
  };
}

function parseMemory(text: string): number {
  const bytes = parseBytes(text, MIB);
  if (bytes === undefined || bytes % MIB !== 0) {
    throw new UsageError(`--memory ${JSON.stringify(text)} is not a whole number of MiB, or a size such as 512M or 2G`);
  }
  return bytes / MIB;
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

function parseNetwork(text: string): VmOptions["network"] {
  if (text === "none" || text === "user") return text;
  const [, tap] = /^tap[=:](.+)$/.exec(text) ?? [];
  if (tap !== undefined) return { tap };
  if (text === "tap") return { tap: "auto" };
  const hint = text === "host" ? ": a VM has a network of its own, and cannot have the host's" : "";
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

/** NAME=VALUE, or NAME alone for this process's own; files first, words win. */
export function variables(files: readonly string[], words: readonly string[]): Record<string, string> {
  const env = new Map<string, string>();
  const add = (word: string, where: string): void => {
    const at = word.indexOf("=");
    const name = at < 0 ? word : word.slice(0, at);
    if (name === "") throw new UsageError(`${where} ${JSON.stringify(word)} is not NAME=VALUE or NAME`);
    const value = at < 0 ? process.env[name] : word.slice(at + 1);
    // As Docker has it: what is not set here is not set there.
    if (value === undefined) env.delete(name);
    else env.set(name, value);
  };
  for (const file of files) {
    textOf(file)
      .split(/\r?\n/)
      .forEach((whole, index) => {
        const line = whole.trimStart();
        if (line === "" || line.startsWith("#")) return;
        const where = `--env-file ${file}: line ${String(index + 1)}`;
        if (/\s/.test(line.split("=", 1)[0] ?? "")) {
          throw new UsageError(`${where} ${JSON.stringify(line)}: the name of a variable has no blanks`);
        }
        add(line, where);
      });
  }
  for (const word of words) add(word, "--env");
  return Object.fromEntries(env);
}

/** Of more, no program could get anything. */
const MAX_ENV_FILE = 1024 * 1024;

function textOf(file: string): string {
  let bytes: Buffer;
  try {
    bytes = readFileSync(file);
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? "";
    throw new HostError(`--env-file ${file}: cannot be read: ${errnoText(code)}`, { cause: error });
  }
  if (bytes.length > MAX_ENV_FILE) {
    throw new UsageError(`--env-file ${file} has ${String(bytes.length)} bytes; the limit is ${String(MAX_ENV_FILE)}`);
  }
  try {
    // Without the mark that some editors write at its start.
    return new TextDecoder("utf8", { fatal: true }).decode(bytes);
  } catch (error) {
    throw new UsageError(`--env-file ${file} is not UTF-8`, { cause: error });
  }
}
