// That a guest is booting, on a terminal: it may be silent for long, under --quiet most of all. A log needs no
// animation, and only who has to wait pays for the code.
import { UNLIMITED_MEMORY_MIB } from "../config/memory-limits.js";
import { nowMs } from "../host/clock.js";
import { isTerminal } from "../sys/files.js";
import { isInForeground } from "../sys/terminal.js";

const STDERR = 2;
const TEXT = "the guest is booting";
const LATE_MS = 1000;

/** `MiB` that the kernel prepares in a minute, page by page, on a software KVM; the rest of its boot takes seconds. */
const PREPARED_IN_A_MINUTE_MIB = 5120;
/** `MiB` from which that is most of a boot. */
const MUCH_MEMORY_MIB = 2048;

/** How long a boot takes where the host emulates the guest's kernel. */
export function expectedBoot(memoryMib: number): string {
  if (memoryMib < MUCH_MEMORY_MIB) return "expect a boot of seconds";
  const minutes = Math.ceil(memoryMib / PREPARED_IN_A_MINUTE_MIB);
  const time = minutes === 1 ? "a minute" : `${String(minutes)} minutes`;
  return `expect a boot of ${time} or more, because the guest's kernel prepares each of ${String(memoryMib)} MiB; less memory boots sooner`;
}

export interface BootProgress {
  /** Makes room for a line; it comes back below. */
  clear(): void;
  /** There is something else to see. Later calls do nothing. */
  done(): void;
}

export async function showBooting(memoryMib: number): Promise<BootProgress | undefined> {
  if (!isTerminal(STDERR)) return undefined;
  if (memoryMib <= UNLIMITED_MEMORY_MIB) return new LateProgress();
  // The host takes seconds to set so much memory up, in calls that no timer gets between.
  const { Progress } = await import("../host/progress.js");
  const progress = new Progress(TEXT, isInForeground(STDERR));
  progress.show();
  return progress;
}

class LateProgress implements BootProgress {
  readonly #startedMs = nowMs();
  readonly #timer = setTimeout(() => void this.#begin(), LATE_MS).unref();
  #progress: BootProgress | undefined;
  #isDone = false;

  clear(): void {
    this.#progress?.clear();
  }

  done(): void {
    this.#isDone = true;
    clearTimeout(this.#timer);
    this.#progress?.done();
  }

  async #begin(): Promise<void> {
    // In the background, the terminal is somebody else's to draw on.
    if (!isInForeground(STDERR)) return;
    const { Progress } = await import("../host/progress.js");
    if (this.#isDone) return;
    const progress = new Progress(TEXT, true, this.#startedMs);
    progress.show();
    this.#progress = progress;
  }
}
