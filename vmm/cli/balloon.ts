// `vmlet balloon SOCKET MIB`: asks a running guest to give up so much of its memory.
import { once } from "node:events";
import { createConnection } from "node:net";
import { ConfigError, HostError } from "../errors.js";
import { errnoText } from "../host/errno-text.js";
import { MAX_UNIX_PATH_BYTES } from "../host/unix-path.js";
import { parseBalloonCommand } from "./arguments.js";
import type { ControlReply, ControlRequest } from "./control.js";
import { print } from "../host/say.js";

/** A guest that boots on vmlet's main thread can delay the answer by seconds. */
const ANSWER_TIMEOUT_MS = 10_000;
/** Longer than any reply. */
const MAX_REPLY_CHARS = 65_536;

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
  const length = Buffer.byteLength(path);
  if (length > MAX_UNIX_PATH_BYTES) {
    throw new HostError(
      `Control socket ${path}: a path of ${String(length)} bytes; ${String(MAX_UNIX_PATH_BYTES)} fit`,
    );
  }
  // As a path, whatever it looks like: a number would be a TCP port.
  const socket = createConnection({ path }).setEncoding("utf8");
  try {
    await once(socket, "connect");
  } catch (error) {
    const code = (error as NodeJS.ErrnoException).code ?? "";
    throw new HostError(`Control socket ${path}: nobody answers: ${errnoText(code)}`, {
      cause: error,
      cure: "give the SOCKET of vmlet boot --control SOCKET, while its guest runs",
    });
  }
  socket.setTimeout(ANSWER_TIMEOUT_MS, () => socket.destroy());
  let text = "";
  socket.on("data", (chunk: string) => {
    text += chunk;
    if (text.length > MAX_REPLY_CHARS) socket.destroy();
  });
  socket.on("error", () => undefined);
  socket.write(`${JSON.stringify(line)}\n`);
  await once(socket, "close");
  if (text === "") throw new HostError(`Control socket ${path}: no answer`);
  const reply = replyOf(text);
  if (reply === undefined) throw new HostError(`Control socket ${path}: another program than vmlet answers there`);
  return reply;
}

/** Undefined if the text is no reply of vmlet's. */
function replyOf(text: string): ControlReply | undefined {
  let reply: unknown;
  try {
    reply = JSON.parse(text);
  } catch {
    return undefined;
  }
  if (typeof reply !== "object" || reply === null) return undefined;
  if ("error" in reply && typeof reply.error === "string") return { error: reply.error };
  return "ok" in reply && reply.ok === true ? { ok: true } : undefined;
}
