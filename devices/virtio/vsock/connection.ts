// One connection between a port of the guest and a stream of the host: its state, credit in both
// directions, and what it has to tell the guest. virtio 1.2 §5.10.6.
import type { HostStream, StreamEvents } from "./backend.js";
import {
  VIRTIO_VSOCK_OP_CREDIT_REQUEST,
  VIRTIO_VSOCK_OP_CREDIT_UPDATE,
  VIRTIO_VSOCK_OP_REQUEST,
  VIRTIO_VSOCK_OP_RESPONSE,
  VIRTIO_VSOCK_OP_RST,
  VIRTIO_VSOCK_OP_RW,
  VIRTIO_VSOCK_OP_SHUTDOWN,
  VIRTIO_VSOCK_SHUTDOWN_BOTH,
  VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE,
  VIRTIO_VSOCK_SHUTDOWN_F_SEND,
} from "./constants.js";
import type { VsockHeader } from "./header.js";

/** `bytes` from the guest that may wait for the host program; told to the guest as buf_alloc. */
export const CONNECTION_BUFFER_BYTES = 256 * 1024;
/** `bytes` from the host program that may wait for the guest, before the stream is paused. */
const HOST_DATA_BYTES = 64 * 1024;
/** `bytes` of payload in a packet, in both directions. */
export const MAX_PAYLOAD_BYTES = 64 * 1024;

const EMPTY = new Uint8Array(0);

/** Where a connection stands. "requested": the guest has been asked; "connecting": the host has. */
export type ConnectionState = "requested" | "connecting" | "open" | "closed";

/** What a connection needs of the device. */
export interface ConnectionOwner {
  /** There is something to send to the guest. */
  wake(connection: Connection): void;
}

export class Connection implements StreamEvents {
  readonly hostPort: number;
  readonly guestPort: number;
  /** The device has it in its list of those that have something to send. */
  isWaiting = false;
  /** Payload of the packet that `compose` has just made. */
  payload: Uint8Array = EMPTY;
  readonly #owner: ConnectionOwner;
  #stream: HostStream | undefined;
  #state: ConnectionState;

  /** A REQUEST, RESPONSE or RST to be sent; 0: none. */
  #reply = 0;
  #wantsCreditUpdate = false;
  #wantsCreditRequest = false;

  // Host to guest.
  readonly #chunks: Uint8Array[] = [];
  /** `bytes` of the first chunk that have been sent. */
  #chunkOffset = 0;
  #queuedBytes = 0;
  #isPaused = false;
  /** tx_cnt, buf_alloc and fwd_cnt of §5.10.6.3, the last two as the guest said; modulo 2^32. */
  #sentBytes = 0;
  #peerBufferSize = 0;
  #peerForwarded = 0;
  /** SHUTDOWN flags that the guest is to be told, and those that it has been told. */
  #shutdownWanted = 0;
  #shutdownSent = 0;

  // Guest to host.
  /** `bytes` received and gone on to the host, modulo 2^32. */
  #received = 0;
  #forwarded = 0;
  /** `#forwarded` as the guest was last told. */
  #toldForwarded = 0;
  /** SHUTDOWN flags of the guest. */
  #peerShutdown = 0;

  constructor(owner: ConnectionOwner, hostPort: number, guestPort: number, state: "requested" | "connecting") {
    this.#owner = owner;
    this.hostPort = hostPort;
    this.guestPort = guestPort;
    this.#state = state;
    if (state === "requested") this.#reply = VIRTIO_VSOCK_OP_REQUEST;
  }

  get state(): ConnectionState {
    return this.#state;
  }

  /** Comes once, right after construction. */
  setStream(stream: HostStream): void {
    this.#stream = stream;
  }

