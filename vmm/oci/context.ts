// What every command of the runtime is given.
import type { GlobalOptions } from "./command-line.js";
import type { Log } from "./log.js";

export interface Context {
  readonly global: GlobalOptions;
  readonly log: Log;
  readonly argv: readonly string[];
}
