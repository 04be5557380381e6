// Templates: a guest that has been booted once, up to where its command would start. It is kept in the cache under
// the hash of all that made it, and every later guest of the same kind goes on from there.
import { closeSync, existsSync, readdirSync, rmSync, statSync, utimesSync } from "node:fs";
import { basename, dirname, join } from "node:path";
import { describeConfig } from "../config/describe.js";
import type { ResolvedDisk } from "../config/disks.js";
import { withoutSharing } from "../config/nets.js";
import type { ResolvedShare } from "../config/shares.js";
import type { ResolvedConfig } from "../config/types.js";
import { ConfigError, HostError, SnapshotError } from "../errors.js";
import { bootId } from "../host/facts.js";
import { cacheFolder } from "../host/cache-folder.js";
import { VERSION } from "../host/version.js";
import { readPartsList } from "../virtio/backends/disk-file.js";
import { VIRTIOFSD } from "../virtio/backends/virtiofsd-command.js";
import type { BuildOptions } from "../machine/builder.js";
import { Vm } from "../machine/vm.js";
import { sha256 } from "../sys/sha256.js";
import { createSnapshot } from "./create.js";
import { makeFolder } from "./folder.js";
import { lockFile, waitForLock } from "./lock-file.js";
import { OpenSnapshot } from "./restore.js";
import { saveAtPoint } from "./save-at-point.js";

/** Kept, the latest used first: each takes as much of the disk as its guest of memory. */
const MAX_TEMPLATES = 8;
const NAME = /^[0-9a-f]{32}$/;

export interface TemplateOptions extends BuildOptions {
  /** There is none yet, or somebody else is building it: it takes as long as a boot. */
  readonly waits?: () => void;
  /** The guest that becomes the template: who stops it gets a SnapshotError. */
  readonly boots?: (vm: Pick<Vm, "stop">) => void;
  /** Ends the wait for somebody else. */
  readonly signal?: AbortSignal | undefined;
}

/**
 * The template of guests like this, made if there is none. `config`: a kernel command line with `vmlet.template`, a
 * command channel, no disk that the guest may write. Throws ConfigError, HostError, SnapshotError, and what a boot
 * throws.
 */
export async function openTemplate(config: ResolvedConfig, options: TemplateOptions = {}): Promise<OpenSnapshot> {
  const path = templatePath(config);
  const ready = openIfReady(path, config.shares);
  if (ready !== undefined) return ready;
  options.waits?.();
  const lock = await waitForLock(path, options.signal);
  try {
    const built = openIfReady(path, config.shares);
    if (built !== undefined) return built;
    rmSync(path, { recursive: true, force: true });
    await bootTemplate(config, path, options);
    removeOldest(path);
    return OpenSnapshot.open(path).share(config.shares);
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
  const { kernel, initrd, disks, cpuTemplate, shares } = config;
  const inputs = {
    vmlet: VERSION,
    program: file(import.meta.filename),
    boot: bootId(),
    config: describeConfig(withoutFolders(config)),
    files: [kernel, ...(initrd === undefined ? [] : [initrd]), ...disks.flatMap(diskFiles)].map(file),
    // What one of its versions has answered, another one may not.
    shareServer: shares.length === 0 || !existsSync(VIRTIOFSD) ? "" : file(VIRTIOFSD),
    cpuTemplate: cpuTemplate === undefined || !existsSync(cpuTemplate) ? "" : file(cpuTemplate),
  };
  return sha256(Buffer.from(JSON.stringify(inputs))).slice(0, 32);
}

/** Which folders a guest will find is for its restore to say: its template has mounted none. */
function withoutFolders(config: ResolvedConfig): ResolvedConfig {
  return { ...config, shares: config.shares.map(({ tag }) => ({ tag, path: "/", isReadonly: false })) };
}

/** The files whose change makes another disk. */
function diskFiles({ path, format }: ResolvedDisk): string[] {
  return [path, ...(format === "parts" ? readPartsList(path).map((part) => part.path) : [])];
}

/** Undefined for one that is not there, or not whole. `shares`: of the guests that go on from it. */
export function openIfReady(path: string, shares: readonly ResolvedShare[]): OpenSnapshot | undefined {
  try {
    const snapshot = OpenSnapshot.open(path).share(shares);
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
  await saveAtPoint({
    // Those that go on from it have their networks over streams, which know more of virtio's rings.
    make: (host) => Vm.build({ ...config, nets: withoutSharing(config.nets) }, host, { ...options, mayBeSaved: true }),
    // The agent has greeted a host that is yet to come.
    keepsCommandOutput: config.cmdline.includes("vmlet.agent"),
    begin: (vm) => options.boots?.(vm),
    save: (vm) => createSnapshot(vm, path, { resume: false }),
    missed: (outcome, said) => {
      const words = said === "" ? "" : `; its last words: ${said}`;
      return new SnapshotError(`The guest ended (${outcome}) before it came to where a template is taken${words}`, {
        cure: "a template needs vmlet's own init: leave --initrd and --no-initrd out",
      });
    },
  });
}

/** VMs that run from one go on: its files stay theirs until they end. */
function removeOldest(kept: string): void {
  for (const path of removeAllBut(kept, MAX_TEMPLATES)) rmSync(programsPath(path), { recursive: true, force: true });
}

/** Removes what lies beside it under a name of the same kind, but for those that were used last, `most` with itself. */
export function removeAllBut(kept: string, most: number): string[] {
  const folder = dirname(kept);
  const oldest = readdirSync(folder)
    .filter((name) => NAME.test(name) && name !== basename(kept))
    .map((name) => ({
      path: join(folder, name),
      usedMs: statSync(join(folder, name), { throwIfNoEntry: false })?.mtimeMs ?? 0,
    }))
    .sort((a, b) => b.usedMs - a.usedMs)
    .slice(most - 1)
    .map(({ path }) => path);
  for (const path of oldest) {
    rmSync(path, { recursive: true, force: true });
    rmSync(lockFile(path), { force: true });
  }
  return oldest;
}

/** What program-template.ts keeps with a template. */
export function programsPath(template: string): string {
  return `${template}.programs`;
}
