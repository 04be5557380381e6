// What a client is told when something it has asked for cannot be: a status and a message, and nothing has changed.
import { VmmError } from "../errors.js";

const BAD_REQUEST = 400;

export class Fault extends Error {
  /** Of HTTP. */
  readonly status: number;

  constructor(message: string, status = BAD_REQUEST) {
    super(message);
    this.name = "Fault";
    this.status = status;
  }
}

/** What the monitor says, as a fault; anything else is a defect, and thrown. `what` stands in front. */
export function faultOf(error: unknown, what: string): Fault {
  if (error instanceof Fault) return error;
  if (!(error instanceof VmmError)) throw error;
  const cure = error.cure === undefined ? "" : `; what helps: ${error.cure}`;
  return new Fault(`${what}: ${error.message.replaceAll("\n", "; ")}${cure}`);
}
