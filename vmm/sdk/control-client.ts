// A request to the vmlet that runs a guest, through its control socket, and the reply.
import { once } from "node:events";
import { existsSync } from "node:fs";
import { ConfigError, HostError } from "../errors.js";
import { MAX_UNIX_PATH_BYTES } from "../host/unix-path.js";
import { connectAt } from "./connect-at.js";
import type { Agreement, ControlReply, ControlRequest } from "./control.js";

/** A guest that boots on vmlet's main thread can delay the answer by seconds. */
const ANSWER_TIMEOUT_MS = 10_000;
/** Longer than any reply. */
const MAX_REPLY_CHARS = 65_536;

/** `timeoutMs` 0: as long as it takes. Throws ConfigError for what is refused, HostError where nobody answers. */
export async function request(
  socketOrVm: string,
  line: ControlRequest,
  { timeoutMs = ANSWER_TIMEOUT_MS }: { readonly timeoutMs?: number } = {},
): Promise<Agreement> {
  const isPath = socketOrVm.includes("/") || existsSync(socketOrVm);
  const path = isPath ? socketOrVm : await socketOf(socketOrVm);
  const length = Buffer.byteLength(path);
  if (length > MAX_UNIX_PATH_BYTES) {
    throw new HostError(
      `Control socket ${path}: a path of ${String(length)} bytes; ${String(MAX_UNIX_PATH_BYTES)} fit`,
    );
  }
  const reply = await ask(path, line, timeoutMs);
  if (!("error" in reply)) return reply;
  const { inbox } = reply;
  if (inbox === undefined || !("snapshot" in line) || line.snapshot.id !== undefined) {
    throw new ConfigError([reply.error]);
  }
  const { snapshotByHand } = await import("./hand-in.js");
  return snapshotByHand(inbox, line.snapshot, (snapshot) => request(path, { snapshot }, { timeoutMs }));
}

async function ask(path: string, line: ControlRequest, timeoutMs: number): Promise<ControlReply> {
  const socket = await connectAt(
    path,
    (why, cause) =>
      new HostError(`Control socket ${path}: nobody answers: ${why}`, {
        cause,
        cure: "give the SOCKET of vmlet boot --control SOCKET, or a VM of vmlet run, while its guest runs",
      }),
  );
  socket.setEncoding("utf8");
  if (timeoutMs > 0) socket.setTimeout(timeoutMs, () => socket.destroy());
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

/** Of a VM that goes by such a name or id; other words stay what they are. */
async function socketOf(word: string): Promise<string> {
  const { StateFolder } = await import("./state-folder.js");
  const state = new StateFolder();
  const record = state.list().find(({ id, name }) => id === word || name === word);
  return record === undefined ? word : state.folderOf(record.id).controlSocket;
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
  const { ok, error, inbox } = reply as { readonly ok?: unknown; readonly error?: unknown; readonly inbox?: unknown };
  if (typeof error === "string") return { error, ...(typeof inbox === "string" ? { inbox } : {}) };
  return ok === true ? (reply as Agreement) : undefined;
}
