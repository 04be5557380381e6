// The place where a run works: one folder with the root file system, the initramfs and the
// programs, one control group, and one name for everything. Closing it removes all of it.
import { setMaxListeners } from "node:events";
import {
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { guestFile, packageRoot } from "../../vmm/host/guest-files.js";
import { findProgram } from "../../vmm/host/programs.js";
import {
  cgroupLayout,
  createGroup,
  createParentGroup,
  limitedGroup,
  removeGroupTree,
  topGroups,
  type CgroupLayout,
} from "./cgroup.js";
import { C_FLAGS, FREESTANDING_FLAGS } from "../c-flags.js";
import { isRoot } from "./detect.js";
import { openNetwork, sweepNetworks, type Network } from "./network.js";
import { unmountBelow, watchRunFolders } from "./leftovers.js";
import { runProgram } from "./run-program.js";

const PREFIX = "vmlet-ladder-";
/** Groups that engines make for themselves and leave; removed if they were not there before and are empty. */
const ENGINE_GROUPS = ["docker", "lxc.pivot", "libpod_parent"];
/** For the last processes of a run's control groups to end, `ms`, all groups together. */
const GROUPS_END_MS = 2000;
const PROBE_SOURCES = ["probe.c", "runtime.c", "processor.c", "kernel.c", "storage.c", "network.c", "isolation.c"];
/** The probe uses 8 MiB of it. */
const DISK_BYTES = 64 * 2 ** 20;

export interface Workspace {
  /** Name of the run: in every container's name and every group's path. */
  readonly run: string;
  readonly folder: string;
  /** The tree that is the root of every rung that has files. */
  readonly root: string;
  /** The same tree as an initramfs. */
  readonly initrd: string;
  readonly launcher: string;
  /** Asks for a cloned guest: programs/ask.c. */
  readonly ask: string;
  readonly network: Network;
  readonly cgroups: CgroupLayout;
  /** Folders of the group with the limits; empty without root. */
  readonly limits: readonly string[];
  /** Aborted by Ctrl-C and kill. */
  readonly signal: AbortSignal;
  /** An empty ext4 image; it replaces the last one of the same name. */
  freshDisk(name: string): string;
  close(): void;
}

/** The launcher and the peer are linked to the host's C library, the probe to none. */
function compile(folder: string): { launcher: string; peer: string; ask: string } {
  const sources = join(packageRoot(), "bench/ladder/programs");
  const launcher = join(folder, "launch");
  const peer = join(folder, "peer");
  const ask = join(folder, "ask");
  runProgram("gcc", [...C_FLAGS, "-o", launcher, join(sources, "launch.c")]);
  runProgram("gcc", [...C_FLAGS, "-o", peer, join(sources, "peer.c")]);
  runProgram("gcc", [...C_FLAGS, "-o", ask, join(sources, "ask.c")]);
  const probe = join(folder, "probe");
  const all = PROBE_SOURCES.map((name) => join(sources, name));
  runProgram("gcc", [...C_FLAGS, ...FREESTANDING_FLAGS, "-o", probe, ...all]);
  return { launcher, peer, ask };
}

function makeDisk(file: string): string {
  rmSync(file, { force: true });
  writeFileSync(file, "");
  truncateSync(file, DISK_BYTES);
  runProgram(findProgram("mke2fs") ?? "mke2fs", ["-q", "-t", "ext4", "-F", file]);
  return file;
}

/** The guest's smallest initramfs (init and nothing else) with the probe: a folder, and an archive of the same. */
function buildRoot(folder: string): { root: string; initrd: string } {
  const root = join(folder, "root");
  const added = join(folder, "added");
  const base = readFileSync(guestFile("tiny.cpio"));
  mkdirSync(join(added, "bin"), { recursive: true });
  mkdirSync(join(added, "scratch"));
  // What container runtimes mount over, and what systemd-nspawn takes as the sign of an operating system.
  for (const name of ["proc", "sys", "tmp", "run", "dev", "usr"]) mkdirSync(join(added, name));
  runProgram("cp", [join(folder, "probe"), join(added, "bin/probe")]);
  const archive = runProgramBytes("sh", ["-c", "find . -mindepth 1 | cpio --quiet -o -H newc"], added);
  const initrd = join(folder, "initramfs.cpio");
  // The kernel unpacks archives that follow each other.
  writeFileSync(initrd, Buffer.concat([base, archive]));
  mkdirSync(root);
  for (const input of [base, archive]) runProgram("cpio", ["--quiet", "-idmu"], { cwd: root, input });
  rmSync(added, { recursive: true });
  return { root, initrd };
}

function runProgramBytes(file: string, argv: readonly string[], cwd: string): Buffer {
  return Buffer.from(runProgram("sh", ["-c", `${[file, ...argv.map(quote)].join(" ")} | base64`], { cwd }), "base64");
}

function quote(word: string): string {
  return `'${word.replaceAll("'", "'\\''")}'`;
}

function removeFolder(folder: string): void {
  unmountBelow(folder);
  rmSync(folder, { recursive: true, force: true });
}

/**
 * As mkdtemp makes them: this user's, closed to all others. Anybody may put anything of such a name into /tmp,
 * and could swap a part of it for a link while we remove it. Another user's run is not ours to clean up, not
 * even for root.
 */
function isOwnFolder(path: string): boolean {
  const stat = lstatSync(path, { throwIfNoEntry: false });
  return stat?.isDirectory() === true && stat.uid === process.geteuid?.() && (stat.mode & 0o077) === 0;
}

/** A run that SIGKILL ended could not clean up: the next one does. */
export function sweepStale(): void {
  const layout = cgroupLayout();
  const isDead = (pid: number): boolean => !existsSync(`/proc/${String(pid)}`);
  const isStale = (name: string): boolean => {
    const pid = /^vmlet-ladder-(\d+)/.exec(name)?.[1];
    return pid !== undefined && isDead(Number(pid));
  };
  if (isRoot()) sweepNetworks(isDead);
  for (const name of readdirSync(tmpdir())) {
    const folder = join(tmpdir(), name);
    if (isStale(name) && isOwnFolder(folder)) removeFolder(folder);
  }
  if (!isRoot()) return;
  for (const group of topGroups(layout)) if (isStale(basename(group))) removeGroupTree(group);
}

/** Throws with the cause if the programs cannot be built, and then leaves nothing behind. */
export async function openWorkspace(signal: AbortSignal): Promise<Workspace> {
  sweepStale();
  // Each launcher that is held listens to it.
  setMaxListeners(0, signal);
  const run = `${PREFIX}${String(process.pid)}`;
  const cgroups = cgroupLayout();
  const groupsBefore = topGroups(cgroups);
  const removeRunFolders = watchRunFolders();
  const folder = mkdtempSync(join(tmpdir(), `${run}-`));
  let network: Network | undefined;
  const close = (): void => {
    network?.close();
    const deadline = performance.now() + GROUPS_END_MS;
    for (const group of isRoot() ? topGroups(cgroups) : []) {
      const name = basename(group);
      const isEngines = ENGINE_GROUPS.some((known) => name.startsWith(known));
      if (name.startsWith(run) || (isEngines && !groupsBefore.has(group))) removeGroupTree(group, deadline);
    }
    removeFolder(folder);
    removeRunFolders();
  };
  try {
    const { launcher, peer, ask } = compile(folder);
    network = await openNetwork(folder, peer);
    const { root, initrd } = buildRoot(folder);
    let limits: string[] = [];
    if (isRoot() && cgroups.kind !== "none") {
      createParentGroup(cgroups, run);
      const group = limitedGroup(cgroups, `${run}/limits`);
      createGroup(group);
      limits = group.map((one) => one.folder);
    }
    const freshDisk = (name: string): string => makeDisk(join(folder, `${name}.disk`));
    return { run, folder, root, initrd, launcher, ask, network, cgroups, limits, signal, freshDisk, close };
  } catch (error) {
    close();
    throw error;
  }
}
