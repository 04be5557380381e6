// What is in a snapshot, for people and programs: read without a KVM, and without anything of it being opened.
import { closeSync, fstatSync } from "node:fs";
import { join } from "node:path";
import type { StateReader } from "../../devices/state.js";
import { resolveDescribed } from "../config/describe.js";
import type { ResolvedConfig, VmConfig } from "../config/types.js";
import { SnapshotError } from "../errors.js";
import type { ProcessorModel } from "../x86/cpu-features.js";
import { KERNEL_FORMATS, type KernelFormat } from "../x86/kernel.js";
import { checkFolderPath } from "./arguments.js";
import { countPages } from "../memory/written-pages.js";
import { attempt, openSnapshotFile, STATE_FILE } from "./folder.js";
import { readImageHashes } from "./image-hash.js";
import { checkMemory, hashMemory } from "./memory-file.js";
import { baseFolder, readBase } from "./memory-chain.js";
import { memoryBytes, memoryFileOf, readId, readState, unlessReplaced } from "./state-parts.js";
import { readHost, type SavedHost } from "./saved-host.js";
import { readingState, STATE_VERSION } from "./state-file.js";

export interface SnapshotDescription {
  readonly folder: string;
  readonly id: string;
  /** Of the state file's format. */
  readonly version: number;
  /** Version of the program that made it. */
  readonly vmlet: string;
  /** ISO 8601. */
  readonly created: string;
  readonly host: Pick<SavedHost, "cpu" | "kernel" | "software"> & ProcessorModel;
  /** Hashes are null for files that had changed since they were booted. */
  readonly kernel: { readonly path: string; readonly format: KernelFormat; readonly sha256: string | null };
  readonly initrd: { readonly path: string; readonly sha256: string | null } | undefined;
  readonly config: ResolvedConfig;
  readonly memory: {
    readonly file: string;
    /** `bytes` of the file, holes included ... */
    readonly size: number;
    /** ... and of the disk that it takes. */
    readonly used: number;
    readonly sha256: string;
    /** Of a differential snapshot, what it lies over, and how many pages have changed since. */
    readonly base: { readonly id: string; readonly folder: string; readonly pages: number } | undefined;
    /** Undefined if it was not asked for. */
    readonly isVerified: boolean | undefined;
  };
  readonly devices: readonly DeviceDescription[];
  /** All of the state file, as it is. */
  readonly state: unknown;
}

export interface DeviceDescription {
  readonly name: string;
  /** virtio 1.2 §5. */
  readonly type: number;
  /** A driver of the guest had it in use. */
  readonly isLive: boolean;
  /** Of the file or device behind it; undefined without one. */
  readonly host: unknown;
}

const MAX_TEXT = 1000;
const MAX_DEVICES = 64;
const DRIVER_OK = 0x04;

/**
 * `verify`: reads all of the memory, and compares its checksum. Throws SnapshotError for a folder that holds no snapshot,
 * or one that is not whole.
 */
export function inspectSnapshot(
  folder: string,
  { verify = false }: { readonly verify?: boolean } = {},
): SnapshotDescription {
  checkFolderPath(folder);
  return unlessReplaced(() => {
    const state = readState(folder);
    return readingState(join(folder, STATE_FILE), () => describe(state, folder, verify));
  });
}

function describe(state: StateReader, folder: string, verify: boolean): SnapshotDescription {
  const host = readHost(state.at("host"));
  const config = resolveDescribed(state.at("config").value as VmConfig);
  const hashes = readImageHashes(state.at("images"));
  return {
    folder,
    id: readId(state),
    version: STATE_VERSION,
    vmlet: state.text("vmlet", MAX_TEXT),
    created: state.text("created", MAX_TEXT),
    host: { ...host.processor, cpu: host.cpu, kernel: host.kernel, software: host.software },
    kernel: { path: config.kernel, format: state.oneOf("kernelFormat", KERNEL_FORMATS), sha256: hashes.kernel },
    initrd: config.initrd === undefined ? undefined : { path: config.initrd, sha256: hashes.initrd },
    config,
    memory: describeMemory(state, folder, memoryBytes(config), verify),
    devices: state
      .at("devices")
      .names(MAX_DEVICES)
      .map((name) => describeDevice(name, state.at("devices").at(name))),
    state: state.value,
  };
}

function describeMemory(
  state: StateReader,
  folder: string,
  length: number,
  verify: boolean,
): SnapshotDescription["memory"] {
  const file = memoryFileOf(state);
  const sha256 = state.at("memory").text("sha256", 64);
  const path = join(folder, file);
  const { fd } = openSnapshotFile(path);
  try {
    return attempt(path, () => {
      checkMemory(fd, path, readId(state), length);
      const { size, blocks } = fstatSync(fd);
      if (verify && hashMemory(fd, length) !== sha256) {
        throw new SnapshotError(`${path} is damaged: its checksum is another`);
      }
      const base = readBase(state, length);
      return {
        file,
        size,
        used: blocks * 512,
        sha256,
        base:
          base === undefined
            ? undefined
            : { id: base.id, folder: baseFolder(folder, base), pages: countPages(base.pages) },
        isVerified: verify ? true : undefined,
      };
    });
  } finally {
    closeSync(fd);
  }
}

function describeDevice(name: string, device: StateReader): DeviceDescription {
  const host = device.at("host");
  return {
    name,
    type: device.integer("type", { minimum: 0, maximum: 0xffff_ffff }),
    isLive: (device.at("transport").integer("status", { minimum: 0, maximum: 0xff }) & DRIVER_OK) !== 0,
    host: host.isNull ? undefined : host.value,
  };
}
