// Signals of a command in the foreground, on to the process that it waits for.
import { onEndSignals } from "../sys/end-signals.js";

/** The result ends it. */
export function forwardSignals(pid: number): () => void {
  return onEndSignals((number) => {
    try {
      process.kill(pid, number);
    } catch {
      // It has ended in this moment.
    }
  });
}
