// Firecracker's command line: `--name VALUE` alone, no `--name=VALUE`, nothing twice, what follows `--` is not looked at.

const DEFAULT_SOCKET = "/run/firecracker.socket";
const DEFAULT_ID = "anonymous-instance";
const MAX_ID = 64;
/** Of metadata, too, unless `--mmds-size-limit` says otherwise. */
export const MAX_BODY_BYTES = 51_200;
/** Metadata and other bodies are kept in memory whole. */
const MOST_BODY_BYTES = 2 ** 30;

/** The command line is not one of Firecracker's. */
export class ArgumentError extends Error {}

/** What each takes, and what it is for; in the order of the help. */
export const ARGUMENTS = {
  "api-sock": { value: "PATH", help: `Socket of the API [default: ${DEFAULT_SOCKET}]` },
  "boot-timer": { help: "Log how long the guest takes from InstanceStart to its init" },
  "config-file": { value: "FILE", help: "Configuration of a microVM in JSON, which is started" },
  "describe-snapshot": { value: "FILE", help: "Print the version of the format of a snapshot's state file" },
  "enable-pci": { help: "Taken, and without effect: devices are on virtio-mmio" },
  help: { help: "Print this" },
  "http-api-max-payload-size": {
    value: "BYTES",
    help: `Longest body of a request [default: ${String(MAX_BODY_BYTES)}]`,
  },
  id: { value: "ID", help: `Name of the microVM [default: ${DEFAULT_ID}]` },
  level: { value: "LEVEL", help: "Off, Error, Warn, Info, Debug or Trace" },
  "log-path": { value: "FILE", help: "File or FIFO of the log" },
  metadata: { value: "FILE", help: "Metadata of the guest (MMDS) in JSON" },
  "metrics-path": { value: "FILE", help: "File or FIFO of the metrics" },
  "mmds-size-limit": { value: "BYTES", help: "Most that the metadata may have [default: that of a body]" },
  module: { value: "PREFIX", help: "Log what comes from there alone" },
  "no-api": { help: "Without a socket; with --config-file" },
  "no-seccomp": { help: "Taken, and without effect: there is no filter" },
  "parent-cpu-time-us": { value: "US", help: "Processor time of who has started this, for the metrics" },
  "seccomp-filter": { value: "FILE", help: "Taken, and without effect: there is no filter" },
  "show-level": { help: "Name the level in each line of the log" },
  "show-log-origin": { help: "Name the source in each line of the log" },
  "snapshot-version": { help: "Print the version of the format of snapshots" },
  "start-time-cpu-us": { value: "US", help: "Processor time at the start, for the metrics" },
  "start-time-us": { value: "US", help: "Time of the start, for the metrics" },
  version: { help: "Print the version" },
} as const;

type Name = keyof typeof ARGUMENTS;

export interface FirecrackerOptions {
  readonly socket: string;
  readonly id: string;
  readonly configFile: string | undefined;
  readonly metadata: string | undefined;
  readonly hasApi: boolean;
  readonly logger: {
    readonly log_path: string | null;
    readonly level: string | null;
    readonly show_level: boolean | null;
    readonly show_log_origin: boolean | null;
    readonly module: string | null;
  };
  readonly metricsPath: string | undefined;
  readonly hasBootTimer: boolean;
  readonly maxBodyBytes: number;
  readonly mmdsBytes: number;
  /** Given by who starts it: `us`. */
  readonly startTimeUs: number | undefined;
  readonly startCpuUs: number;
  readonly parentCpuUs: number;
}

export type CommandLine =
  | { readonly kind: "run"; readonly options: FirecrackerOptions }
  | { readonly kind: "describe-snapshot"; readonly file: string }
  | { readonly kind: "help" | "version" | "snapshot-version" };

function takesValue(name: Name): boolean {
  return "value" in ARGUMENTS[name];
}

function isName(name: string): name is Name {
  return Object.hasOwn(ARGUMENTS, name);
}

/** Throws ArgumentError. */
export function parseCommandLine(argv: readonly string[]): CommandLine {
  const end = argv.indexOf("--");
  const args = end < 0 ? argv : argv.slice(0, end);
  if (args.includes("--help") || args.includes("-h")) return { kind: "help" };
  if (args.includes("--version")) return { kind: "version" };
  const values = readValues(args);
  if (values.has("no-seccomp") && values.has("seccomp-filter")) {
    throw new ArgumentError("--no-seccomp and --seccomp-filter cannot be used together");
  }
  if (values.has("no-api") && !values.has("config-file")) throw new ArgumentError("--no-api needs --config-file");
  if (values.has("snapshot-version")) return { kind: "snapshot-version" };
  const described = values.get("describe-snapshot");
  if (described !== undefined) return { kind: "describe-snapshot", file: described };
  const maxBodyBytes = bytes(values, "http-api-max-payload-size") ?? MAX_BODY_BYTES;
  const id = values.get("id") ?? DEFAULT_ID;
  if (!/^[A-Za-z0-9-]+$/.test(id) || id.length > MAX_ID) {
    throw new ArgumentError(`--id ${id}: not 1 to ${String(MAX_ID)} letters, digits and "-"`);
  }
  return {
    kind: "run",
    options: {
      socket: values.get("api-sock") ?? DEFAULT_SOCKET,
      id,
      configFile: values.get("config-file"),
      metadata: values.get("metadata"),
      hasApi: !values.has("no-api"),
      logger: {
        log_path: values.get("log-path") ?? null,
        level: values.get("level") ?? null,
        show_level: values.has("show-level") ? true : null,
        show_log_origin: values.has("show-log-origin") ? true : null,
        module: values.get("module") ?? null,
      },
      metricsPath: values.get("metrics-path"),
      hasBootTimer: values.has("boot-timer"),
      maxBodyBytes,
      mmdsBytes: bytes(values, "mmds-size-limit") ?? maxBodyBytes,
      startTimeUs: whole(values, "start-time-us"),
      startCpuUs: whole(values, "start-time-cpu-us") ?? 0,
      parentCpuUs: whole(values, "parent-cpu-time-us") ?? 0,
    },
  };
}

function readValues(args: readonly string[]): Map<Name, string> {
  const values = new Map<Name, string>();
  for (let at = 0; at < args.length; at++) {
    const arg = args[at] ?? "";
    const name = arg.startsWith("--") ? arg.slice(2) : "";
    if (!isName(name)) throw new ArgumentError(`Unknown argument ${arg}`);
    if (values.has(name)) throw new ArgumentError(`--${name} is given twice`);
    if (!takesValue(name)) {
      values.set(name, "");
      continue;
    }
    const value = args[++at];
    if (value === undefined || value.startsWith("--")) throw new ArgumentError(`--${name} needs a value`);
    values.set(name, value);
  }
  return values;
}

function whole(values: ReadonlyMap<Name, string>, name: Name): number | undefined {
  const text = values.get(name);
  if (text === undefined) return undefined;
  if (!/^\d{1,16}$/.test(text)) throw new ArgumentError(`--${name} ${text}: not a whole number`);
  return Number(text);
}

function bytes(values: ReadonlyMap<Name, string>, name: Name): number | undefined {
  const count = whole(values, name);
  if (count !== undefined && count > MOST_BODY_BYTES) {
    throw new ArgumentError(`--${name} ${String(count)}: more than ${String(MOST_BODY_BYTES)}`);
  }
  return count;
}
