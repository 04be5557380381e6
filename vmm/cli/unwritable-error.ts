// A file that a command should write and cannot.

/** The message has the option, the path and the reason. */
export class UnwritableError extends Error {
  constructor({ option, path }: { readonly option: string; readonly path: string }, why: string) {
    super(`${option} ${path}: cannot be written: ${why}`);
    this.name = "UnwritableError";
  }
}
