// What the vmlet that waits in a saved state is given, first on its standard input: vmm/cli/lab-work.ts reads it.

export interface Work {
  /** Behind the program's own file. */
  readonly argv: readonly string[];
  readonly env: Readonly<Record<string, string>>;
  readonly cwd: string;
  /** Its terminal in there; undefined: its streams are the pipes that it has. */
  readonly terminal: string | undefined;
}

/** Descriptors of the waiting program that are to be its standard streams. */
export const FIRST_PIPE = 4;
/** It waits, if that is empty; or why it cannot. */
export const WAITING_WORD = "/run/vmlet/waiting";
/** Of the length before the work. */
export const LENGTH_BYTES = 4;

export function encodeWork(work: Work): Buffer {
  const text = Buffer.from(JSON.stringify(work));
  const length = Buffer.alloc(LENGTH_BYTES);
  length.writeUInt32LE(text.length);
  return Buffer.concat([length, text]);
}

export function decodeWork(text: Buffer): Work {
  return JSON.parse(text.toString("utf8")) as Work;
}
