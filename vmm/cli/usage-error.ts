// A command line that cannot be read.

/** The command line itself is wrong; the message says where, `--help` says how. */
export class UsageError extends Error {
  constructor(message: string, options?: ErrorOptions) {
    super(message, options);
    this.name = "UsageError";
  }
}
