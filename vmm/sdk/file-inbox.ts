// Files for a process in the jail, which opens none: whoever asks it for a snapshot opens them and sends their descriptors, by a message
// to a socket beside the control socket, before it asks. unix(7), SCM_RIGHTS.
import { SnapshotError } from "../errors.js";
import type { SnapshotTarget } from "../snapshot/folder.js";
import { HandedFiles } from "../snapshot/handed-files.js";
import { closeDescriptor } from "../sys/descriptors.js";
import { MessageSender, receiveMessage } from "../sys/messages.js";
import { bindDatagrams, connectDatagrams } from "../sys/sockets.js";

/** Of a snapshot's files; both are empty. */
export interface SnapshotFiles {
  readonly memory: number;
  readonly state: number;
}

/** In hexadecimal, which is the message. */
const ID_CHARS = 32;

export class FileInbox {
  readonly path: string;
  readonly #fd: number;

  /** Makes a socket at `path`. Throws SystemCallError. */
  constructor(path: string) {
    this.path = path;
    this.#fd = bindDatagrams(path);
  }

  /** What has been sent for the snapshot `id`, and is the caller's to close; what is nobody's any more is closed. */
  take(id: string): SnapshotFiles | undefined {
    for (;;) {
      const message = receiveMessage(this.#fd, ID_CHARS, 0);
      if (message === undefined) return undefined;
      const [memory, state, ...more] = message.descriptors;
      const isIt = Buffer.from(message.bytes).toString("latin1") === id;
      if (isIt && memory !== undefined && state !== undefined && more.length === 0) return { memory, state };
      for (const fd of message.descriptors) closeDescriptor(fd);
    }
  }
}

/** The target of the snapshot `id`; undefined without one: this process opens its own. Throws SnapshotError for files that have not come. */
export function handedTarget(
  inbox: FileInbox | undefined,
  folder: string,
  id: string | undefined,
): SnapshotTarget | undefined {
  if (id === undefined) return undefined;
  const files = inbox?.take(id);
  if (files === undefined) throw new SnapshotError(`The files of snapshot ${id} have not been sent to this VM`);
  return new HandedFiles(folder, id, files);
}

/** Throws SystemCallError where nobody takes them. */
export function sendFiles(path: string, id: string, { memory, state }: SnapshotFiles): void {
  const socket = connectDatagrams(path);
  const sender = new MessageSender();
  try {
    sender.send(socket, Buffer.from(id, "latin1"), [memory, state]);
  } finally {
    sender.close();
    closeDescriptor(socket);
  }
}
