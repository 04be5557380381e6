// Reads a snapshot and makes VMs that go on with it.
import { closeSync, lstatSync } from "node:fs";
import { join } from "node:path";
import type { StateReader } from "../../devices/state.js";
import { resolveDescribed } from "../config/describe.js";
import type { ResolvedConfig, VmConfig } from "../config/types.js";
import { CHANNEL_BYTES } from "../../devices/pseudo/command-channel.js";
import { bootId } from "../host/facts.js";
import { knownQuirks } from "../fixups/probe.js";
import { KvmSystem } from "../kvm/system.js";
import { vcpuFromData } from "../kvm/vcpu-data.js";
import { vmFromData } from "../kvm/vm-state.js";
import type { BuildOptions, SavedVm } from "../machine/builder.js";
import { hostCpu, nativeCpuid, type HostCpu } from "../machine/host-cpu.js";
import type { VmHost } from "../machine/host-callbacks.js";
import { Vm } from "../machine/vm.js";
import { MIB } from "../memory/layout.js";
import { FileMemory, type SavedMemory } from "../memory/saved-memory.js";
import { KERNEL_FORMATS } from "../x86/kernel.js";
import { SnapshotError } from "../errors.js";
import { checkCpu } from "./cpu-check.js";
import { attempt, checkFolder, MEMORY_FILE, openSnapshotFile, readSnapshotFile, STATE_FILE } from "./folder.js";
import { readImageHashes } from "./image-hash.js";
import { checkMemory } from "./memory-file.js";
import { overridden, type RestoreOverrides } from "./overrides.js";
import { readHost, type SavedHost } from "./saved-host.js";
import { decodeState, MAX_STATE_BYTES, readingState } from "./state-file.js";

/** Of a guest's state, besides what says where its memory is. */
const GUEST_FIELDS = [
  ...["id", "vmlet", "created", "host", "config", "images", "kernelFormat"],
  ...["vm", "vcpus", "legacy", "devices", "channel"],
];
const FIELDS = [...GUEST_FIELDS, "memory"];
const ID = /^[0-9a-f]{32}$/;
const SHA256 = /^[0-9a-f]{64}$/;
const MAX_TEXT = 1000;
/** So often a snapshot may be replaced by a newer one while it is opened. */
const TRIES = 10;

/** A snapshot that has been read and checked, open: any number of VMs can begin with it. */
export class OpenSnapshot {
  readonly id: string;
  /** Of the state file. */
  readonly path: string;
  readonly config: ResolvedConfig;
  readonly saved: SavedVm;
  readonly memory: SavedMemory;
  /** Where it was made. */
  readonly #host: SavedHost;
  /** What of a host's processor has been found to fit: whether it has hardware virtualization. */
  readonly #fits = new Set<boolean>();

  private constructor(
    id: string,
    path: string,
    config: ResolvedConfig,
    saved: SavedVm,
    host: SavedHost,
    memory: SavedMemory,
  ) {
    this.id = id;
    this.path = path;
    this.config = config;
    this.saved = saved;
    this.#host = host;
    this.memory = memory;
  }

