// A connection to a Unix socket of another process, or the caller's error.
import { once } from "node:events";
import { createConnection, type Socket } from "node:net";
import { errnoText } from "../host/errno-text.js";

/** `refused` makes the error where nobody answers: the reason in words, and what Node has thrown. */
export async function connectAt(path: string, refused: (why: string, cause: unknown) => Error): Promise<Socket> {
  // As a path, whatever it looks like: a number would be a TCP port.
  const socket = createConnection({ path });
  try {
    await once(socket, "connect");
  } catch (error) {
    throw refused(errnoText((error as NodeJS.ErrnoException).code ?? ""), error);
  }
  return socket;
}
