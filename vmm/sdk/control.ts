// --control SOCKET: what may be asked of a running guest, by programs that may open the socket. A line of JSON each
// way: {"pause":true} and, once that has happened, {"ok":true}, or {"error":"…"} if it cannot be.
import { isAbsolute } from "node:path";
import { createServer, type Server, type Socket } from "node:net";
import { listenForOwner, type BoundSocket } from "../virtio/backends/unix-listener.js";
import { VmmError, VmStateError } from "../errors.js";
import { describeSystemError } from "../host/errno-text.js";
import type { ControlledVm, GuestControls } from "./guest-controls.js";

/** Of a line, `bytes`. */
const MAX_REQUEST_BYTES = 8192;
/** `ms` that a client may take over its line, and over the answer. */
const CLIENT_TIMEOUT_MS = 5000;
const SNAPSHOT_ID = /^[0-9a-f]{32}$/;
const ENDED = { error: "The guest has ended" } as const;

/** What is asked, each with its value. */
export interface ControlRequests {
  readonly balloon_mib: number;
  readonly pause: true;
  readonly resume: true;
  readonly state: true;
  readonly snapshot: SnapshotRequest;
  readonly migrate: MigrateRequest;
}

export interface MigrateRequest {
  /** unix:PATH, an absolute one, or tcp:HOST:PORT. */
  readonly to: string;
}

export interface SnapshotRequest {
  /** An absolute path. */
  readonly folder: string;
  /** Whether the guest runs afterwards; default: as before. */
  readonly resume?: boolean;
  /** The guest ends with it. */
  readonly stop?: boolean;
  readonly mode?: "full" | "diff";
  /** Folder of the snapshot since which only what has changed is written, an absolute path; with "diff". */
  readonly base?: string;
  /** Follow what changes from here on. */
  readonly watch?: boolean;
  /** 32 hexadecimal digits: the files of that one have been sent to the VM's inbox. */
  readonly id?: string;
}

export type ControlRequest = { [Name in keyof ControlRequests]: Pick<ControlRequests, Name> }[keyof ControlRequests];

export interface Agreement {
  readonly ok: true;
  readonly state?: ControlledVm["state"];
  // Of a snapshot:
  readonly id?: string;
  /** Of both files that are no holes. */
  readonly bytes?: number;
  readonly paused_ms?: number;
  // Of a migration; `bytes` of memory that were sent:
  readonly stop_ms?: number;
  readonly total_ms?: number;
  readonly rounds?: readonly { readonly pages: number; readonly bytes: number; readonly ms: number }[];
}

/** `inbox`: where the snapshot's files are to be sent before it is asked for again, with their id. */
export type ControlReply = Agreement | { readonly error: string; readonly inbox?: string };

export type Controlled = Pick<
  GuestControls,
  "setBalloon" | "pause" | "resume" | "state" | "wantsFiles" | "snapshot" | "migrate"
>;

export class ControlServer {
  readonly #server: Server;
  /** Those that wait for an answer, and all others. */
  readonly #waiting = new Set<Socket>();
  readonly #sockets = new Set<Socket>();
  readonly #vm: Controlled;

  readonly #removeFile: () => void;