  /** Throws SnapshotError for what is not there, not whole, or not what it should be. */
  static open(folder: string): OpenSnapshot {
    const path = join(folder, STATE_FILE);
    return unlessReplaced(() => {
      const state = readState(folder);
      return readingState(path, () => OpenSnapshot.#from(state, folder));
    });
  }

  static #from(state: StateReader, folder: string): OpenSnapshot {
    state.only(FIELDS);
    const path = join(folder, memoryFileOf(state));
    const { fd } = openSnapshotFile(path);
    try {
      const opened = OpenSnapshot.#read(state, join(folder, STATE_FILE), new FileMemory(fd));
      attempt(path, () => {
        checkMemory(fd, path, opened.id, memoryBytes(opened.config));
      });
      return opened;
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  /** A guest whose state and memory have come some other way; `name` is for messages. Throws SnapshotError. */
  static received(state: StateReader, name: string, memory: SavedMemory): OpenSnapshot {
    return readingState(name, () => {
      state.only(GUEST_FIELDS);
      return OpenSnapshot.#read(state, name, memory);
    });
  }

  static #read(state: StateReader, name: string, memory: SavedMemory): OpenSnapshot {
    const id = readId(state);
    for (const name of ["vmlet", "created"]) state.text(name, MAX_TEXT);
    const config = resolveDescribed(state.at("config").value as VmConfig);
    const vcpus = state.list("vcpus", config.cpus).map(vcpuFromData);
    const { kernel, initrd } = readImageHashes(state.at("images"));
    const host = readHost(state.at("host"));
    const saved: SavedVm = {
      machine: { vm: vmFromData(state.at("vm")), vcpus },
      native: host.native,
      kernelFormat: state.oneOf("kernelFormat", KERNEL_FORMATS),
      legacy: state.at("legacy"),
      devices: state.at("devices"),
      channel: state.at("channel"),
      images: { kernel: { sha256: kernel }, initrd: { sha256: initrd } },
    };
    return new OpenSnapshot(id, name, config, saved, host, memory);
  }

  /** With other ends of devices on this host. Throws ConfigError. */
  configWith(overrides: RestoreOverrides): ResolvedConfig {
    return overridden(this.config, overrides);
  }

  /**
   * A VM that goes on with the snapshot once it is started. Throws as Vm.build does, and SnapshotError for what does not
   * fit this host.
   */
  restore(host: VmHost, options: BuildOptions = {}, overrides: RestoreOverrides = {}): Vm {
    const config = this.configWith(overrides);
    const known = options.known ?? this.#probe();
    this.#checkCpu(known.quirks !== undefined);
    return readingState(this.path, () => Vm.restore(config, this.saved, this.memory, host, { ...options, known }));
  }

  #probe(): NonNullable<BuildOptions["known"]> {
    const system = KvmSystem.open();
    try {
      return { quirks: knownQuirks(system) };
    } finally {
      system.close();
    }
  }

  /** Once: this host's processor stays what it is. */
  #checkCpu(software: boolean): void {
    if (this.#fits.has(software)) return;
    const system = KvmSystem.open();
    let cpu: HostCpu;
    try {
      cpu = hostCpu(system);
    } finally {
      system.close();
    }
    const saved = { vcpus: this.saved.machine.vcpus, host: this.#host };
    checkCpu(this.path, saved, { cpu, software, native: nativeCpuid, boot: bootId });
    this.#fits.add(software);
  }

  /** After the last VM of it is closed. */
  close(): void {
    for (const fd of this.memory.files) closeSync(fd);
  }
}

/** Reads again if a newer snapshot has taken the place of this one between its two files. */
export function unlessReplaced<Result>(read: () => Result): Result {
  for (let tries = 1; ; tries++) {
    try {
      return read();
    } catch (error) {
      const isGone = (error as { readonly cause?: { readonly code?: unknown } }).cause?.code === "ENOENT";
      if (!isGone || tries === TRIES) throw error;
    }
  }
}

/** The state file's contents. Throws SnapshotError. */
export function readState(folder: string): StateReader {
  checkFolder(folder);
  const path = join(folder, STATE_FILE);
  if (attempt(path, () => lstatSync(path, { throwIfNoEntry: false })) === undefined) {
    throw new SnapshotError(`${folder}: holds no snapshot: there is no ${STATE_FILE}`);
  }
  return decodeState(readSnapshotFile(path, MAX_STATE_BYTES), path);
}

export function readId(state: StateReader): string {
  const id = state.text("id", 32);
  if (!ID.test(id)) throw state.at("id").wrong("32 hexadecimal digits");
  return id;
}

export function memoryFileOf(state: StateReader): string {
  const memory = state.at("memory");
  memory.only(["file", "dataBytes", "sha256"]);
  memory.integer("dataBytes", { minimum: 0, maximum: Number.MAX_SAFE_INTEGER });
  if (!SHA256.test(memory.text("sha256", 64))) throw memory.at("sha256").wrong("a SHA-256 in hexadecimal");
  const name = memory.text("file", 64);
  if (!MEMORY_FILE.test(name)) throw memory.at("file").wrong("the name of a memory file");
  return name;
}

/** Of the memory file, without its last page. */
export function memoryBytes({ memoryMib, commandChannel }: ResolvedConfig): number {
  return memoryMib * MIB + (commandChannel ? CHANNEL_BYTES : 0);
}
