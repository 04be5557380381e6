// Socket device: streams between programs of the guest and of the host. virtio 1.2 §5.10.
// Left out on purpose: SOCK_SEQPACKET and datagrams.
import type { AccessSize } from "../../contracts.js";
import type { State, StateReader } from "../../state.js";
import type { ConfigSpace } from "../config-space.js";
import { VIRTIO_ID_VSOCK } from "../constants.js";
import { Reader, Writer } from "../cursor.js";
import type { ActivationContext, VirtioDevice } from "../device.js";
import type { EventLoop } from "../event-loop.js";
import { QueueError } from "../queue-error.js";
import type { Queue } from "../queue.js";
import { serveQueue, Turn, type Step } from "../serve-queue.js";
import type { HostStream, StreamAcceptor, StreamEvents, VsockBackend } from "./backend.js";
import { vsockConfig } from "./config.js";
import { Connection, MAX_PAYLOAD_BYTES, type ConnectionOwner } from "./connection.js";
import { ConnectionTable } from "./connection-table.js";
import {
  VIRTIO_VSOCK_HDR_SIZE,
  VIRTIO_VSOCK_OP_CREDIT_REQUEST,
  VIRTIO_VSOCK_OP_CREDIT_UPDATE,
  VIRTIO_VSOCK_OP_REQUEST,
  VIRTIO_VSOCK_OP_RESPONSE,
  VIRTIO_VSOCK_OP_RST,
  VIRTIO_VSOCK_OP_RW,
  VIRTIO_VSOCK_OP_SHUTDOWN,
  VIRTIO_VSOCK_TYPE_STREAM,
  VMADDR_CID_HOST,
  VSOCK_EVENT,
  VSOCK_QUEUE_SIZE,
  VSOCK_RX,
  VSOCK_TX,
} from "./constants.js";
import { VsockHeader } from "./header.js";
import { ResetQueue } from "./reset-queue.js";
import { checkVsock, saveVsock } from "./state.js";
import { TransportReset } from "./transport-reset.js";

/** Packets of one turn, and `bytes` of payload after which it ends as well. */
const TURN = { steps: 64, amount: 1024 * 1024 };
/** With the buffers of a connection: 80 MiB of the host's memory at most. */
export const DEFAULT_MAX_CONNECTIONS = 256;
/** `ms` that a guest has to answer a REQUEST; the same as Linux gives its own. */
const REQUEST_TIMEOUT_MS = 2000;

export interface VsockDeviceOptions {
  /** Short instance name, such as "vsock0". */
  readonly name: string;
  readonly backend: VsockBackend;
  /** Context id of the guest, from 3 on. */
  readonly guestCid: number;
  readonly maxConnections?: number | undefined;
  readonly loop: EventLoop;
}

/** What exists between DRIVER_OK and reset. */
interface Session {
  readonly context: ActivationContext;
  readonly rx: Queue;
  readonly tx: Queue;
  readonly events: Queue;
  readonly reader: Reader;
  readonly writer: Writer;
}

export class VsockDevice implements VirtioDevice, ConnectionOwner, StreamAcceptor {
  readonly name: string;
  readonly deviceType = VIRTIO_ID_VSOCK;
  readonly offeredFeatures = 0n;
  readonly queueMaxSizes = [VSOCK_QUEUE_SIZE, VSOCK_QUEUE_SIZE, VSOCK_QUEUE_SIZE];
  readonly counters = {
    rxPackets: 0,
    rxBytes: 0,
    txPackets: 0,
    txBytes: 0,
    /** Connections begun, by either side ... */
    connections: 0,
    /** ... and refused because there were too many. */
    refusedConnections: 0,
    /** RST packets to the guest. */
    resets: 0,
    /** Packets of the guest that make no sense. */
    malformed: 0,
  };
  readonly #backend: VsockBackend;
  readonly #guestCid: number;
  readonly #maxConnections: number;
  readonly #loop: EventLoop;
  readonly #config: ConfigSpace;
  readonly #connections = new ConnectionTable();
  /** Connections that have something to send, each once, served in turn. */
  #waiting: Connection[] = [];
  readonly #resets = new ResetQueue();
  /** What cancels the time-outs of those that the guest has been asked about. */
  readonly #requestTimers = new Map<Connection, () => void>();
  readonly #transportReset: TransportReset;
  readonly #incoming = new VsockHeader();
  readonly #outgoing = new VsockHeader();
  /** Packets of the guest are being looked at: what they set off is sent when all have been. */
  #isReceiving = false;
  /** Packets of the guest wait until it has taken some of the resets that they caused. */
  #isTxHeld = false;
  /** The guest does not run. */
  #isQuiet = false;
  #session: Session | undefined;

  constructor({ name, backend, guestCid, maxConnections, loop }: VsockDeviceOptions) {
    this.name = name;
    this.#config = vsockConfig(guestCid);
    this.#backend = backend;
    this.#guestCid = guestCid;
    this.#maxConnections = maxConnections ?? DEFAULT_MAX_CONNECTIONS;
    this.#loop = loop;
    this.#transportReset = new TransportReset(loop);
    backend.accept(this);
  }

