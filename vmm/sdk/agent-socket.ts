// The agent of a VM in another process: a relay at a socket on this side, a connection to it on that.
import { createServer } from "node:net";
import { AgentConnection } from "../agent/connection.js";
import { AgentRelay } from "../agent/relay.js";
import { SocketTransport } from "../agent/socket-transport.js";
import { HostError } from "../errors.js";
import { listenForOwner, type BoundSocket } from "../virtio/backends/unix-listener.js";
import { connectAt } from "./connect-at.js";

/** Lets other processes of this user speak to the agent, at a path or a socket there; the result ends that. Throws HostError. */
export function shareAgent(place: string | BoundSocket, agent: AgentConnection): () => void {
  const relay = new AgentRelay(agent);
  const server = createServer((socket) => {
    relay.accept(new SocketTransport(socket));
  });
  const removeFile = listenForOwner(server, typeof place === "string" ? { what: "agent socket", path: place } : place);
  return () => {
    removeFile();
    server.close();
    relay.close();
  };
}

/** Rejects with HostError where nobody listens. */
export async function connectAgent(path: string): Promise<AgentConnection> {
  const socket = await connectAt(path, (why, cause) => new HostError(`The VM does not answer: ${why}`, { cause }));
  return new AgentConnection(new SocketTransport(socket));
}
