// Reads a snapshot and makes VMs that go on with it.
import { closeSync, openSync, readFileSync } from "node:fs";
import { join } from "node:path";
import type { StateReader } from "../../devices/state.js";
import { resolveConfig } from "../config/resolve.js";
import type { ResolvedConfig, VmConfig } from "../config/types.js";
import { CHANNEL_BYTES } from "../../devices/pseudo/command-channel.js";
import { vcpuFromData } from "../kvm/vcpu-data.js";
import { vmFromData } from "../kvm/vm-state.js";
import type { BuildOptions, SavedVm } from "../machine/builder.js";
import type { VmHost } from "../machine/host-callbacks.js";
import { Vm } from "../machine/vm.js";
import { MIB } from "../memory/layout.js";
import { KERNEL_FORMATS } from "../x86/kernel.js";
import { MEMORY_FILE, STATE_FILE } from "./create.js";
import { checkMemory } from "./memory-file.js";
import { decodeState, readingState } from "./state-file.js";

/** A snapshot that has been read and checked, open: any number of VMs can begin with it. */
export class OpenSnapshot {
  readonly id: string;
  /** Of the state file. */
  readonly path: string;
  readonly config: ResolvedConfig;
  readonly saved: SavedVm;
  readonly memoryFile: number;

  private constructor(id: string, path: string, config: ResolvedConfig, saved: SavedVm, memoryFile: number) {
    this.id = id;
    this.path = path;
    this.config = config;
    this.saved = saved;
    this.memoryFile = memoryFile;
  }

  /** Throws SnapshotError, ConfigError or an error of the file system. */
  static open(folder: string): OpenSnapshot {
    const path = join(folder, STATE_FILE);
    const state = decodeState(readFileSync(path), path);
    return readingState(path, () => OpenSnapshot.#from(state, folder));
  }

  static #from(state: StateReader, folder: string): OpenSnapshot {
    const id = state.text("id", 64);
    const config = resolveConfig(state.at("config").value as VmConfig);
    const vcpus = state.list("vcpus", config.cpus).map(vcpuFromData);
    const saved: SavedVm = {
      machine: { vm: vmFromData(state.at("vm")), vcpus },
      kernelFormat: state.oneOf("kernelFormat", KERNEL_FORMATS),
      legacy: state.at("legacy"),
      devices: state.at("devices"),
      channel: state.at("channel"),
    };
    const name = state.at("memory").text("file", 64);
    if (!MEMORY_FILE.test(name)) throw state.at("memory").at("file").wrong("the name of a memory file");
    const path = join(folder, name);
    const memoryFile = openSync(path, "r");
    try {
      checkMemory(memoryFile, path, id, config.memoryMib * MIB + (config.commandChannel ? CHANNEL_BYTES : 0));
    } catch (error) {
      closeSync(memoryFile);
      throw error;
    }
    return new OpenSnapshot(id, join(folder, STATE_FILE), config, saved, memoryFile);
  }

  /** A VM that goes on with the snapshot once it is started. Throws as Vm.build does. */
  restore(host: VmHost, options: BuildOptions = {}): Vm {
    return readingState(this.path, () => Vm.restore(this.config, this.saved, this.memoryFile, host, options));
  }

  /** After the last VM of it is closed. */
  close(): void {
    closeSync(this.memoryFile);
  }
}
