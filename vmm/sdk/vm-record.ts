// What is known of a VM by those that did not start it: a file of JSON in the state folder.
import type { JailMode } from "../config/jail-modes.js";
import type { ProcessIdentity } from "./process-identity.js";
import type { CommandDefaults } from "./command-spec.js";

export type VmStatus = "starting" | "running" | "exited";

export interface PublishedPort {
  readonly hostAddress: string;
  readonly hostPort: number;
  readonly guestPort: number;
  readonly protocol: "tcp" | "udp";
}

export interface VmRecord {
  readonly version: 1;
  /** 12 hexadecimal digits. */
  readonly id: string;
  readonly name: string;
  /** Of the process in which the VM lives. */
  readonly owner: ProcessIdentity;
  /** ISO 8601. */
  readonly created: string;
  readonly finished?: string;
  readonly status: VmStatus;
  /** Of what it was started for, once that has ended. */
  readonly exitCode?: number;
  /** Why it has ended, if not by itself. */
  readonly error?: string;
  /** What its root is: an image's reference, or a path. */
  readonly source: string;
  readonly imageId?: string;
  /** What it was started for; empty: to be asked. */
  readonly command: readonly string[];
  readonly memoryMib: number;
  readonly cpus: number;
  readonly network: string;
  readonly ports: readonly PublishedPort[];
  readonly labels: Readonly<Record<string, string>>;
  /** Nothing of it stays after its end. */
  readonly autoRemove: boolean;
  /** What it writes is kept in its folder. */
  readonly hasLog: boolean;
  /** It has a terminal. */
  readonly hasTerminal: boolean;
  /** That asks what it runs to end, by number. */
  readonly stopSignal: number;
  /** For programs that are started in it and say nothing else; "NAME=VALUE". */
  readonly defaults: CommandDefaults;
  /** `ms` that it has for its end when it is stopped; without it, the usual time. */
  readonly stopTimeoutMs?: number;
  /** It went on from a template. */
  readonly restored: boolean;
  /** How its process is shut in; records of before have none. */
  readonly jail?: JailMode;
  /** It runs in the lab. */
  readonly isInLab?: boolean;
}
