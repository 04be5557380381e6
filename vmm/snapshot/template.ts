// Templates: a guest that has been booted once, up to where its command would start. It is kept in the cache under
// the hash of all that made it, and every later guest of the same kind goes on from there.
import { closeSync, existsSync, openSync, readdirSync, rmSync, statSync, utimesSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { describeConfig } from "../config/describe.js";
import type { ResolvedConfig } from "../config/types.js";
import { ConfigError, HostError, SnapshotError } from "../errors.js";
import { bootId } from "../host/facts.js";
import { cacheFolder } from "../host/cache-folder.js";
import { VERSION } from "../host/version.js";
import type { BuildOptions } from "../machine/builder.js";
import { Vm } from "../machine/vm.js";
import { lockByteExclusive } from "../sys/locks.js";
import { sha256 } from "../sys/sha256.js";
import { createSnapshot } from "./create.js";
import { makeFolder } from "./folder.js";
import { OpenSnapshot } from "./restore.js";

/** Kept, the latest used first: each takes as much of the disk as its guest of memory. */
const MAX_TEMPLATES = 8;
const PRIVATE_FILE = 0o600;
/** Somebody else is building the same one: how often to look, `ms`. */
const LOOK_MS = 50;
/** Of what the guest says on its way, for an error, `bytes`. */
const KEPT_OUTPUT = 4096;
const NAME = /^[0-9a-f]{32}$/;

export interface TemplateOptions extends BuildOptions {
  /** There is none yet, or somebody else is building it: it takes as long as a boot. */
  readonly waits?: () => void;
  /** The guest that becomes the template: who stops it gets a SnapshotError. */
  readonly boots?: (vm: Pick<Vm, "stop">) => void;
}

/**
 * The template of guests like this, made if there is none. `config`: a kernel command line with `vmlet.template`, a
 * command channel, no disk that the guest may write. Throws ConfigError, HostError, SnapshotError, and what a boot
 * throws.
 */
export async function openTemplate(config: ResolvedConfig, options: TemplateOptions = {}): Promise<OpenSnapshot> {
  const path = templatePath(config);
  const ready = openIfReady(path);
  if (ready !== undefined) return ready;
  options.waits?.();
  const lock = openSync(`${path}.lock`, "a", PRIVATE_FILE);
  try {
    while (!lockByteExclusive(lock, 0)) await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
    const built = openIfReady(path);
    if (built !== undefined) return built;
    rmSync(path, { recursive: true, force: true });
    await bootTemplate(config, path, options);
    removeOldest(path);
    return OpenSnapshot.open(path);
  } finally {
    closeSync(lock);
  }
}

/** Its folder, which need not be there. Throws ConfigError for a guest that cannot have one, and HostError. */
export function templatePath(config: ResolvedConfig): string {
  const writable = config.disks.find(({ isReadonly }) => !isReadonly);
  if (writable !== undefined) {
    throw new ConfigError([
      `Disk ${writable.path}: the guest may write to it, and would find it changed under it the next time; ` +
        "a template's disks are read-only",
    ]);
  }
  const cache = cacheFolder();
  if (cache === undefined) throw new HostError("There is no folder for templates: the cache is somebody else's");
  const folder = join(cache, "templates");
  makeFolder(folder);
  return join(folder, templateName(config));
}

/** Changes with everything that a guest would find different: files, configuration, this program, the host's boot. */
function templateName(config: ResolvedConfig): string {
  const file = (path: string): string => {
    const { ino, size, mtimeNs } = statSync(path, { bigint: true });
    return [path, ino, size, mtimeNs].join(" ");
  };
  const { kernel, initrd, disks, cpuTemplate } = config;
  const inputs = {
    vmlet: VERSION,
    program: file(fileURLToPath(import.meta.url)),
    boot: bootId(),
    config: describeConfig(config),
    files: [kernel, ...(initrd === undefined ? [] : [initrd]), ...disks.map(({ path }) => path)].map(file),
    cpuTemplate: cpuTemplate === undefined || !existsSync(cpuTemplate) ? "" : file(cpuTemplate),
  };
  return sha256(Buffer.from(JSON.stringify(inputs))).slice(0, 32);
}

/** Undefined for one that is not there, or not whole. */
export function openIfReady(path: string): OpenSnapshot | undefined {
  try {
    const snapshot = OpenSnapshot.open(path);
    markUsed(path);
    return snapshot;
  } catch (error) {
    const isMissing = (error as NodeJS.ErrnoException).code === "ENOENT";
    if (isMissing || error instanceof SnapshotError) return undefined;
    throw error;
  }
}

/** Another process may have removed it meanwhile: who has it open keeps it. */
export function markUsed(path: string): void {
  const now = new Date();
  try {
    utimesSync(path, now, now);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
  }
}

async function bootTemplate(config: ResolvedConfig, path: string, options: TemplateOptions): Promise<void> {
  let output = Buffer.alloc(0);
  let failure: { readonly error: unknown } | undefined;
  let isMade = false as boolean;
  const make = async (): Promise<void> => {
    try {
      await createSnapshot(vm, path, { resume: false });
      isMade = true;
    } catch (error) {
      failure = { error };
    }
    vm.stop();
  };
  const vm = Vm.build(
    config,
    {
      output: (bytes, done) => {
        output = Buffer.concat([output, bytes]).subarray(-KEPT_OUTPUT);
        done();
      },
      snapshotPoint: () => void make(),
    },
    { ...options, mayBeSaved: true },
  );
  options.boots?.(vm);
  try {
    const { outcome } = await vm.start({ threads: "main-first" });
    if (failure !== undefined) throw failure.error;
    if (isMade) return;
    const said = output.length === 0 ? "" : `; its last words: ${output.toString("latin1").trim()}`;
    throw new SnapshotError(`The guest ended (${outcome}) before it came to where a template is taken${said}`, {
      cure: "a template needs vmlet's own init: leave --initrd and --no-initrd out",
    });
  } finally {
    await vm.close();
  }
}

/** VMs that run from one go on: its files stay theirs until they end. */
function removeOldest(kept: string): void {
  for (const path of oldestBut(kept, MAX_TEMPLATES - 1)) {
    rmSync(path, { recursive: true, force: true });
    rmSync(`${path}.lock`, { force: true });
    rmSync(programsPath(path), { recursive: true, force: true });
  }
}

/** What lies beside it under a name of the same kind, but for the `count` that were used last. */
export function oldestBut(kept: string, count: number): string[] {
  const folder = dirname(kept);
  return readdirSync(folder)
    .filter((name) => NAME.test(name) && name !== basename(kept))
    .map((name) => ({
      path: join(folder, name),
      usedMs: statSync(join(folder, name), { throwIfNoEntry: false })?.mtimeMs ?? 0,
    }))
    .sort((a, b) => b.usedMs - a.usedMs)
    .slice(count)
    .map(({ path }) => path);
}

/** What program-template.ts keeps with a template. */
export function programsPath(template: string): string {
  return `${template}.programs`;
}
