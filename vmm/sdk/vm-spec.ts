// What a VM is made of, complete and checked, as one process hands it to another: plain JSON.
import type { JailMode } from "../config/jail-modes.js";
import type { CommandDefaults, CommandSpec } from "./command-spec.js";
import type { PublishedPort } from "./vm-record.js";

export type RootSpec =
  /** An image's disk of parts (vmm/image), below a layer that goes with the VM. */
  | { readonly kind: "image"; readonly manifest: string }
  /** The image of a file system, or a block device, as the guest's root. */
  | { readonly kind: "disk"; readonly path: string }
  /** What the guest boots into, which has its agent and no more: what else it is to have is a volume. */
  | { readonly kind: "initramfs" };

export interface VolumeSpec {
  readonly hostPath: string;
  readonly guestPath: string;
  readonly isReadonly: boolean;
  /** One file alone. */
  readonly isFile: boolean;
  /** A guest that has looked into it can be saved. */
  readonly isJournaled?: boolean;
}

export interface TmpfsSpec {
  readonly guestPath: string;
  /** As mount(8) takes them after -o, such as "size=64m,mode=1777". */
  readonly options: string;
}

/** Of resolv.conf(5); what is undefined stays as it is. */
export interface ResolverSpec {
  readonly nameservers: readonly string[] | undefined;
  readonly search: readonly string[] | undefined;
  readonly options: readonly string[] | undefined;
}

/** What programs find besides their root. */
export interface WorldSpec {
  readonly hosts: readonly (readonly [name: string, address: string])[];
  readonly resolver?: ResolverSpec;
  /** Of /dev/shm, `bytes`. */
  readonly shmBytes?: number;
  readonly sysctls: readonly (readonly [name: string, value: string])[];
}

export type NetworkSpec =
  | { readonly kind: "none" }
  | { readonly kind: "user" }
  | { readonly kind: "tap"; readonly tap: string }
  /** Interfaces of a network namespace of the VM's own, which have the same names in each. */
  | { readonly kind: "namespace"; readonly taps: readonly string[] };

export interface VmSpec {
  readonly id: string;
  readonly name: string;
  readonly root: RootSpec;
  /** For the record: an image's reference, or a path. */
  readonly source: string;
  readonly imageId: string | undefined;
  readonly memoryMib: number;
  readonly cpus: number;
  readonly network: NetworkSpec;
  readonly ports: readonly PublishedPort[];
  readonly volumes: readonly VolumeSpec[];
  readonly tmpfs: readonly TmpfsSpec[];
  /** Undefined: that of every guest. */
  readonly hostName: string | undefined;
  /** The guest may not write to its root. */
  readonly isReadonly: boolean;
  readonly labels: Readonly<Record<string, string>>;
  readonly autoRemove: boolean;
  readonly stopSignal: number;
  /** It ends with that; undefined: it waits for what it is asked. */
  readonly main: CommandSpec | undefined;
  /** `ms` that it may run; 0: as long as it likes. */
  readonly timeoutMs: number;
  /** For commands that say nothing else. */
  readonly defaults: CommandDefaults;
  readonly world?: WorldSpec;
  /** `ms` from the word that its program is to end until it is killed; undefined: the usual time. */
  readonly stopTimeoutMs?: number;
  /** In the lab, an emulated host, where this one has no /dev/kvm that could be used. */
  readonly isInLab?: boolean;
  /** Walls around its process; undefined: "on". */
  readonly jail?: JailMode;
  /** No control group in the guest limits memory. */
  readonly hasNoMemoryGroups?: boolean;
}
