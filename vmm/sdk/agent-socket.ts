// The agent of a VM in another process: a relay at a socket on this side, a connection to it on that.
import { once } from "node:events";
import { createConnection, createServer } from "node:net";
import { AgentConnection } from "../agent/connection.js";
import { AgentRelay } from "../agent/relay.js";
import { SocketTransport } from "../agent/socket-transport.js";
import { HostError } from "../errors.js";
import { errnoText } from "../host/errno-text.js";
import { listenAtPath } from "../virtio/backends/unix-listener.js";

/** Nobody but the owner (and root) connects to a socket that only the owner may write to. */
const OWNER_ONLY_UMASK = 0o177;

/** Lets other processes of this user speak to the agent; the result ends that. Throws HostError. */
export function shareAgent(path: string, agent: AgentConnection): () => void {
  const relay = new AgentRelay(agent);
  const server = createServer((socket) => {
    relay.accept(new SocketTransport(socket));
  });
  const umask = process.umask(OWNER_ONLY_UMASK);
  let removeFile: () => void;
  try {
    removeFile = listenAtPath(server, { what: "agent socket", path });
  } finally {
    process.umask(umask);
  }
  return () => {
    removeFile();
    server.close();
    relay.close();
  };
}

/** Rejects with HostError where nobody listens. */
export async function connectAgent(path: string): Promise<AgentConnection> {
  const socket = createConnection({ path });
  try {
    await once(socket, "connect");
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? "";
    throw new HostError(`The VM does not answer: ${errnoText(code)}`, { cause: error });
  }
  return new AgentConnection(new SocketTransport(socket));
}
