// What can be done of a start before a client asks for it. While the client goes on configuring, kernel and initrd are read into
// memory; once it rests, all of the VM is made. A start takes what fits what is configured then, and files and interfaces as they
// are then; anything else goes. Nothing of this is ever the cause of an answer: what fails here is done, and said, by the start.
import { readFileSync, statSync } from "node:fs";
import type { ResolvedConfig } from "../config/types.js";
import { BootMemory } from "../machine/boot-memory.js";
import type { Vm } from "../machine/vm.js";
import type { Settings } from "./settings.js";

/** A client that asks for nothing for so long is done, or thinks, `ms`. */
const REST_MS = 25;
/** A machine that is not started has memory of its own no longer than this, `ms`. */
const KEPT_MS = 60_000;
/** Larger images cost a host too much that has many machines configured, `bytes`. */
const MAX_IMAGE_BYTES = 128 * 2 ** 20;

/** What is there already; who takes it closes it. */
export interface Taken {
  readonly vm?: Vm | undefined;
  readonly bootMemory?: BootMemory | undefined;
}

/** Makes the VM, at once. */
export type Build = (taken: { readonly bootMemory: BootMemory | undefined }) => Vm;

export class Preparation {
  /** Loads what making the VM takes. */
  readonly #getReady: (config: ResolvedConfig, settings: Settings) => Promise<Build>;
  #memory: BootMemory | undefined;
  #built: { readonly vm: Vm; readonly memory: BootMemory | undefined; readonly key: string } | undefined;
  #rest: NodeJS.Timeout | undefined;
  #end: NodeJS.Timeout | undefined;
  /** Changes whenever what is about to be built is not wanted any more. */
  #round = 0;

  constructor(getReady: (config: ResolvedConfig, settings: Settings) => Promise<Build>) {
    this.#getReady = getReady;
  }

  /** In place of what was prepared before. Throws what a start would. */
  prepare(config: ResolvedConfig, settings: Settings): void {
    this.#forgetBuilt();
    if (this.#memory?.fits(config) !== true) this.#readImages(config);
    // A socket's file is there for a guest that runs; pages that the host keeps for guests are not taken on trial.
    if (config.vsock === undefined && this.#memory !== undefined) {
      this.#rest = setTimeout(() => {
        void this.#buildAhead(config, settings);
      }, REST_MS).unref();
    }
    clearTimeout(this.#end);
    this.#end = setTimeout(() => {
      this.drop();
    }, KEPT_MS).unref();
  }

  /** What there is of this configuration. */
  take(config: ResolvedConfig, settings: Settings): Taken {
    const built = this.#built;
    if (built !== undefined && built.memory?.fits(config) === true && built.key === keyOf(config, settings)) {
      this.#built = undefined;
      this.drop();
      return { vm: built.vm };
    }
    const memory = this.#memory?.fits(config) === true ? this.#memory : undefined;
    if (memory !== undefined) this.#memory = undefined;
    this.drop();
    return { bootMemory: memory };
  }

  drop(): void {
    clearTimeout(this.#end);
    this.#forgetBuilt();
    this.#memory?.abandon();
    this.#memory = undefined;
  }

  #readImages(config: ResolvedConfig): void {
    this.#memory?.abandon();
    this.#memory = undefined;
    if (config.hugePages === "2M") return;
    const memory = new BootMemory(config);
    this.#memory = memory;
    if (memory.imageBytes <= MAX_IMAGE_BYTES) memory.load();
    else this.drop();
  }

  async #buildAhead(config: ResolvedConfig, settings: Settings): Promise<void> {
    const round = this.#round;
    const memory = this.#memory;
    try {
      const key = keyOf(config, settings);
      const build = await this.#getReady(config, settings);
      await Promise.allSettled(memory?.reads ?? []);
      // Meanwhile it may have been started, and have the interfaces.
      if (round !== this.#round) return;
      this.#memory = undefined;
      this.#built = { vm: build({ bootMemory: memory }), memory, key };
    } catch {
      // The start meets it again.
    }
  }

  #forgetBuilt(): void {
    this.#round++;
    clearTimeout(this.#rest);
    if (this.#built !== undefined) close(this.#built.vm);
    this.#built = undefined;
  }
}

/** Its devices are let go of at once. */
function close(vm: Vm): void {
  vm.closeDevices();
  vm.close().catch(() => undefined);
}

/** Of one that was removed and made again it is another; empty without one. */
function interfaceIndex(name: string): string {
  try {
    return readFileSync(`/sys/class/net/${name}/ifindex`, "latin1");
  } catch {
    return "";
  }
}

/** Everything that a VM is made of but kernel and initrd. */
function keyOf(config: ResolvedConfig, { cpuConfig = null }: { readonly cpuConfig?: unknown }): string {
  const files = config.disks.map(({ path }) => {
    const stat = statSync(path, { bigint: true, throwIfNoEntry: false });
    return stat === undefined ? "" : [stat.dev, stat.ino, stat.size].join(" ");
  });
  const interfaces = config.nets.map(({ tap = "" }) => interfaceIndex(tap));
  return JSON.stringify([config, cpuConfig, files, interfaces]);
}