  readConfig(offset: number, size: AccessSize): number {
    return this.#config.read(offset, size);
  }

  writeConfig(): void {
    // Nothing is the driver's to write.
  }

  activate(context: ActivationContext): void {
    const rx = context.queues[VSOCK_RX];
    const tx = context.queues[VSOCK_TX];
    const events = context.queues[VSOCK_EVENT];
    if (rx === undefined || tx === undefined || events === undefined) return;
    const { memory } = context;
    this.#session = { context, rx, tx, events, reader: new Reader(memory), writer: new Writer(memory) };
  }

  /** A guest that does not run has all the time to answer. */
  quiesce(): void {
    this.#isQuiet = true;
    for (const cancel of this.#requestTimers.values()) cancel();
  }

  unquiesce(): void {
    this.#isQuiet = false;
    for (const connection of [...this.#requestTimers.keys()]) this.#limitRequest(connection);
  }

  save(): State {
    return saveVsock(this.#guestCid);
  }

  /** The other ends of all connections are gone, and the guest may have another context id. */
  restore(state: StateReader): void {
    checkVsock(state);
    this.#transportReset.announce();
  }

  reset(): void {
    this.#session = undefined;
    this.#transportReset.clear();
    for (const cancel of this.#requestTimers.values()) cancel();
    this.#requestTimers.clear();
    for (const connection of [...this.#connections.values()]) connection.abort(false);
    this.#connections.clear();
    this.#waiting = [];
    this.#resets.clear();
    this.#isReceiving = false;
    this.#isTxHeld = false;
  }

  onAvailable(queueIndex: number): boolean {
    const session = this.#session;
    if (session === undefined) return false;
    if (queueIndex === VSOCK_RX) return this.#serveRx(session);
    if (queueIndex === VSOCK_TX) return this.#serveTx(session);
    this.#transportReset.serve(session.events, session.context, () => session.context.serve(VSOCK_RX));
    return false;
  }

  /** Connections of this moment, for statistics. */
  get connectionCount(): number {
    return this.#connections.size;
  }

  // == Host programs ===========================================================

  open(guestPort: number, stream: HostStream): StreamEvents | undefined {
    if (this.#session === undefined) return undefined;
    if (this.#connections.size >= this.#maxConnections) {
      this.counters.refusedConnections++;
      return undefined;
    }
    const connection = new Connection(this, this.#connections.freeHostPort(), guestPort, "requested");
    connection.setStream(stream);
    this.#add(connection);
    this.#limitRequest(connection);
    this.wake(connection);
    return connection;
  }

  wake(connection: Connection): void {
    if (connection.state === "closed" && !connection.hasWork) this.#remove(connection);
    else if (!connection.isWaiting) {
      connection.isWaiting = true;
      this.#waiting.push(connection);
    }
    if (!this.#isReceiving) this.#session?.context.serve(VSOCK_RX);
  }

  #limitRequest(connection: Connection): void {
    if (this.#isQuiet) {
      this.#requestTimers.set(connection, () => undefined);
      return;
    }
    const cancel = this.#loop.after(REQUEST_TIMEOUT_MS, () => {
      this.#requestTimers.delete(connection);
      connection.abort(true);
    });
    this.#requestTimers.set(connection, cancel);
  }

  #add(connection: Connection): void {
    this.#connections.add(connection);
    this.counters.connections++;
  }

  #remove(connection: Connection): void {
    this.#connections.delete(connection);
    this.#requestTimers.get(connection)?.();
    this.#requestTimers.delete(connection);
  }

  // == Packets from the guest ==================================================

  #serveTx(session: Session): boolean {
    this.#isReceiving = true;
    let isCutOff: boolean;
    try {
      isCutOff = serveQueue(session.tx, session.context, new Turn(TURN), (turn) => this.#takePacket(session, turn));
    } finally {
      this.#isReceiving = false;
    }
    // Answers to all of them at once.
    if (this.#hasOutput()) session.context.serve(VSOCK_RX);
    return isCutOff;
  }

  #takePacket({ tx: queue, reader }: Session, turn: Turn): Step {
    this.#isTxHeld = this.#resets.isFull;
    if (this.#isTxHeld) return "waiting";
    const chain = queue.pop();
    if (chain === null) return "empty";
    this.counters.txPackets++;
    const bytesBefore = this.counters.txBytes;
    reader.start(chain.readable);
    if (reader.remaining < VIRTIO_VSOCK_HDR_SIZE) this.counters.malformed++;
    else {
      this.#incoming.read(reader);
      this.#handle(this.#incoming, reader);
    }
    turn.spend(this.counters.txBytes - bytesBefore);
    queue.pushUsed(chain.head, 0);
    return "done";
  }

  #handle(header: VsockHeader, reader: Reader): void {
    if (header.sourceCid !== this.#guestCid || header.destinationCid !== VMADDR_CID_HOST) {
      // Nobody is there to be told.
      this.counters.malformed++;
      return;
    }
    const { destinationPort, sourcePort, operation } = header;
    const connection = this.#connections.get(destinationPort, sourcePort);
    if (header.type !== VIRTIO_VSOCK_TYPE_STREAM) {
      this.counters.malformed++;
      if (operation !== VIRTIO_VSOCK_OP_RST) this.#resets.add(destinationPort, sourcePort, header.type);
    } else if (connection !== undefined) {
      if (connection.state !== "closed") this.#handleFor(connection, header, reader);
    } else if (operation === VIRTIO_VSOCK_OP_REQUEST) {
      this.#connect(header);
    } else if (operation !== VIRTIO_VSOCK_OP_RST) {
      this.#resets.add(destinationPort, sourcePort, header.type);
    }
  }

  #connect(header: VsockHeader): void {
    const { destinationPort, sourcePort } = header;
    if (this.#connections.size >= this.#maxConnections) {
      this.counters.refusedConnections++;
      this.#resets.add(destinationPort, sourcePort, header.type);
      return;
    }
    const connection = new Connection(this, destinationPort, sourcePort, "connecting");
    this.#add(connection);
    connection.setPeerCredit(header);
    connection.setStream(this.#backend.connect(destinationPort, connection));
  }

  #handleFor(connection: Connection, header: VsockHeader, reader: Reader): void {
    connection.setPeerCredit(header);
    switch (header.operation) {
      case VIRTIO_VSOCK_OP_RESPONSE:
        if (!connection.accepted()) break;
        this.#requestTimers.get(connection)?.();
        this.#requestTimers.delete(connection);
        return;
      case VIRTIO_VSOCK_OP_RST:
        connection.abort(false);
        return;
      case VIRTIO_VSOCK_OP_SHUTDOWN:
        connection.shutDown(header.flags);
        return;
      case VIRTIO_VSOCK_OP_RW: {
        const { length } = header;
        if (length > reader.remaining || length > MAX_PAYLOAD_BYTES || !connection.mayReceive(length)) break;
        // A copy: the guest has its buffer back before the host program has taken the bytes.
        const bytes = new Uint8Array(length);
        reader.readBytes(bytes);
        this.counters.txBytes += length;
        connection.received(bytes);
        return;
      }
      case VIRTIO_VSOCK_OP_CREDIT_UPDATE:
        return;
      case VIRTIO_VSOCK_OP_CREDIT_REQUEST:
        connection.askedForCredit();
        return;
    }
    // Out of order, over its credit, or unknown: the connection is beyond repair.
    this.counters.malformed++;
    connection.abort(true);
  }

  // == Packets to the guest ====================================================

  #hasOutput(): boolean {
    return this.#waiting.length > 0 || this.#resets.length > 0;
  }

  #serveRx(session: Session): boolean {
    const { rx, context } = session;
    const isCutOff = serveQueue(rx, context, new Turn(TURN), (turn) => this.#sendOne(session, turn));
    if (this.#isTxHeld && !this.#resets.isFull) {
      this.#isTxHeld = false;
      context.serve(VSOCK_TX);
    }
    return isCutOff && this.#hasOutput();
  }

  #sendOne({ rx: queue, writer }: Session, turn: Turn): Step {
    if (this.#transportReset.holdsPackets) return "waiting";
    this.#skipIdle();
    // Resets first: they are few, and packets of the guest may be waiting for them to go.
    const connection = this.#resets.length > 0 ? undefined : this.#waiting[0];
    // With nothing to send, no notification is of use: the next packet looks by itself.
    if (connection === undefined && this.#resets.length === 0) return "waiting";
    const chain = queue.pop();
    if (chain === null) return "empty";
    writer.start(chain.writable);
    const room = writer.remaining - VIRTIO_VSOCK_HDR_SIZE;
    // A header alone would do for most packets, but never for data.
    if (room <= 0) throw new QueueError(`Receive buffer of ${String(writer.remaining)} bytes has no room for data`);

    const header = this.#outgoing;
    header.sourceCid = VMADDR_CID_HOST;
    header.destinationCid = this.#guestCid;
    if (connection === undefined) {
      this.#resets.take(header);
      header.write(writer);
    } else {
      header.type = VIRTIO_VSOCK_TYPE_STREAM;
      header.sourcePort = connection.hostPort;
      header.destinationPort = connection.guestPort;
      connection.compose(header, room);
      header.write(writer);
      writer.writeBytes(connection.payload);
      this.#requeue(connection);
    }
    if (header.operation === VIRTIO_VSOCK_OP_RST) this.counters.resets++;
    this.counters.rxPackets++;
    this.counters.rxBytes += header.length;
    turn.spend(header.length);
    queue.pushUsed(chain.head, VIRTIO_VSOCK_HDR_SIZE + header.length);
    return "done";
  }

  /** Takes connections off the list whose work has gone away since they were put there. */
  #skipIdle(): void {
    for (let first = this.#waiting[0]; first !== undefined && !first.hasWork; first = this.#waiting[0]) {
      this.#requeue(first);
    }
  }

  /** The connection at the head of the list has had its packet: to the end with it, if it has more. */
  #requeue(connection: Connection): void {
    this.#waiting.shift();
    if (connection.hasWork) {
      this.#waiting.push(connection);
      return;
    }
    connection.isWaiting = false;
    if (connection.state === "closed") this.#remove(connection);
  }
}
