// What a long test is busy with, for the reporter's line: whoever knows puts a function here.

let describe: (() => string) | undefined;

/** `text` says in a few words how far it is, as in "the lab has run for 40 s of its own time"; undefined: nobody knows. */
export function describeRunning(text: (() => string) | undefined): void {
  describe = text;
}

export function runningDetail(): string | undefined {
  return describe?.();
}
