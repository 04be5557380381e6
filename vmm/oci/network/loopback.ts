// Ports of a pod's loopback: `kubectl port-forward` connects to 127.0.0.1 in the pod's network namespace, where nobody listens, as the
// pod's programs have the guest's loopback. So what comes there goes on to the same port in the guest.
import { createServer, type Socket } from "node:net";
import { pipeline } from "node:stream";
import type { Agent } from "../../agent/agent.js";
import { SystemCallError } from "../../errors.js";
import { takeLoopback } from "../../sys/socket-lookup.js";
import { listenLoopback } from "../../sys/sockets.js";

/** Each is two processes in the guest; more at a time are refused. */
const MAX_CONNECTIONS = 64;
/** For a client that has heard the end, and says nothing, `ms`. */
const LINGER_MS = 5000;
/** The guest's own program for it, guest/init/connect.h. */
const PROGRAM = "/init";

export interface LoopbackPorts {
  close(): void;
}

/** In the network namespace of this thread. Undefined where the host's kernel has no such programs, before Linux 5.9, or refuses them. */
export function shareLoopback(agent: Agent, program = PROGRAM): LoopbackPorts | undefined {
  const fd = listenLoopback();
  const server = createServer({ allowHalfOpen: true }, (socket) => {
    handOn(agent, socket, program).catch(() => socket.destroy());
  });
  server.maxConnections = MAX_CONNECTIONS;
  server.on("error", () => server.close());
  server.listen({ fd });
  try {
    const giveBack = takeLoopback(fd);
    return {
      close: () => {
        giveBack();
        server.close();
      },
    };
  } catch (error) {
    server.close();
    if (error instanceof SystemCallError) return undefined;
    throw error;
  }
}

/** A port at which nobody listens closes the connection. */
async function handOn(agent: Agent, socket: Socket, program: string): Promise<void> {
  const { localPort = 0 } = socket;
  socket.on("error", () => undefined);
  const connection = await agent.exec([program, "connect", String(localPort)]);
  const { stdin, stdout, stderr } = connection;
  stderr.destroy();
  // A server that takes no more may still have something to say.
  stdin.on("error", () => undefined);
  stdin.once("close", () => {
    socket.unpipe(stdin);
    socket.resume();
  });
  socket.pipe(stdin);
  pipeline(stdout, socket, () => {
    socket.setTimeout(LINGER_MS, () => socket.destroy());
  });
  socket.once("close", () => {
    connection.cancel();
  });
}
