// argv -> options of `vmlet snapshot ...`.
import type { RestoreOverrides, ShareOverride } from "../snapshot/overrides.js";
import { parseNet } from "./net-argument.js";
import { parseOptions } from "./parse-options.js";
import { parseShare } from "./share-argument.js";
import { readSpec, specError } from "./spec.js";
import { UsageError } from "./usage-error.js";

// -- As Node's parseArgs takes them --

export const SNAPSHOT_CREATE_FLAGS = {
  stop: { type: "boolean" },
  diff: { type: "string" },
  watch: { type: "boolean" },
  json: { type: "boolean" },
  help: { type: "boolean", short: "h" },
} as const;

export const SNAPSHOT_RECEIVE_FLAGS = {
  disk: { type: "string", multiple: true },
  net: { type: "string", multiple: true },
  vsock: { type: "string" },
  report: { type: "string" },
  metrics: { type: "string" },
  control: { type: "string" },
  quiet: { type: "boolean", short: "q" },
  help: { type: "boolean", short: "h" },
} as const;

/** One that has moved is the same guest, with the same name. */
export const SNAPSHOT_RESTORE_FLAGS = {
  ...SNAPSHOT_RECEIVE_FLAGS,
  share: { type: "string", multiple: true },
  hostname: { type: "string" },
} as const;

export const MIGRATE_FLAGS = { json: { type: "boolean" }, help: { type: "boolean", short: "h" } } as const;

export const SNAPSHOT_INSPECT_FLAGS = {
  json: { type: "boolean" },
  verify: { type: "boolean" },
  help: { type: "boolean", short: "h" },
} as const;

export const SNAPSHOT_CPU_TEMPLATE_FLAGS = { help: { type: "boolean", short: "h" } } as const;

export const SNAPSHOT_DELETE_FLAGS = { help: { type: "boolean", short: "h" } } as const;

export interface CreateOptions {
  readonly help: boolean;
  readonly stop: boolean;
  /** Folder of the snapshot since which only what has changed is saved. */
  readonly diff: string | undefined;
  readonly watch: boolean;
  readonly json: boolean;
  readonly socket: string;
  readonly folder: string;
}

export interface InspectOptions {
  readonly help: boolean;
  readonly json: boolean;
  readonly verify: boolean;
  readonly folder: string;
}

export interface MigrateOptions {
  readonly help: boolean;
  readonly json: boolean;
  readonly socket: string;
  readonly address: string;
}

interface GoOnOptions {
  readonly overrides: RestoreOverrides;
  readonly report: string | undefined;
  readonly metrics: string | undefined;
  readonly control: string | undefined;
  readonly quiet: boolean;
  readonly help: boolean;
}

export interface RestoreOptions extends GoOnOptions {
  readonly folder: string;
}

export interface ReceiveOptions extends GoOnOptions {
  readonly address: string;
}

export function parseSnapshotCreate(argv: readonly string[]): CreateOptions {
  const name = "vmlet snapshot create";
  const { values, positionals } = parseOptions([...argv], SNAPSHOT_CREATE_FLAGS, name, { allowPositionals: true });
  const [socket = "", folder = "", ...more] = positionals;
  const { help = false, stop = false, json = false, watch = false, diff } = values;
  if (!help && (socket === "" || folder === "" || more.length > 0)) {
    throw new UsageError(`${name}: give SOCKET, that of --control, and FOLDER`);
  }
  if (diff === "") throw new UsageError(`${name}: --diff has no folder`);
  if (watch && stop) throw new UsageError(`${name}: --watch and --stop contradict each other`);
  return { help, stop, diff, watch, json, socket, folder };
}

export function parseSnapshotRestore(argv: readonly string[]): RestoreOptions {
  const name = "vmlet snapshot restore";
  const { positionals, ...options } = parseGoOn(argv, name, SNAPSHOT_RESTORE_FLAGS);
  return { ...options, folder: oneFolder(name, positionals, options.help) };
}

export function parseSnapshotReceive(argv: readonly string[]): ReceiveOptions {
  const name = "vmlet snapshot receive";
  const { positionals, ...options } = parseGoOn(argv, name, SNAPSHOT_RECEIVE_FLAGS);
  const [address = "", ...more] = positionals;
  if (!options.help && (address === "" || more.length > 0)) {
    throw new UsageError(`${name}: give one ADDRESS, unix:PATH or tcp:HOST:PORT`);
  }
  return { ...options, address };
}

