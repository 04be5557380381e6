// How large this process's terminal is, for the program of a VM that is shown in it.
import type { TerminalSize } from "../../machine/arguments.js";
import { isTerminal } from "../../sys/files.js";
import { windowSize } from "../../sys/terminal.js";

const MAX_SIZE = 0xffff;
/** What the program writes goes to the first of them, as a rule. */
const STREAMS = [1, 0, 2];

const USUAL: TerminalSize = { rows: 24, columns: 80 };

/** Of the terminal that this process has; the usual one without any, or one that does not know. */
export function terminalSize(): TerminalSize {
  const fd = STREAMS.find((stream) => isTerminal(stream));
  const size = fd === undefined ? undefined : windowSize(fd);
  return size === undefined || size.rows === 0 || size.columns === 0 ? USUAL : size;
}

/**
 * Tells it now and whenever it changes, until the result is called. `redraws`: a program that draws does so again, as
 * its terminal becomes another size for a moment.
 */
export function followTerminalSize(tell: (rows: number, columns: number) => void, redraws = false): () => void {
  const { rows, columns } = terminalSize();
  if (redraws) tell(Math.min(rows + 1, MAX_SIZE), columns);
  tell(rows, columns);
  const changed = (): void => {
    const size = terminalSize();
    tell(size.rows, size.columns);
  };
  // By Node: it takes this signal for itself as soon as anybody looks at process.stderr.
  process.on("SIGWINCH", changed);
  return () => process.off("SIGWINCH", changed);
}
