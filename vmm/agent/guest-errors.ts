// What the guest has refused, as an error.
import { getSystemErrorName } from "node:util";
import { ExecError, GuestRequestError } from "../errors.js";
import { errnoText } from "../host/errno-text.js";
import { shown, type GuestBytes } from "./guest-bytes.js";

export const ENOENT = 2;
export const ECANCELED = 125;
/** Statuses of a shell for what is not there, and for what cannot be run. */
const NOT_FOUND = 127;
const NOT_RUN = 126;

/** "ENOENT"; "errno 530" for what has no name, empty for 0. */
export function guestErrnoName(errno: number): string {
  if (errno === 0) return "";
  const name = getSystemErrorName(-errno);
  return name.startsWith("E") ? name : `errno ${String(errno)}`;
}

/** The guest's own words, or those for the number. */
function inWords(errno: number, text: string): string {
  if (text !== "") return text;
  return errno === 0 ? "refused" : errnoText(guestErrnoName(errno));
}

export function requestError(what: string, errno: number, text: string): GuestRequestError {
  return new GuestRequestError(what, errno, guestErrnoName(errno), inWords(errno, text));
}

/** For a command that did not start. */
export function startError(command: readonly GuestBytes[], errno: number, text: string): ExecError {
  const words = command.map(shown);
  return new ExecError(`${words[0] ?? ""} cannot be run in the guest: ${inWords(errno, text)}`, {
    command: words,
    exitCode: errno === ENOENT ? NOT_FOUND : NOT_RUN,
    signal: null,
    errnoName: guestErrnoName(errno),
  });
}
