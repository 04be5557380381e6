// What every rung of the ladder offers. A rung is one file in rungs/; the measuring code knows
// nothing of chroot, runc or VMs beyond this.
import type { Sample } from "../harness.js";
import type { Detection } from "./detect.js";
import type { Joint, JointKind } from "./network.js";
import type { Workspace } from "./workspace.js";

/** What stands between the program and the host. */
export type Family = "process" | "namespaces" | "runtime" | "engine" | "vm";

/** What an instance gets in addition to the root directory, in the stages that need it. */
export interface Equipment {
  /** For VMs: a raw image, /dev/vda of the guest. */
  readonly disk?: string;
  readonly network?: Joint;
}

export interface Instance extends Equipment {
  /** Unique on this host; holds "@I@" where the launcher puts the number of the instance. */
  readonly name: string;
  /** argv inside the rung's root file system. */
  readonly program: readonly string[];
}

/** A rung that is ready to start instances. Everything it makes lies in the workspace's folder or is removed by `close`. */
export interface OpenRung {
  /** argv on the host. */
  command(instance: Instance): readonly string[];
  /** Called with the instance's real name (its number filled in) once it has ended: what the rung reports about it. */
  ended?(name: string): Sample;
  /** Removes what instances left, and instances that still run. There may be nothing. */
  remove?(names: readonly string[]): void;
  /** Process that all processes of the engine descend from, for rungs with one. */
  readonly engine?: number;
  /** Added to the environment of its starts. */
  readonly environment?: Readonly<Record<string, string>>;
  /** A mount that the rung must not see. */
  readonly hides?: string;
  /** Why there is no network after all. */
  readonly noNetwork?: string;
  /** What executes kernel code, in words; for VMs, known after the first start. */
  accelerator?(): string | undefined;
  close?(): void | Promise<void>;
}

export interface Rung {
  /** As in `--only`, kebab-case. */
  readonly name: string;
  /** What it adds to the rungs below, in a few words. */
  readonly adds: string;
  readonly family: Family;
  /** "own" for rungs that can limit memory and CPU themselves; the others are put into a group that does. */
  readonly limits: "own" | "group";
  /** How its instances reach the host in the stage about networks, or why they cannot. */
  readonly network: JointKind | { readonly none: string };
  /** Its root directory is in memory, but it can have a disk. */
  readonly takesDisk?: true;
  /** Debian's package that brings it. */
  readonly debianPackage?: string;
  /** One start may take this long, `ms`; times the number of instances at once. */
  readonly timeoutMs: number;
  detect(): Detection;
  open(workspace: Workspace): OpenRung | Promise<OpenRung>;
}