export function parseMigrate(argv: readonly string[]): MigrateOptions {
  const name = "vmlet migrate";
  const { values, positionals } = parseOptions([...argv], MIGRATE_FLAGS, name, { allowPositionals: true });
  const { help = false, json = false } = values;
  const [socket = "", address = "", ...more] = positionals;
  if (!help && (socket === "" || address === "" || more.length > 0)) {
    throw new UsageError(`${name}: give SOCKET, that of --control, and ADDRESS, unix:PATH or tcp:HOST:PORT`);
  }
  return { help, json, socket, address };
}

function parseGoOn(
  argv: readonly string[],
  name: string,
  flags: typeof SNAPSHOT_RECEIVE_FLAGS & Partial<typeof SNAPSHOT_RESTORE_FLAGS>,
): GoOnOptions & { readonly positionals: readonly string[] } {
  const { values, positionals } = parseOptions([...argv], flags as typeof SNAPSHOT_RESTORE_FLAGS, name, {
    allowPositionals: true,
  });
  const { help = false, quiet = false, report, metrics, control } = values;
  return {
    positionals,
    overrides: {
      ...(values.disk === undefined ? {} : { disks: named("--disk", "PATH", values.disk, (path) => path) }),
      ...(values.net === undefined ? {} : { nets: named("--net", "NET", values.net, parseNet) }),
      ...(values.share === undefined ? {} : { shares: named("--share", "PATH", values.share, parseOtherShare) }),
      ...(values.vsock === undefined ? {} : { vsock: parseOtherVsock(values.vsock) }),
      ...(values.hostname === undefined ? {} : { hostName: values.hostname }),
    },
    report,
    metrics,
    control,
    quiet,
    help,
  };
}

export function parseSnapshotInspect(argv: readonly string[]): InspectOptions {
  const name = "vmlet snapshot inspect";
  const { values, positionals } = parseOptions([...argv], SNAPSHOT_INSPECT_FLAGS, name, { allowPositionals: true });
  const { help = false, json = false, verify = false } = values;
  return { help, json, verify, folder: oneFolder(name, positionals, help) };
}

export function parseSnapshotDelete(argv: readonly string[]): { help: boolean; folder: string } {
  const name = "vmlet snapshot delete";
  const { values, positionals } = parseOptions([...argv], SNAPSHOT_DELETE_FLAGS, name, { allowPositionals: true });
  const { help = false } = values;
  return { help, folder: oneFolder(name, positionals, help) };
}

export function parseSnapshotCpuTemplate(argv: readonly string[]): { help: boolean; paths: string[] } {
  const name = "vmlet snapshot cpu-template";
  const { values, positionals } = parseOptions([...argv], SNAPSHOT_CPU_TEMPLATE_FLAGS, name, {
    allowPositionals: true,
  });
  const { help = false } = values;
  const paths: string[] = positionals;
  if (!help && (paths.length === 0 || paths.includes(""))) {
    throw new UsageError(`${name}: give one HOST or more, files of vmlet doctor --json`);
  }
  return { help, paths };
}

function oneFolder(name: string, [folder = "", ...more]: readonly string[], help: boolean): string {
  if (!help && (folder === "" || more.length > 0)) throw new UsageError(`${name}: give one FOLDER`);
  return folder;
}

/** NAME=VALUE, each name once. */
function named<Value>(
  option: string,
  what: string,
  texts: readonly string[],
  parse: (text: string) => Value,
): Record<string, Value> {
  const found = new Map<string, Value>();
  for (const text of texts) {
    const at = text.indexOf("=");
    const name = text.slice(0, Math.max(at, 0));
    const value = text.slice(at + 1);
    if (!/^[a-z]+\d*$/.test(name) || value === "") {
      throw specError(option, text, `not NAME=${what}, with the device's name in the guest: ${option} vda=${what}`);
    }
    if (found.has(name)) throw specError(option, text, `${name} is given twice`);
    found.set(name, parse(value));
  }
  return Object.fromEntries(found);
}

/** PATH[,ro]. */
function parseOtherShare(text: string): ShareOverride {
  const { tag, ...share } = parseShare(text);
  if (tag !== undefined) throw specError("--share", text, "the guest keeps the tag that it knows");
  return share;
}

/** [path=SOCKET][,cid=N], one of them at least. */
function parseOtherVsock(text: string): NonNullable<RestoreOverrides["vsock"]> {
  let cid: number | undefined;
  let path: string | undefined;
  readSpec("--vsock", text, "path=, cid=", (word) => {
    if (word.key === "cid") cid = word.number();
    else if (word.key === "path") path = word.text();
    else return false;
    return true;
  });
  return { path, cid };
}