  /** Ends it at once on the host's side; the guest is told if `withReset`. */
  abort(withReset: boolean): void {
    if (this.#state === "closed") return;
    this.#state = "closed";
    this.#stream?.destroy();
    this.#stream = undefined;
    this.#discardData();
    // A guest that has not been asked yet knows of no connection to be reset.
    const isUnknown = this.#reply === VIRTIO_VSOCK_OP_REQUEST;
    this.#reply = withReset && !isUnknown ? VIRTIO_VSOCK_OP_RST : 0;
    this.#wantsCreditUpdate = false;
    this.#wantsCreditRequest = false;
    this.#shutdownWanted = this.#shutdownSent;
    // Also without a reset: the device drops a closed connection that has nothing left to send.
    this.#owner.wake(this);
  }

  // == The host's end ==========================================================

  connected(): void {
    if (this.#state !== "connecting") return;
    this.#state = "open";
    this.#reply = VIRTIO_VSOCK_OP_RESPONSE;
    this.#owner.wake(this);
  }

  data(bytes: Uint8Array): void {
    const isUnwanted = (this.#peerShutdown & VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE) !== 0;
    if (this.#state !== "open" || isUnwanted || bytes.length === 0) return;
    this.#chunks.push(bytes);
    this.#queuedBytes += bytes.length;
    if (!this.#isPaused && this.#queuedBytes >= HOST_DATA_BYTES) {
      this.#isPaused = true;
      this.#stream?.pause();
    }
    this.#owner.wake(this);
  }

  sent(length: number): void {
    if (this.#state !== "open") return;
    this.#forwarded = (this.#forwarded + length) >>> 0;
    // Told early enough that the guest never waits for it while half of the buffer is free.
    const news = (this.#forwarded - this.#toldForwarded) >>> 0;
    if (news >= CONNECTION_BUFFER_BYTES / 4) this.#wantsCreditUpdate = true;
    if (this.#isDone()) this.abort(true);
    else if (this.#wantsCreditUpdate) this.#owner.wake(this);
  }

  ended(): void {
    this.#tellShutdown(VIRTIO_VSOCK_SHUTDOWN_F_SEND);
  }

  closed(isFailure: boolean): void {
    if (this.#state !== "open" || isFailure) this.abort(true);
    else this.#tellShutdown(VIRTIO_VSOCK_SHUTDOWN_BOTH);
  }

  // == The guest's end =========================================================

  /** Every packet carries the sender's credit. */
  setPeerCredit({ bufferSize, forwarded }: VsockHeader): void {
    this.#peerBufferSize = bufferSize;
    this.#peerForwarded = forwarded;
    this.#wantsCreditRequest = false;
    if (this.hasWork) this.#owner.wake(this);
  }

  /** RESPONSE: the guest has accepted; false if it was not asked. */
  accepted(): boolean {
    if (this.#state !== "requested" || this.#reply !== 0) return false;
    this.#state = "open";
    this.#stream?.opened(this.hostPort);
    return true;
  }

  /** True if the guest may send `length` bytes now, as far as it has been told. */
  mayReceive(length: number): boolean {
    const waiting = (this.#received - this.#forwarded) >>> 0;
    const isOver = (this.#peerShutdown & VIRTIO_VSOCK_SHUTDOWN_F_SEND) !== 0;
    return this.#state === "open" && !isOver && waiting + length <= CONNECTION_BUFFER_BYTES;
  }

  /** RW, after `mayReceive`. */
  received(bytes: Uint8Array): void {
    // Empty packets cost no credit: a guest could pile them up without end.
    if (bytes.length === 0) return;
    this.#received = (this.#received + bytes.length) >>> 0;
    this.#stream?.write(bytes);
  }

  /** SHUTDOWN: flags add up. */
  shutDown(flags: number): void {
    const news = flags & ~this.#peerShutdown & VIRTIO_VSOCK_SHUTDOWN_BOTH;
    this.#peerShutdown |= news;
    if (this.#state !== "open") {
      // No data has been exchanged, so there is nothing to finish.
      this.abort(true);
      return;
    }
    if ((news & VIRTIO_VSOCK_SHUTDOWN_F_RECEIVE) !== 0) this.#discardData();
    if ((news & VIRTIO_VSOCK_SHUTDOWN_F_SEND) !== 0) this.#stream?.end();
    if (this.#isDone()) this.abort(true);
  }

  /** CREDIT_REQUEST. */
  askedForCredit(): void {
    this.#wantsCreditUpdate = true;
    this.#owner.wake(this);
  }

  // == Packets to the guest ====================================================

  get hasWork(): boolean {
    if (this.#reply !== 0 || this.#wantsCreditUpdate || this.#wantsCreditRequest) return true;
    if (this.#queuedBytes > 0) return this.#credit() > 0;
    return this.#shutdownWanted !== this.#shutdownSent;
  }

  /**
   * Fills the next packet in, with at most `room` bytes of `payload`; call it only while there is
   * work. Data makes room for itself: a header with it carries the credit, too.
   */
  compose(header: VsockHeader, room: number): void {
    this.payload = EMPTY;
    header.flags = 0;
    header.bufferSize = CONNECTION_BUFFER_BYTES;
    header.forwarded = this.#forwarded;
    header.operation = this.#nextOperation();
    switch (header.operation) {
      case VIRTIO_VSOCK_OP_RW:
        this.#takePayload(room);
        break;
      case VIRTIO_VSOCK_OP_SHUTDOWN:
        this.#shutdownSent = this.#shutdownWanted;
        header.flags = this.#shutdownSent;
        break;
      case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
        break;
      case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
        this.#wantsCreditRequest = false;
        break;
      default:
        this.#reply = 0;
    }
    header.length = this.payload.length;
    this.#wantsCreditUpdate = false;
    this.#toldForwarded = this.#forwarded;
  }

  #nextOperation(): number {
    if (this.#reply !== 0) return this.#reply;
    if (this.#queuedBytes > 0 && this.#credit() > 0) return VIRTIO_VSOCK_OP_RW;
    if (this.#wantsCreditUpdate) return VIRTIO_VSOCK_OP_CREDIT_UPDATE;
    if (this.#wantsCreditRequest) return VIRTIO_VSOCK_OP_CREDIT_REQUEST;
    return VIRTIO_VSOCK_OP_SHUTDOWN;
  }

  #takePayload(room: number): void {
    const chunk = this.#chunks[0] ?? EMPTY;
    const length = Math.min(chunk.length - this.#chunkOffset, this.#credit(), room, MAX_PAYLOAD_BYTES);
    this.payload = chunk.subarray(this.#chunkOffset, this.#chunkOffset + length);
    this.#chunkOffset += length;
    this.#queuedBytes -= length;
    this.#sentBytes = (this.#sentBytes + length) >>> 0;
    if (this.#chunkOffset === chunk.length) {
      this.#chunks.shift();
      this.#chunkOffset = 0;
    }
    if (this.#isPaused && this.#queuedBytes <= HOST_DATA_BYTES / 2) {
      this.#isPaused = false;
      this.#stream?.resume();
    }
    // The guest tells of new room by itself; asked, it also does so if it has forgotten.
    if (this.#queuedBytes > 0 && this.#credit() === 0) this.#wantsCreditRequest = true;
  }

  /** `bytes` that the guest has room for (§5.10.6.3). A guest that has lied about it gets nothing. */
  #credit(): number {
    const underWay = (this.#sentBytes - this.#peerForwarded) >>> 0;
    return Math.max(0, this.#peerBufferSize - underWay);
  }

  #tellShutdown(flags: number): void {
    if (this.#state !== "open") return;
    this.#shutdownWanted |= flags;
    if (this.hasWork) this.#owner.wake(this);
  }

  /** The guest has ended both directions, and all that it sent has been passed on. */
  #isDone(): boolean {
    return this.#peerShutdown === VIRTIO_VSOCK_SHUTDOWN_BOTH && this.#received === this.#forwarded;
  }

  #discardData(): void {
    this.#chunks.length = 0;
    this.#chunkOffset = 0;
    this.#queuedBytes = 0;
    this.#wantsCreditRequest = false;
    if (this.#isPaused) this.#stream?.resume();
    this.#isPaused = false;
  }
}
