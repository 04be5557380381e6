// What a program does with a guest's agent: commands, files, the guest itself.
import type { AgentConnection } from "./connection.js";
import { startCommand, type ExecOptions, type GuestProcess } from "./exec.js";
import type { GuestBytes } from "./guest-bytes.js";
import { GuestControl } from "./guest.js";
import { GuestTrees } from "./trees.js";
import type { RunResult } from "./run-result.js";
import { runCommand, type RunOptions } from "./run.js";

/** A guest as its agent shows it, over a connection that the caller has made and closes. */
export class Agent {
  readonly connection: AgentConnection;
  readonly files: GuestTrees;
  readonly guest: GuestControl;

  constructor(connection: AgentConnection) {
    this.connection = connection;
    this.files = new GuestTrees(connection);
    this.guest = new GuestControl(connection, this.files);
  }

  /** Starts a command; resolves once it runs. Rejects as `startCommand` does. */
  exec(command: readonly GuestBytes[], options: ExecOptions = {}): Promise<GuestProcess> {
    return startCommand(this.connection, command, options);
  }

  /** Runs a command and waits for its end. Rejects as `runCommand` does. */
  run(command: readonly GuestBytes[], options: RunOptions = {}): Promise<RunResult> {
    return runCommand(this.connection, command, options);
  }
}
