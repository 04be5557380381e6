// One rung during a run: started instances, tries again after a failed start, and what is known of it.
import { release, version } from "node:os";
import type { Sample } from "../harness.js";
import { hold, launch, type Ended, type Held, type Order, type Subject } from "./launch.js";
import type { Joint } from "./network.js";
import type { DensityEnd, Outside, RungResult } from "./result.js";
import type { Equipment, Rung } from "./rung.js";
import type { Workspace } from "./workspace.js";
import type { Isolation, Skipped } from "./survey.js";

/** A start that fails is counted and tried again; after this many failures in a row the rung is given up. */
const TRIES = 4;

export const PROBE = "/bin/probe";
export const HOST_KERNEL = `${release()} ${version()}`;

/** The probe's words, with those that set up its disk and network first. */
function inside({ program, equipment, ...rest }: Order): Order {
  const { disk, network } = equipment ?? {};
  const first = [
    ...(disk === undefined ? [] : ["with-disk", "/dev/vda"]),
    ...(network?.kind === "tap" ? ["with-address", "eth0", network.guestAddress, network.netmask] : []),
  ];
  return { ...rest, program: [PROBE, ...first, ...program], ...(equipment === undefined ? {} : { equipment }) };
}

export class RungRun {
  readonly rung: Rung;
  readonly version: string;
  readonly #workspace: Workspace;
  readonly #subject: Subject;
  readonly #reports = new WeakMap<Ended, Sample>();
  firstStartMs: number | undefined;
  isolation: Isolation | undefined;
  namespaces: readonly string[] | undefined;
  outside: Outside | undefined;
  /** How the density ended. */
  density: DensityEnd | undefined;
  #skippedWork: Skipped = {};
  #starts = 0;
  #failed = 0;
  #lastFailure: string | undefined;

  constructor(workspace: Workspace, subject: Subject, version: string) {
    this.#workspace = workspace;
    this.#subject = subject;
    this.rung = subject.rung;
    this.version = version;
  }

  get engine(): number | undefined {
    return this.#subject.open.engine;
  }

  /** What the rung itself reports of an instance that has ended. */
  report(ended: Ended): Sample {
    return this.#reports.get(ended) ?? {};
  }

  /** Where its instances meet the peer, or why they cannot. */
  get joint(): Joint | { readonly missing: string } {
    const { network } = this.rung;
    if (typeof network !== "string") return { missing: network.none };
    const { noNetwork } = this.#subject.open;
    if (noNetwork !== undefined) return { missing: noNetwork };
    return this.#workspace.network.joints[network] ?? { missing: this.#workspace.network.missing };
  }

  /** A disk of its own for a VM's files; undefined for rungs that use the host's. */
  disk(): Equipment {
    return this.rung.takesDisk === true ? { disk: this.#workspace.freshDisk(this.rung.name) } : {};
  }

  skip(reasons: Skipped): void {
    this.#skippedWork = { ...this.#skippedWork, ...reasons };
  }

  async start(order: Order): Promise<readonly Ended[]> {
    return this.#try(order.count ?? 1, () =>
      launch(this.#workspace, this.#subject, inside(order), (one) => {
        const report = this.#subject.open.ended?.(one.name);
        if (report !== undefined) this.#reports.set(one, report);
      }),
    );
  }

  async startOne(order: Order): Promise<Ended> {
    const [one] = await this.start(order);
    if (one === undefined) throw new Error("the launcher said nothing");
    return one;
  }

  async hold(order: Order): Promise<Held> {
    return this.#try(order.count ?? 1, () => hold(this.#workspace, this.#subject, inside(order)));
  }

  async close(): Promise<void> {
    await this.#subject.open.close?.();
  }

  result(): Omit<RungResult, "skipped" | "version"> & { readonly version: string } {
    const { name, adds, family, limits } = this.rung;
    return {
      ...{ name, adds, family, version: this.version },
      limits: limits === "group" && this.#workspace.limits.length === 0 ? "none" : limits,
      accelerator: this.#subject.open.accelerator?.() ?? null,
      first_start_ms: this.firstStartMs ?? null,
      failed_starts: this.#failed,
      starts: this.#starts,
      last_failure: this.#lastFailure ?? null,
      isolation: this.isolation ?? null,
      namespaces: this.namespaces ?? null,
      outside: this.outside ?? null,
      skipped_work: this.#skippedWork,
      density: this.density ?? null,
    };
  }

  async #try<T>(count: number, start: () => Promise<T>): Promise<T> {
    for (let left = TRIES; ;) {
      this.#starts += count;
      try {
        return await start();
      } catch (error) {
        this.#failed++;
        this.#lastFailure = error instanceof Error ? error.message : String(error);
        // A rung that hangs once may hang again: spend the time on the others.
        if (--left === 0 || this.#workspace.signal.aborted || this.#lastFailure.startsWith("hangs")) throw error;
      }
    }
  }
}
