// A conversation with the kernel's network over rtnetlink(7), in the network namespace of this process.
import { SystemCallError } from "../errors.js";
import { NLM_F_DUMP, message } from "../host/rtnetlink.js";
import { closeDescriptor } from "./descriptors.js";
import { errnoName, systemCallError, uninterrupted } from "./errno.js";
import { lazy } from "./koffi.js";

const nativeSocket = lazy("socket", "int", ["int", "int", "int"]);
const nativeSend = lazy("send", "int64_t", ["int", "void *", "size_t", "int"]);
const nativeRecv = lazy("recv", "int64_t", ["int", "void *", "size_t", "int"]);
const AF_NETLINK = 16;
const SOCK_RAW = 3;
const SOCK_CLOEXEC = 0o2000000;
const NETLINK_ROUTE = 0;
const MSG_DONTWAIT = 0x40;
const MSG_TRUNC = 0x20;
const NLMSG_ERROR = 2;
const NLMSG_DONE = 3;
const HEADER_BYTES = 16;
/** The kernel's pieces are smaller. */
const BUFFER_BYTES = 65_536;

export class RouteSocket {
  readonly #fd: number;
  readonly #buffer = Buffer.alloc(BUFFER_BYTES);
  #sequence = 0;

  constructor() {
    this.#fd = nativeSocket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
    if (this.#fd < 0) throw systemCallError("socket (AF_NETLINK)");
  }

  /** `what` names it where the kernel refuses: SystemCallError. */
  ask(request: Buffer, what: string): void {
    const answers = this.#talk(request, what);
    if (answers.length > 0) throw new RangeError(`${what}: an answer that nobody has asked for`);
  }

  /** The payloads of all that there is of a kind; `body` begins with the family. */
  dump(type: number, body: Uint8Array, what: string): Buffer[] {
    return this.#talk(message(type, NLM_F_DUMP, body), what);
  }

  close(): void {
    closeDescriptor(this.#fd);
  }

  #talk(request: Buffer, what: string): Buffer[] {
    const sequence = ++this.#sequence;
    request.writeUInt32LE(sequence, 8);
    // SAFETY: read during the call only.
    if (uninterrupted(() => nativeSend(this.#fd, request, request.length, 0)) < 0) throw systemCallError(what);
    const payloads: Buffer[] = [];
    for (;;) {
      // The kernel answers within the call that hands it the message; the rest of a dump is made by each receive.
      // SAFETY: as many bytes as the buffer has, written during the call only.
      const length = uninterrupted(() => nativeRecv(this.#fd, this.#buffer, BUFFER_BYTES, MSG_DONTWAIT | MSG_TRUNC));
      if (length < 0) throw systemCallError(what);
      if (length > BUFFER_BYTES) throw new RangeError(`${what}: an answer of ${String(length)} bytes`);
      for (let at = 0; at + HEADER_BYTES <= length;) {
        const size = this.#buffer.readUInt32LE(at);
        const type = this.#buffer.readUInt16LE(at + 4);
        if (size < HEADER_BYTES || at + size > length) break;
        const payload = this.#buffer.subarray(at + HEADER_BYTES, at + size);
        if (this.#buffer.readUInt32LE(at + 8) === sequence) {
          if (type === NLMSG_DONE) return payloads;
          if (type === NLMSG_ERROR) {
            const error = payload.length < 4 ? 0 : -payload.readInt32LE(0);
            if (error !== 0) throw new SystemCallError(what, error, errnoName(error));
            return payloads;
          }
          payloads.push(Buffer.from(payload));
        }
        at += (size + 3) & ~3;
      }
    }
  }
}
