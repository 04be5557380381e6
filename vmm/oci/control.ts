// The socket at which a container's process on the host hears of commands.
import { createServer, type Socket } from "node:net";
import { VmmError } from "../errors.js";
import { isAlive } from "../sdk/process-identity.js";
import { onEndSignals } from "../sys/end-signals.js";
import { listenForOwner } from "../virtio/backends/unix-listener.js";
import { messageOf } from "./log.js";
import { requestOf, type MonitorReply, type MonitorRequest } from "./monitor-messages.js";
import { CONTROL_SOCKET, type Container, type ContainerRecord } from "./state.js";

const MAX_REQUEST_CHARS = 65_536;
const CREATE_LOOK_MS = 20;

export interface Controlled {
  answer(request: MonitorRequest, reply: (reply: MonitorReply) => void): Promise<void>;
  /** Of this process. */
  signal(number: number): void;
}

/** Commands find it from here on; the result ends that. */
export function listenForCommands(container: Container, controlled: Controlled): () => void {
  const server = createServer((socket) => {
    serve(socket, controlled);
  });
  const path = container.shortPath(CONTROL_SOCKET);
  const removeSocket = listenForOwner(server, { what: "control socket", path, interrupts: true });
  // A signal before there is a program ends the container.
  const removeHandlers = onEndSignals((number) => {
    controlled.signal(number);
  });
  return () => {
    removeHandlers();
    removeSocket();
    server.close();
  };
}

function serve(socket: Socket, controlled: Controlled): void {
  let text = "";
  socket.setEncoding("utf8");
  socket.on("error", () => undefined);
  socket.on("data", (chunk: string) => {
    text += chunk;
    if (text.length > MAX_REQUEST_CHARS) socket.destroy();
    if (!text.endsWith("\n")) return;
    // One request a connection; the rest is read and dropped, or the connection would not end.
    socket.removeAllListeners("data").resume();
    const reply = (answer: MonitorReply): void => {
      socket.end(`${JSON.stringify(answer)}\n`);
    };
    const request = requestOf(text);
    if (request === undefined) {
      reply({ error: "nothing that is known is asked for" });
      return;
    }
    controlled.answer(request, reply).catch((error: unknown) => {
      reply({ error: error instanceof VmmError ? messageOf(error) : String(error) });
    });
  });
}

/** Until `create` has come to its end: if it is killed before that, nobody else would end this process. */
export function watchCreate(
  container: Container,
  record: ContainerRecord,
  { isKilled, isDone }: { readonly isKilled: () => void; readonly isDone: () => void },
): void {
  const timer = setInterval(() => {
    const isCreating = (): boolean => !container.exists || container.record?.creator !== undefined;
    const { creator } = record;
    if (isCreating() && creator !== undefined && isAlive(creator) && container.exists) return;
    clearInterval(timer);
    // Its last word may have come just before its end.
    if (isCreating()) isKilled();
    else isDone();
  }, CREATE_LOOK_MS);
  timer.unref();
}
