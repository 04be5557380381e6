// The terminal of a container on the host: the engine gets its master, by a socket that it names.
import { HostError, VmmError } from "../errors.js";
import { closeDescriptor } from "../sys/descriptors.js";
import { MessageSender } from "../sys/messages.js";
import { openPseudoTerminal } from "../sys/pseudo-terminal.js";
import { connectUnix } from "../sys/sockets.js";

export interface Console {
  readonly slave: number;
  /** Of this process's part. */
  close(): void;
}

/** Throws HostError. */
export function openConsole(socketPath: string): Console {
  const { master, slave } = openPseudoTerminal();
  try {
    const socket = connectUnix(socketPath);
    const sender = new MessageSender();
    try {
      sender.send(socket, Buffer.from("/dev/ptmx"), [master]);
    } finally {
      sender.close();
      closeDescriptor(socket);
    }
  } catch (error) {
    closeDescriptor(slave);
    if (!(error instanceof VmmError)) throw error;
    throw new HostError(`--console-socket ${socketPath}: ${error.message}`, { cause: error });
  } finally {
    closeDescriptor(master);
  }
  return {
    slave,
    close: () => {
      closeDescriptor(slave);
    },
  };
}
