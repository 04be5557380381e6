// What `vmlet doctor` is made of: checks, each with a stable code, and what they find.
import type { HostView } from "./host-view.js";

/** "note": works, with less than it could; "bad": something that is needed does not work. */
export type Status = "ok" | "note" | "bad";

/** Where a command has to run: in this system, on the host of this container, or on the machine that runs this VM. */
export type Place = "here" | "container-host" | "level-above";

export interface Command {
  readonly place: Place;
  /** One line for a shell; what the reader has to fill in is a <NAME>. */
  readonly line: string;
}

export interface Observation {
  readonly status: Status;
  readonly title: string;
  /** What was seen; for a problem, its cause in one line. */
  readonly detail: string;
  /** What to do about it, in one line. */
  readonly cure?: string | undefined;
  /** The cure as commands, where it can be given as such. */
  readonly commands?: readonly Command[] | undefined;
}

export interface Finding extends Observation {
  /** Stable name for programs, such as "kvm-device"; README.md of this folder lists all. */
  readonly code: string;
}

/** What a failed check stops: every guest, guests on /dev/kvm, guests in the lab, or only an option. */
export type Area = "host" | "kvm" | "lab" | "extra";

export interface Check {
  readonly code: string;
  readonly area: Area;
  /** The worst status that it can report; "ok" if it only states a fact. */
  readonly worst: Status;
  /** Undefined where there is nothing to say. Must not change anything on the host. */
  readonly look: (host: HostView) => Observation | undefined;
}

export const here = (line: string): Command => ({ place: "here", line });
export const onContainerHost = (line: string): Command => ({ place: "container-host", line });
export const onLevelAbove = (line: string): Command => ({ place: "level-above", line });
