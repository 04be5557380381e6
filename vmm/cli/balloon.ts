// `vmlet balloon SOCKET MIB`: asks a running guest to give up so much of its memory.
import { once } from "node:events";
import { createConnection } from "node:net";
import { ConfigError, HostError } from "../errors.js";
import { parseBalloonCommand } from "./arguments.js";
import type { ControlReply, ControlRequest } from "./control.js";
import { print } from "../host/say.js";

/** A guest that boots on the main thread is in the way of an answer for seconds. */
const ANSWER_TIMEOUT_MS = 10_000;

export async function balloon(argv: readonly string[]): Promise<number> {
  const { help, socket, targetMib } = parseBalloonCommand(argv);
  if (help) {
    const { BALLOON_HELP } = await import("./help.js");
    print(BALLOON_HELP);
    return 0;
  }
  const reply = await request(socket, { balloon_mib: targetMib });
  if ("error" in reply) throw new ConfigError([reply.error]);
  return 0;
}

async function request(path: string, line: ControlRequest): Promise<ControlReply> {
  const socket = createConnection(path).setEncoding("utf8");
  try {
    await once(socket, "connect");
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? "";
    throw new HostError(`Control socket ${path}: nobody answers (${code})`, {
      cause: error,
      cure: "give the SOCKET of vmlet boot --control SOCKET, while its guest runs",
    });
  }
  socket.setTimeout(ANSWER_TIMEOUT_MS, () => socket.destroy());
  let text = "";
  socket.on("data", (chunk: string) => (text += chunk));
  socket.on("error", () => undefined);
  socket.write(`${JSON.stringify(line)}\n`);
  await once(socket, "close");
  if (!text.endsWith("\n")) throw new HostError(`Control socket ${path}: no answer`);
  return JSON.parse(text) as ControlReply;
}
