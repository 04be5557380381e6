// The public door: everything that a program may use, and nothing else.
import { dirname } from "node:path";
import { PciDevices } from "./virtio/pci-devices.js";
import { allOpeners } from "./virtio/attach/all.js";
import { checkVmHost } from "./machine/arguments.js";
import { integerProblem } from "./config/check.js";
import { openCpuTemplate } from "./machine/cpu-template-file.js";
import { resolveConfig } from "./config/resolve.js";
import type { ResolvedConfig, VmConfig } from "./config/types.js";
import { ConfigError } from "./errors.js";
import { deviceSupport } from "./virtio/device-support.js";
import type { VmHost } from "./machine/host-callbacks.js";
import { Vm as Machine } from "./machine/vm.js";
import { checkFolderPath } from "./snapshot/arguments.js";
import type { ReceivedVm, ReceiverOptions, VmReceiver } from "./snapshot/migration/receive-vm.js";
import type { Migration, MigrationRound } from "./snapshot/migration/send.js";
import { becomeAnother } from "./snapshot/identity.js";
import type { RestoreOverrides } from "./snapshot/overrides.js";
import { commandBlock, type GuestCommand } from "./snapshot/guest-command.js";
import { SnapshotPool, type PoolOptions } from "./snapshot/pool.js";
import { OpenSnapshot } from "./snapshot/restore.js";

export type ReceiveOptions = Omit<ReceiverOptions, "build">;

const support = deviceSupport(allOpeners, PciDevices);
const MAX_THREADS = 1024;

/** A snapshot that has been read and checked: any number of VMs go on from it. */
export interface OpenedSnapshot {
  readonly id: string;
  /** Of the guest that was saved; paths are absolute. */
  readonly config: ResolvedConfig;
  /** A VM that goes on where the guest was saved, once it is started. Throws as `createVm` does, and SnapshotError. */
  restore(host: VmHost, overrides?: RestoreOverrides): Machine;
  /**
   * VMs that are restored before anybody asks, to be taken in no time; close it before the snapshot. What no two VMs may
   * have, such as a socket of vsock, `overrides` says for each: it gets numbers from 0 on.
   */
  pool(options: PoolOptions, overrides?: (vm: number) => RestoreOverrides): SnapshotPool;
  /** After the last VM of it is closed. */
  close(): void;
}

/** Throws SnapshotError for a folder that holds no snapshot, or one that is not whole. */
export function openSnapshot(folder: string): OpenedSnapshot {
  return openedFrom(OpenSnapshot.open(checkFolderPath(folder)));
}

function openedFrom(opened: OpenSnapshot): OpenedSnapshot {
  return {
    id: opened.id,
    config: opened.config,
    restore: (host, overrides) => {
      checkVmHost(host);
      const vm = opened.restore(host, { deviceSupport: support }, overrides);
      return toldOrClosed(vm, () => {
        becomeAnother(vm, overrides);
      });
    },
    pool: (options, overrides) => {
      let made = 0;
      const names = new WeakMap<Machine, RestoreOverrides>();
      const restore = (host: VmHost): Machine => {
        const own = overrides?.(made++) ?? {};
        const vm = opened.restore(host, { deviceSupport: support }, own);
        names.set(vm, own);
        return vm;
      };
      // When it is taken: it may have waited for long.
      return new SnapshotPool(restore, options, (vm) => {
        toldOrClosed(vm, () => {
          becomeAnother(vm, names.get(vm));
        });
      });
    },
    close: () => {
      opened.close();
    },
  };
}

/**
 * Moves a running or paused VM to where a `receiveVm` or a `vmlet snapshot receive` waits: unix:PATH or tcp:HOST:PORT. When it
 * resolves, the guest runs there, and `vm` is stopped. Rejects with ConfigError, HostError, SnapshotError or VmStateError: then
 * the guest is as before, but where the message says that it is not known whether it runs there; it is paused then.
 */
export async function migrateVm(vm: Machine, to: string): Promise<Migration> {
  const { parseMigrationAddress } = await import("./snapshot/migration/address.js");
  const { migrateVm: migrate } = await import("./snapshot/migration/send.js");
  const migration = await migrate(vm, parseMigrationAddress(to));
  vm.stop();
  return migration;
}

/** Waits for one VM that is moved to this process. Rejects with ConfigError or HostError if nobody can listen there. */
export async function receiveVm(address: string, host: VmHost, options: ReceiveOptions = {}): Promise<VmReceiver> {
  checkVmHost(host);
  const { receiveVm: receive } = await import("./snapshot/migration/receive-vm.js");
  return receive(address, host, { ...options, build: { deviceSupport: support } });
}

