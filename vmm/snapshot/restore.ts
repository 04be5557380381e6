// Reads a snapshot and makes VMs that go on with it.
import { closeSync } from "node:fs";
import { join } from "node:path";
import type { StateReader } from "../../devices/state.js";
import { resolveDescribed } from "../config/describe.js";
import type { ResolvedShare } from "../config/shares.js";
import type { ResolvedConfig, VmConfig } from "../config/types.js";
import { ConfigError } from "../errors.js";
import { bootId } from "../host/facts.js";
import { knownQuirks } from "../fixups/probe.js";
import { KvmSystem } from "../kvm/system.js";
import { vcpuFromData } from "../kvm/vcpu-data.js";
import { vmFromData } from "../kvm/vm-state.js";
import type { BuildOptions, SavedVm } from "../machine/builder.js";
import { hostCpu, nativeCpuid, type HostCpu } from "../machine/host-cpu.js";
import type { VmHost } from "../machine/host-callbacks.js";
import { Vm } from "../machine/vm.js";
import type { SavedMemory } from "../memory/saved-memory.js";
import { KERNEL_FORMATS } from "../x86/kernel.js";
import { MAX_NOTE_BYTES } from "./arguments.js";
import { checkCpu } from "./cpu-check.js";
import { readSnapshotFile, STATE_FILE } from "./folder.js";
import { readImageHashes } from "./image-hash.js";
import { openApart, openMemory } from "./memory-chain.js";
import { overridden, type RestoreOverrides } from "./overrides.js";
import { readHost, type SavedHost } from "./saved-host.js";
import { readId, readState, unlessReplaced } from "./state-parts.js";
import { decodeState, MAX_STATE_BYTES, readingState } from "./state-file.js";

/** Of a guest's state, besides what says where its memory is. */
const GUEST_FIELDS = [
  ...["id", "vmlet", "created", "host", "config", "images", "kernelFormat"],
  ...["vm", "vcpus", "legacy", "devices", "channel"],
];
const FIELDS = [...GUEST_FIELDS, "memory"];
const NOTE = "note";
const MAX_TEXT = 1000;

/** A snapshot that has been read and checked, open: any number of VMs can begin with it. */
export class OpenSnapshot {
  readonly id: string;
  /** Of the state file. */
  readonly path: string;
  #config: ResolvedConfig;
  /** As it was saved. */
  readonly #saved: ResolvedConfig;
  readonly saved: SavedVm;
  readonly memory: SavedMemory;
  /** What whoever made it has written on it. */
  readonly note: string | undefined;
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
    note: string | undefined,
  ) {
    this.note = note;
    this.id = id;
    this.path = path;
    this.#config = config;
    this.#saved = config;
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

  /** The same from two files, of file-pair.ts. */
  static openPair(statePath: string, memoryPath: string): OpenSnapshot {
    const state = decodeState(readSnapshotFile(statePath, MAX_STATE_BYTES), statePath);
    return readingState(statePath, () => {
      state.only([...FIELDS, NOTE]);
      state.at("memory").only(["dataBytes"]);
      const memory = openApart(state, memoryPath);
      try {
        return OpenSnapshot.#read(state, statePath, memory, state.text(NOTE, MAX_NOTE_BYTES));
      } catch (error) {
        for (const fd of memory.files) closeSync(fd);
        throw error;
      }
    });
  }

  static #from(state: StateReader, folder: string): OpenSnapshot {
    const hasNote = state.names(FIELDS.length + 1).includes(NOTE);
    state.only(hasNote ? [...FIELDS, NOTE] : FIELDS);
    const note = hasNote ? state.text(NOTE, MAX_NOTE_BYTES) : undefined;
    const memory = openMemory(state, folder);
    try {
      return OpenSnapshot.#read(state, join(folder, STATE_FILE), memory, note);
    } catch (error) {
      for (const fd of memory.files) closeSync(fd);
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

  static #read(state: StateReader, name: string, memory: SavedMemory, note?: string): OpenSnapshot {
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
    return new OpenSnapshot(id, name, config, saved, host, memory, note);
  }

  get config(): ResolvedConfig {
    return this.#config;
  }

  /** What its guests find behind the tags that they know, unless a restore says otherwise. */
  share(shares: readonly ResolvedShare[]): this {
    this.#config = { ...this.#config, shares };
    return this;
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
    try {
      return readingState(this.path, () => Vm.restore(config, this.saved, this.memory, host, { ...options, known }));
    } catch (error) {
      // What this restore asks for is no fault of the snapshot's.
      const { cause } = error as { readonly cause?: unknown };
      throw config !== this.#saved && cause instanceof ConfigError ? cause : error;
    }
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