  private constructor(server: Server, vm: Controlled, removeFile: () => void) {
    this.#server = server;
    this.#removeFile = removeFile;
    this.#vm = vm;
    server.on("connection", (socket) => this.#serve(socket));
  }

  /** At a path, or a socket that is there. Throws HostError if there can be none. */
  static listen(place: string | BoundSocket, vm: Controlled): ControlServer {
    const server = createServer();
    const where = typeof place === "string" ? { what: "control socket", path: place } : place;
    return new ControlServer(server, vm, listenForOwner(server, where));
  }

  /** The guest has ended; the socket file is gone when this returns. */
  close(): void {
    this.#removeFile();
    this.#server.close();
    for (const socket of this.#waiting) socket.end(`${JSON.stringify(ENDED)}\n`);
    for (const socket of this.#sockets) socket.destroySoon();
  }

  #serve(socket: Socket): void {
    this.#sockets.add(socket);
    socket.setTimeout(CLIENT_TIMEOUT_MS, () => socket.destroy());
    socket.setEncoding("utf8");
    let text = "";
    socket.on("data", (chunk: string) => {
      text += chunk;
      const end = text.indexOf("\n");
      if (end < 0 && text.length < MAX_REQUEST_BYTES) return;
      // One request a connection; the rest is read and dropped, or the connection would not end.
      socket.removeAllListeners("data").resume();
      // What is asked may take its time.
      socket.setTimeout(0);
      this.#waiting.add(socket);
      const reply = end < 0 ? Promise.resolve(tooLong()) : answer(text.slice(0, end), this.#vm);
      void reply.then((line) => {
        if (!this.#waiting.delete(socket)) return;
        socket.setTimeout(CLIENT_TIMEOUT_MS);
        socket.end(`${JSON.stringify(line)}\n`);
      });
    });
    // A client that goes in the middle gets no answer, and that is all.
    socket.on("error", () => undefined);
    socket.on("close", () => {
      this.#sockets.delete(socket);
      this.#waiting.delete(socket);
    });
  }
}

function tooLong(): ControlReply {
  return { error: `A request is a line of at most ${String(MAX_REQUEST_BYTES)} bytes` };
}

type Answers = { readonly [Name in keyof ControlRequests]: (value: unknown, vm: Controlled) => Promise<ControlReply> };

const OK = { ok: true } as const;

const ANSWERS: Answers = {
  balloon_mib: async (value, vm) => {
    if (typeof value !== "number") return { error: `balloon_mib ${JSON.stringify(value)} is not a number` };
    await vm.setBalloon(value);
    return OK;
  },
  pause: plain("pause", async (vm) => {
    await vm.pause();
    return OK;
  }),
  resume: plain("resume", async (vm) => {
    await vm.resume();
    return OK;
  }),
  state: plain("state", async (vm) => ({ ok: true, state: await vm.state() })),
  snapshot: async (value, vm) => {
    const asked = checkSnapshotRequest(value);
    if (typeof asked === "string") return { error: asked };
    const { folder, resume, stop = false, base, watch, id: handed } = asked;
    const inbox = vm.wantsFiles(handed);
    const isByHand = inbox !== undefined || handed !== undefined;
    if (isByHand && (base !== undefined || watch === true)) {
      return { error: "snapshot: a VM in the jail is saved whole: without base and watch" };
    }
    if (inbox !== undefined)
      return { error: "This VM is in the jail, and opens no files: send them to its inbox", inbox };
    // One that is not in the jail knows no such option.
    const files = handed === undefined ? {} : { handed };
    const { id, bytes, pausedMs } = await vm.snapshot(folder, { resume, stop, base, watch, ...files });
    return { ok: true, id, bytes, paused_ms: pausedMs };
  },

  migrate: async (value, vm) => {
    const to = checkMigrateRequest(value);
    if (typeof to !== "string") return to;
    const { stopMs, totalMs, bytes, rounds } = await vm.migrate(to);
    return { ok: true, bytes, stop_ms: stopMs, total_ms: totalMs, rounds };
  },
};

const KNOWN = [
  '{"balloon_mib":NUMBER}',
  '{"pause":true}',
  '{"resume":true}',
  '{"state":true}',
  '{"snapshot":{"folder":PATH}}',
  '{"migrate":{"to":ADDRESS}}',
].join(", ");

/** The request, or what is wrong with it. */
function checkSnapshotRequest(value: unknown): SnapshotRequest | string {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    return `snapshot ${JSON.stringify(value)} is not an object`;
  }
  const { folder, resume, stop, mode, base, watch, id, ...others } = value as Record<string, unknown>;
  const [unknown] = Object.keys(others);
  if (unknown !== undefined) {
    return `snapshot: unknown ${JSON.stringify(unknown)}; known are folder, resume, stop, mode, base, watch, id`;
  }
  for (const [name, path] of Object.entries({ folder, ...(base === undefined ? {} : { base }) })) {
    if (typeof path !== "string" || !isAbsolute(path) || path.includes("\0")) {
      return `snapshot: ${name} ${JSON.stringify(path)} is not an absolute path`;
    }
  }
  for (const [name, flag] of Object.entries({ resume, stop, watch })) {
    if (flag !== undefined && typeof flag !== "boolean") {
      return `snapshot: ${name} ${JSON.stringify(flag)} is not true or false`;
    }
  }
  if (mode !== undefined && mode !== "full" && mode !== "diff") {
    return `snapshot: mode ${JSON.stringify(mode)} is not full or diff`;
  }
  if (mode !== undefined && (mode === "diff") !== (base !== undefined)) {
    return `snapshot: mode ${mode} ${mode === "diff" ? "needs a base" : "has no base"}`;
  }
  if (id !== undefined && !(typeof id === "string" && SNAPSHOT_ID.test(id))) {
    return `snapshot: id ${JSON.stringify(id)} is not 32 hexadecimal digits`;
  }
  if (resume === true && stop === true) return "snapshot: resume and stop contradict each other";
  return value as SnapshotRequest;
}

/** Where to, or what is wrong with the request. */
function checkMigrateRequest(value: unknown): string | ControlReply {
  const { to, ...others } = typeof value === "object" && value !== null ? (value as Record<string, unknown>) : {};
  if (typeof to !== "string" || Object.keys(others).length > 0) {
    return { error: `migrate ${JSON.stringify(value)} is not {"to":ADDRESS}` };
  }
  return to;
}

/** A request whose value says nothing. */
function plain(name: string, ask: (vm: Controlled) => Promise<ControlReply>): Answers["pause"] {
  return async (value, vm) => (value === true ? ask(vm) : { error: `${name} ${JSON.stringify(value)} is not true` });
}

/** Exported for tests. */
export async function answer(line: string, vm: Controlled): Promise<ControlReply> {
  let request: unknown;
  try {
    request = JSON.parse(line);
  } catch {
    return { error: `Not JSON: ${line}` };
  }
  const entries = typeof request === "object" && request !== null ? Object.entries(request) : [];
  const [[key, value] = ["", undefined], ...more] = entries as [string, unknown][];
  if (!Object.hasOwn(ANSWERS, key) || more.length > 0) return { error: `Unknown request ${line}; known are ${KNOWN}` };
  try {
    return await ANSWERS[key as keyof Answers](value, vm);
  } catch (error) {
    if (error instanceof VmStateError) return ENDED;
    if (error instanceof VmmError) return { error: error.message };
    const system = describeSystemError(error);
    if (system === undefined) throw error;
    return { error: system };
  }
}