/** VMs of a template, made before anybody asks. */
export interface TemplatePool {
  /** How many wait now. */
  readonly ready: number;
  /** As `Template.restore`, but sooner. */
  take(host: VmHost, command: GuestCommand): Machine;
  /** Resolves once as many wait as are to. */
  filled(): Promise<void>;
  /** Frees those that nobody has taken. */
  close(): Promise<void>;
}

/** A guest that waits for its command: any number of VMs go on from it, each with one of its own. */
export interface Template {
  readonly id: string;
  /** Throws as `createVm` does, and SnapshotError; `vm.start()` runs the command. */
  restore(host: VmHost, command: GuestCommand): Machine;
  /** VMs that wait for their command. Close it before the template. Throws ConfigError. */
  pool(options: PoolOptions): TemplatePool;
  /**
   * A guest that has started this command, and in which it has not come to its first instruction: every VM of it spares
   * the guest's fork and exec. Kept in the cache, with the template. Rejects as `restore` throws, and with SnapshotError for
   * a command that cannot be started. Close it before the template.
   */
  program(command: GuestCommand): Promise<OpenedSnapshot>;
  /** After the last VM of it is closed. */
  close(): void;
}

/**
 * Boots a guest of this kind up to where its command would start, once: it is kept in the cache of this user. The guest
 * needs vmlet's own init, and no disk that it may write. Throws as `createVm` does, and SnapshotError.
 */
export async function openTemplate(config: VmConfig): Promise<Template> {
  const { openTemplate: open } = await import("./snapshot/template.js");
  const cmdline = ["vmlet.template", ...(config.cmdline === undefined ? [] : [config.cmdline])].join(" ");
  const opened = await open(resolveConfig({ ...config, cmdline, commandChannel: true }), {
    deviceSupport: support,
    openCpuTemplate,
  });
  return {
    id: opened.id,
    restore: (host, command) => withCommand(host, command, () => opened.restore(host, { deviceSupport: support })),
    pool: (options) => poolOf(opened, options),
    program: async (command) => {
      const block = commandBlock(command);
      const { ProgramTemplate } = await import("./snapshot/program-template.js");
      const program = new ProgramTemplate(dirname(opened.path), block, opened.config.shares);
      return openedFrom(await program.openOrMake(opened, block, { deviceSupport: support }));
    },
    close: () => {
      opened.close();
    },
  };
}

function poolOf(opened: OpenSnapshot, options: PoolOptions): TemplatePool {
  const pool = new SnapshotPool((host) => opened.restore(host, { deviceSupport: support }), options);
  return {
    get ready() {
      return pool.ready;
    },
    take: (host, command) => withCommand(host, command, () => pool.take(host)),
    filled: () => pool.filled(),
    close: () => pool.close(),
  };
}

function withCommand(host: VmHost, command: GuestCommand, make: () => Machine): Machine {
  checkVmHost(host);
  const block = commandBlock(command);
  const vm = make();
  return toldOrClosed(vm, () => {
    vm.giveCommand(block);
  });
}

/** A VM that cannot be told who it is helps nobody, and nobody else would free it. */
function toldOrClosed(vm: Machine, tell: () => void): Machine {
  try {
    tell();
  } catch (error) {
    void vm.close();
    throw error;
  }
  return vm;
}

/**
 * Has so many threads for vCPUs ready from now on, even if no VM runs, so that one that starts waits for none. They keep
 * no process alive. Throws ConfigError or HostError.
 */
export async function warmThreads(count: number): Promise<void> {
  const problem = integerProblem("Number of threads", count, { minimum: 0, maximum: MAX_THREADS });
  if (problem !== undefined) throw new ConfigError([problem]);
  const { pool, explainStart } = await import("./machine/threads.js");
  try {
    await pool.warm(count);
  } catch (error) {
    throw explainStart(0, error);
  }
}

/**
 * Builds a VM; `vm.start()` runs it, `vm.close()` frees it.
 * Throws ConfigError, DiskError, KernelImageError, HostError, KvmIoctlError or SystemCallError, and leaves nothing
 * behind then.
 */
export function createVm(config: VmConfig, host: VmHost): Machine {
  checkVmHost(host);
  return Machine.build(resolveConfig(config), host, { deviceSupport: support, openCpuTemplate, mayBeSaved: true });
}

