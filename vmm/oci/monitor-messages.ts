// What commands and a container's monitor say to each other: one line of JSON, and one as the answer.
import { createConnection, type Socket } from "node:net";
import { HostError } from "../errors.js";
import { objectOf } from "../sdk/monitor-messages.js";
import { isAlive } from "../sdk/process-identity.js";
import { ID } from "./container-id.js";
import { CONTROL_SOCKET, type Container, type ContainerRecord } from "./state.js";

export type MonitorRequest =
  | { readonly start: true }
  | { readonly signal: number }
  | { readonly pause: true }
  | { readonly resume: true }
  | { readonly processes: true }
  /** A container of this one's pod has gone, and these names are left of what it had. */
  | { readonly forget: string; readonly names: readonly string[] };

export interface GuestProcessLine {
  readonly pid: number;
  readonly parent: number;
  readonly command: string;
}

export type MonitorReply =
  { readonly error: string } | { readonly ok: true; readonly processes?: readonly GuestProcessLine[] };

/** What a command asks for; undefined for a line that asks for nothing that is known. */
export function requestOf(line: string): MonitorRequest | undefined {
  const { start, signal, pause, resume, processes, forget, names } = objectOf(line) ?? {};
  if (start === true) return { start };
  if (pause === true) return { pause };
  if (resume === true) return { resume };
  if (processes === true) return { processes };
  if (typeof signal === "number" && Number.isInteger(signal) && signal >= 0 && signal <= MAX_SIGNAL) return { signal };
  return typeof forget === "string" && ID.test(forget) && areNames(names) ? { forget, names } : undefined;
}

/** Of files in one folder. */
function areNames(names: unknown): names is readonly string[] {
  return Array.isArray(names) && names.every((name) => typeof name === "string" && FILE_NAME.test(name));
}

/** What a monitor has answered; undefined for a text that is no answer. */
export function replyOf(text: string): MonitorReply | undefined {
  const reply = objectOf(text);
  if (reply === undefined) return undefined;
  if (typeof reply["error"] === "string") return { error: reply["error"] };
  const { ok, processes = [] } = reply;
  const isProcess = (one: unknown): boolean => {
    if (typeof one !== "object" || one === null) return false;
    const { pid, parent, command } = one as Partial<GuestProcessLine>;
    return typeof pid === "number" && typeof parent === "number" && typeof command === "string";
  };
  return ok === true && Array.isArray(processes) && processes.every(isProcess) ? (reply as MonitorReply) : undefined;
}

/** Between two tries to reach a monitor that is not that far yet, `ms`. */
const RETRY_MS = 4;
/** SIGRTMAX */
const MAX_SIGNAL = 64;
const MAX_REPLY_CHARS = 1024 * 1024;
const FILE_NAME = /^(?!\.{1,2}$)[^/\0]{1,255}$/;

/** Undefined where the monitor ends without a word. Rejects with HostError for one that has ended before. */
export async function askMonitor(
  container: Container,
  record: ContainerRecord,
  request: MonitorRequest,
  limitMs = Infinity,
): Promise<MonitorReply | undefined> {
  const path = container.shortPath(CONTROL_SOCKET);
  const deadline = performance.now() + limitMs;
  for (;;) {
    const socket = await connected(path);
    if (socket !== undefined) return answer(socket, request, deadline);
    if (record.monitor === undefined || !isAlive(record.monitor))
      throw new HostError("the container's monitor has ended");
    if (performance.now() > deadline) return undefined;
    await new Promise((resolve) => setTimeout(resolve, RETRY_MS));
  }
}

function connected(path: string): Promise<Socket | undefined> {
  return new Promise((resolve) => {
    const socket = createConnection({ path });
    socket.once("connect", () => {
      resolve(socket);
    });
    socket.once("error", () => {
      resolve(undefined);
    });
  });
}

function answer(socket: Socket, request: MonitorRequest, deadline: number): Promise<MonitorReply | undefined> {
  return new Promise((resolve) => {
    let text = "";
    const limitMs = deadline - performance.now();
    const timer = Number.isFinite(limitMs) ? setTimeout(() => socket.destroy(), Math.max(1, limitMs)) : undefined;
    socket.setEncoding("utf8");
    socket.on("data", (chunk: string) => {
      text += chunk;
      if (text.length > MAX_REPLY_CHARS) socket.destroy();
    });
    socket.on("error", () => undefined);
    socket.once("close", () => {
      clearTimeout(timer);
      resolve(text.endsWith("\n") ? replyOf(text) : undefined);
    });
    socket.write(`${JSON.stringify(request)}\n`);
  });
}
