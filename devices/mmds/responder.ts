// The metadata service as the guest meets it: somebody at the other end of its network device's cable, who has one
// address, answers ARP for it, and TCP at one port. Frames in, frames out; nothing is sent before a frame is asked for,
// so that a guest which takes none makes nothing grow.
import { HttpSession, type HttpRequest, type HttpResponse } from "./http.js";
import { TcpEndpoint } from "./tcp-endpoint.js";
import {
  etherTypeOf,
  ETHERTYPE_ARP,
  ETHERTYPE_IPV4,
  isArpFor,
  isIpv4For,
  readArpRequest,
  readSegment,
  writeArpReply,
  writeSegment,
  type Peer,
} from "./wire.js";

const HTTP_PORT = 80;
/** Given out locally; the guest learns it by ARP. */
const OWN_MAC = Uint8Array.of(0x06, 0x01, 0x23, 0x45, 0x67, 0x01);
/** `bytes` */
const FRAME_BYTES = 1514;
/** `bytes` of a frame that are looked at: all headers, and more than a connection takes. */
export const MAX_LOOK_BYTES = 16 * 1024;
/** Questions by ARP that wait for a buffer of the guest. */
const MAX_ARP_REPLIES = 4;

export interface MmdsResponderOptions {
  /** IPv4, as a number. */
  readonly address: number;
  readonly answer: (request: HttpRequest) => HttpResponse;
  readonly random: () => number;
  /** Monotonic `ms`. */
  readonly now: () => number;
}

export class MmdsResponder {
  readonly #address: number;
  readonly #now: () => number;
  readonly #tcp: TcpEndpoint;
  readonly #arpReplies: Omit<Peer, "port">[] = [];
  readonly #frame = new Uint8Array(FRAME_BYTES);

  constructor({ address, answer, random, now }: MmdsResponderOptions) {
    this.#address = address;
    this.#now = now;
    this.#tcp = new TcpEndpoint({ port: HTTP_PORT, newSession: () => new HttpSession(answer), random });
  }

  /** Whether a frame is for this address; its first 64 bytes are enough. */
  isFor(frame: Uint8Array): boolean {
    const type = etherTypeOf(frame);
    if (type === ETHERTYPE_IPV4) return isIpv4For(frame, this.#address);
    return type === ETHERTYPE_ARP && isArpFor(frame, this.#address);
  }

  /** Takes a frame that is for it: MAX_LOOK_BYTES of it at most. */
  receive(frame: Uint8Array): void {
    if (etherTypeOf(frame) === ETHERTYPE_ARP) {
      const from = readArpRequest(frame);
      if (from !== undefined && this.#arpReplies.length < MAX_ARP_REPLIES) this.#arpReplies.push(from);
      return;
    }
    const received = readSegment(frame);
    if (received !== undefined) this.#tcp.receive(received.from, received.port, received.segment, this.#now());
  }

  /** The next frame for the guest, good until the next call; undefined if there is none now. */
  nextFrame(): Uint8Array | undefined {
    const own = { mac: OWN_MAC, address: this.#address };
    const asked = this.#arpReplies.shift();
    if (asked !== undefined) return this.#frame.subarray(0, writeArpReply(this.#frame, own, asked));
    const next = this.#tcp.next(this.#now());
    if (next === undefined) return undefined;
    const { to, port, segment } = next;
    return this.#frame.subarray(0, writeSegment(this.#frame, { ...own, port }, to, segment));
  }

  /** When `nextFrame` may have something although nothing has come, `ms`; Infinity if never. */
  get dueMs(): number {
    return this.#tcp.dueMs;
  }

  get connectionCount(): number {
    return this.#tcp.connectionCount;
  }

  /** The guest's driver begins anew: nobody there remembers a connection. */
  reset(): void {
    this.#tcp.reset();
    this.#arpReplies.length = 0;
  }
}
