// What a fuzzer is, and the rule that all of them share.
import { QueueError } from "../../devices/virtio/queue-error.js";
import type { RamLayout } from "./hostile-memory.js";
import type { Random } from "./random.js";

export interface FuzzTarget {
  readonly name: string;
  /** One case, decided by `random` and how RAM lies; throws when something happens that must not. */
  run(random: Random, layout: RamLayout): void | Promise<void>;
}

/** Runs `action`, which may find that the driver has broken the protocol, and nothing else. */
export function allowQueueError(action: () => void): void {
  try {
    action();
  } catch (error) {
    if (!(error instanceof QueueError)) throw error;
  }
}
