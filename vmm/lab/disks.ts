// The disks of this host that a lab has: they come to it in the order of their names, some while it runs.
import { setTimeout as sleep } from "node:timers/promises";
import type { GuestFiles } from "../agent/files.js";
import { LabError } from "../errors.js";
import { afterLimit } from "../host/time-limit.js";
import type { Hotplug, LabDisk } from "./emulator.js";

/** Until disks that were plugged in are there, and between two looks, `ms`. */
const DISKS_LIMIT_MS = 30_000;
const LOOK_MS = 5;

/** Path in the lab of the disk `index` of those that it begins with: the base and the input disk come first. */
export function labDiskPath(index: number): string {
  return `/dev/vd${String.fromCharCode("c".charCodeAt(0) + index)}`;
}

/** A disk in the lab. */
export interface PluggedDisk {
  readonly path: string;
  /** Nobody uses it any more. */
  unplug(): Promise<void>;
}

export class LabDisks {
  readonly #files: GuestFiles;
  readonly #hotplug: Hotplug | undefined;
  /** Those that it has ever had. */
  #count = 0;

  constructor(files: GuestFiles, hotplug: Hotplug | undefined) {
    this.#files = files;
    this.#hotplug = hotplug;
  }

  /** Those that it begins with are there. Rejects with LabError. */
  async ready(count: number): Promise<void> {
    this.#count = count;
    if (count === 0) return;
    const last = labDiskPath(count - 1);
    const what = `The disk ${last} has not come to the lab`;
    await this.#until(what, async () => ((await this.#files.exists(last)) ? last : undefined));
  }

  /** One of those that it began with. */
  first(index: number): PluggedDisk {
    return this.#plugged(labDiskPath(index), index);
  }

  /** Another one. Rejects with LabError or DiskError; one at a time. */
  async plug(disk: LabDisk): Promise<PluggedDisk> {
    if (this.#hotplug === undefined) throw new LabError("This lab's disks are those that it began with");
    const index = this.#count++;
    const before = await this.#names();
    await this.#hotplug.plug(disk, index);
    const name = await this.#until(`The disk ${disk.path} has not come to the lab`, async () =>
      (await this.#names()).find((one) => !before.includes(one)),
    );
    return this.#plugged(`/dev/${name}`, index);
  }

  #plugged(path: string, index: number): PluggedDisk {
    return {
      path,
      unplug: async () => {
        await this.#hotplug?.unplug(index);
        const what = `The disk ${path} has not left the lab`;
        await this.#until(what, async () => ((await this.#files.exists(path)) ? undefined : path));
      },
    };
  }

  async #names(): Promise<string[]> {
    const entries = await this.#files.list("/dev");
    return entries.map(({ name }) => name).filter((name) => /^vd[a-z]+$/.test(name));
  }

  /** Looks until there is something. Rejects with LabError. */
  async #until(what: string, look: () => Promise<string | undefined>): Promise<string> {
    let isLate = false as boolean;
    const inTime = afterLimit("the lab's disks", DISKS_LIMIT_MS, () => (isLate = true));
    try {
      for (;;) {
        const found = await look();
        if (found !== undefined) return found;
        if (isLate) throw new LabError(`${what} in ${String(DISKS_LIMIT_MS / 1000)} s`);
        await sleep(LOOK_MS);
      }
    } finally {
      inTime();
    }
  }
}
