// A program in a guest, as one process hands it to another: plain JSON.
import type { CommandOptions } from "../agent/exec-request.js";

/** A program in the guest. */
export interface CommandSpec {
  readonly argv: readonly string[];
  /** "NAME=VALUE" */
  readonly env: readonly string[];
  readonly workingDirectory: string;
  /** NAME, UID, NAME:GROUP or UID:GID; empty: root. */
  readonly user: string;
  /** Supplementary groups besides the user's, by number. */
  readonly groups?: CommandOptions["groups"];
  /** Of setrlimit(2). */
  readonly limits?: CommandOptions["limits"];
  readonly hasTerminal: boolean;
  /** Standard input is open; without it, it is /dev/null. */
  readonly isInteractive: boolean;
}

/** What programs have that say nothing else. */
export type CommandDefaults = Pick<CommandSpec, "env" | "workingDirectory" | "user" | "groups" | "limits">;