export {
  AgentError,
  BusError,
  ConfigError,
  DiskError,
  ERROR_CODES,
  ExecError,
  GuestMemoryError,
  GuestRequestError,
  HostError,
  ImageError,
  KernelImageError,
  KvmIoctlError,
  LabError,
  SnapshotError,
  SystemCallError,
  VcpuExitError,
  VmmError,
  VmStateError,
  type AgentErrorReason,
  type ErrorCode,
  type ExecFailure,
} from "./errors.js";
export type { BalloonConfig } from "./config/balloon.js";
export type { DiskCache, DiskConfig, DiskFormat } from "./config/disks.js";
export type { MmdsConfig } from "./config/mmds.js";
export type { NetConfig } from "./config/nets.js";
export type { PortForward, UserNetConfig } from "./config/user-net.js";
export type { ShareConfig } from "./config/shares.js";
export type { VfioConfig } from "./config/vfio.js";
export type { VsockConfig } from "./config/vsock.js";
export type { BalloonReport } from "./virtio/device-host.js";
export type { BootProtocol, ConsoleKind, HugePages, VmConfig } from "./config/types.js";
export type { StartOptions, TerminalSize } from "./machine/arguments.js";
export type { DiskUpdate, NetUpdate } from "./machine/device-updates.js";
export type { VmState } from "./machine/life.js";
export type { VmHost };
export type { GuestOutcome, Milestones, VmExit, VmStatistics } from "./machine/vm-exit.js";
export type { GuestCommand };
export { createSnapshot, type Snapshot, type SnapshotOptions } from "./snapshot/create.js";
export { type PoolOptions, type SnapshotPool } from "./snapshot/pool.js";
export { deleteSnapshot } from "./snapshot/delete.js";
export { inspectSnapshot, type DeviceDescription, type SnapshotDescription } from "./snapshot/inspect.js";
export type { Migration, MigrationRound, ReceivedVm, RestoreOverrides, VmReceiver };
/** The low level: a machine that the caller gives a kernel, devices and an output. */
export { Machine };
export { Vm, type RestoreOptions, type StartHooks, type VmEnd, type VmStartOptions } from "./sdk/vm.js";
export { VmPool, type VmPoolOptions } from "./sdk/vm-pool.js";
export { AgentLink, type AgentLinkOptions, type AgentWay } from "./sdk/agent-link.js";
export type { Execution, ExecOptions } from "./sdk/execution.js";
export type { PortOption, VmOptions, VolumeOption } from "./sdk/vm-options.js";
export type { VmUsage } from "./sdk/vm-usage.js";
export type { PublishedPort } from "./sdk/vm-record.js";
export type { TmpfsSpec } from "./sdk/vm-spec.js";
export {
  listImages,
  prepareDirectory,
  prepareImage,
  removeImage,
  type ImageConfig,
  type ImageLimits,
  type ImageProgress,
  type ImageSummary,
  type PreparedImage,
  type PrepareOptions,
  type PullPolicy,
} from "./image/index.js";
export type { ExitStatus } from "./agent/command.js";
export type { Agent } from "./agent/agent.js";
export type { AgentConnection, ConnectionOptions } from "./agent/connection.js";
export type { CommandOptions, LimitName, LimitValue } from "./agent/exec-request.js";
export type { ExecOptions as ProcessOptions, GuestProcess } from "./agent/exec.js";
export type { CopyOptions, CopyOutOptions, CopyReport } from "./agent/copy.js";
export type { Attributes, Owner } from "./agent/file-requests.js";
export type { FileStat, FileType } from "./agent/file-stat.js";
export type {
  GuestFiles,
  ListOptions,
  MkdirOptions,
  ReadOptions,
  ReadWholeOptions,
  RemoveOptions,
  WriteOptions,
} from "./agent/files.js";
export type { GuestBytes } from "./agent/guest-bytes.js";
export type { GuestControl, Identity, MountOptions, WaitPortOptions } from "./agent/guest.js";
export type { FolderEntry } from "./agent/list-decoder.js";
export type { GuestMemory, GuestProcessInfo } from "./agent/proc-files.js";
export type { RequestOptions } from "./agent/request.js";
export type { SkippedEntry } from "./agent/tree-entry.js";
export type { CommandInput } from "./agent/input-pump.js";
export type { RunOptions } from "./agent/run.js";
export type { GuestTrees, ReadTreeOptions, WriteTreeOptions } from "./agent/trees.js";
export type { RateLimiterConfig, TokenBucketConfig } from "../devices/virtio/rate-limiter.js";
export type { HintingStatus } from "../devices/virtio/balloon/hinting.js";
export type { BalloonStatistics } from "../devices/virtio/balloon/statistics.js";
export type { Counters } from "../devices/virtio/device.js";
export type { ResolvedConfig } from "./config/types.js";
export type { OutputChunk } from "./agent/merged-chunks.js";
export type { RunResult } from "./agent/run-result.js";
