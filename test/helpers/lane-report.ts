// What a process of tests says of itself to helpers/lane.ts.
import type mocha from "mocha";
import type { Counts } from "./counts.js";
import { writeLaneState, type RunningTest } from "./lane-state.js";

/** For a test that has no limit, `ms`. */
const NO_LIMIT_MS = 600_000;

export class LaneReport {
  readonly #path: string;
  readonly #counts: () => Counts;
  readonly #watched = new WeakSet<mocha.Runnable>();
  #file = "";
  #countsOfEndedFiles: Counts;
  #running: RunningTest | undefined;

  constructor(path: string, counts: () => Counts) {
    this.#path = path;
    this.#counts = counts;
    this.#countsOfEndedFiles = counts();
  }

  begin(runnable: mocha.Runnable): void {
    const file = runnable.file ?? runnable.parent?.file ?? "";
    if (file !== this.#file) {
      this.#file = file;
      this.#countsOfEndedFiles = this.#counts();
    }
    const started = Date.now();
    const write = (): void => {
      const limitAt = started + (runnable.timeout() || NO_LIMIT_MS);
      this.#running = { file, title: runnable.titlePath().join(" "), limitAt };
      this.#write(false);
    };
    write();
    if (this.#watched.has(runnable)) return;
    this.#watched.add(runnable);
    // A test that sets its limit in its own body does so now.
    const timeout = runnable.timeout.bind(runnable) as (ms?: string | number) => never;
    runnable.timeout = (ms?: string | number) => {
      if (ms === undefined) return timeout();
      const result = timeout(ms);
      if (this.#running?.title === runnable.titlePath().join(" ")) write();
      return result;
    };
  }

  end(): void {
    this.#running = undefined;
    this.#write(false);
  }

  complete(): void {
    this.#running = undefined;
    this.#write(true);
  }

  #write(isComplete: boolean): void {
    const counts = this.#counts();
    const running = this.#running === undefined ? {} : { running: this.#running };
    writeLaneState(this.#path, { counts, countsOfEndedFiles: this.#countsOfEndedFiles, isComplete, ...running });
  }
}
