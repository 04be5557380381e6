// The host's end of one TCP connection of the guest, RFC 9293, as far as a server of short answers needs it: what comes
// out of order is dropped and asked for again, what is lost is sent again from the first lost byte on, nothing is kept
// after the end. The link loses nothing by itself, so there is no congestion to control.
import { advanced, distance } from "./sequence.js";
import { ACK, FIN, PSH, RST, SYN, type Peer, type Segment } from "./wire.js";

/** Whoever answers what is sent over the connection. */
export interface Session {
  /** `bytes` that it takes now. */
  readonly room: number;
  /** Takes them, at most `room`; they are good during the call. */
  take(bytes: Uint8Array): void;
  /** The next answer, once what came before has been sent; undefined if there is none yet. */
  nextAnswer(): Uint8Array | undefined;
  /** Nothing comes after what it has answered: the connection is to end. */
  readonly isOver: boolean;
}

/** `bytes` of a segment's payload: an Ethernet frame's, without options. */
const OWN_MSS = 1460;
/** Of a peer that does not say (RFC 9293 §3.7.1), and the least that is believed: less makes many frames of one answer. */
const DEFAULT_MSS = 536;
const MIN_MSS = 64;
/** `ms` until what is not acknowledged is sent again; doubled each time. */
const FIRST_RETRANSMISSION_MS = 400;
const MAX_RETRANSMISSION_MS = 10_000;
const MAX_TRIES = 8;
const NOTHING = new Uint8Array(0);

export class TcpConnection {
  readonly peer: Peer;
  /** When something has come last, `ms`. */
  heardAtMs: number;
  readonly #session: Session;
  readonly #mss: number;
  /** What the peer's SYN was numbered. */
  readonly #peerStart: number;
  #isEstablished = false;
  /** Next byte to come from the peer. */
  #expected: number;
  /** First byte that is not acknowledged, next one to send, and behind the last one that was ever sent. */
  #unacknowledged: number;
  #next: number;
  #farthest: number;
  /** Bytes that are not acknowledged yet: they begin at `#unacknowledged`, but for the SYN before them. */
  #data: Uint8Array = NOTHING;
  #window: number;
  #owesAnswer = true;
  #peerHasEnded = false;
  /** Our FIN is the last byte behind `#data`. */
  #hasFin = false;
  #isFinAcknowledged = false;
  #isGone = false;
  #tries = 0;
  #retransmissionMs = FIRST_RETRANSMISSION_MS;
  #dueMs = Infinity;

  /** `syn` opens it; `start`: any number that the peer does not know. */
  constructor(peer: Peer, syn: Segment, start: number, session: Session, nowMs: number) {
    this.peer = peer;
    this.heardAtMs = nowMs;
    this.#session = session;
    this.#mss = Math.min(OWN_MSS, Math.max(MIN_MSS, syn.mss ?? DEFAULT_MSS));
    this.#peerStart = syn.sequence;
    this.#expected = advanced(syn.sequence, 1);
    this.#unacknowledged = start;
    this.#next = start;
    this.#farthest = start;
    this.#window = syn.window;
  }

  /** It is over: nothing more comes or is sent. */
  get isGone(): boolean {
    return this.#isGone || (this.#isFinAcknowledged && this.#peerHasEnded && !this.#owesAnswer);
  }

  /** When `nextSegment` may have something that it has not now, `ms`. */
  get dueMs(): number {
    return this.#dueMs;
  }

  /** What has come for it. Returns a segment to refuse with, if it is refused. */
  receive(segment: Segment, nowMs: number): void {
    const { sequence, acknowledgement, flags } = segment;
    this.heardAtMs = nowMs;
    const ahead = distance(this.#expected, sequence);
    if ((flags & RST) !== 0) {
      // Only one that is exactly right: RFC 5961 §3.2.
      if (ahead === 0) this.#isGone = true;
      return;
    }
    if ((flags & SYN) !== 0) {
      // The same again if our answer was lost; a new one is told what this connection expects, and ends it if it is in earnest.
      if (!this.#isEstablished && sequence === this.#peerStart) this.#sendAgain();
      else this.#owesAnswer = true;
      return;
    }
    if ((flags & ACK) === 0) return;
    if (!this.#acknowledge(acknowledgement)) {
      this.#owesAnswer = true;
      return;
    }
    this.#window = segment.window;
    this.#takePayload(segment, ahead);
    this.#answer();
  }

  /** The next segment to send, or undefined: then there is none before `dueMs`, or before something comes. */
  nextSegment(nowMs: number): Segment | undefined {
    if (this.#isGone) return undefined;
    if (nowMs >= this.#dueMs) {
      this.#dueMs = Infinity;
      if (++this.#tries > MAX_TRIES) {
        this.#isGone = true;
        return this.#segment(RST | ACK, this.#next);
      }
      this.#retransmissionMs = Math.min(MAX_RETRANSMISSION_MS, 2 * this.#retransmissionMs);
      this.#next = this.#unacknowledged;
    }
    const segment = this.#isEstablished ? this.#nextData(nowMs) : this.#nextSyn();
    if (segment !== undefined) this.#owesAnswer = false;
    if (this.#next !== this.#unacknowledged && this.#dueMs === Infinity) this.#dueMs = nowMs + this.#retransmissionMs;
    return segment;
  }

  /** False for one that speaks of what was never sent. */
  #acknowledge(acknowledgement: number): boolean {
    const count = distance(this.#unacknowledged, acknowledgement);
    if (count > distance(this.#unacknowledged, this.#farthest)) return false;
    if (!this.#isEstablished && count !== 1) return false;
    if (count <= 0) return true;
    const bytes = this.#isEstablished ? count : count - 1;
    this.#isEstablished = true;
    this.#isFinAcknowledged ||= this.#hasFin && bytes > this.#data.length;
    this.#data = this.#data.subarray(Math.min(bytes, this.#data.length));
    this.#unacknowledged = acknowledgement;
    if (distance(this.#next, acknowledgement) > 0) this.#next = acknowledgement;
    this.#tries = 0;
    this.#retransmissionMs = FIRST_RETRANSMISSION_MS;
    this.#dueMs = Infinity;
    return true;
  }

  /** Takes what is new of it, as far as there is room; `ahead`: how far it begins behind what is expected. */
  #takePayload({ payload, flags }: Segment, ahead: number): void {
    const hasFin = (flags & FIN) !== 0;
    if (payload.length === 0 && !hasFin) {
      // One byte before what is expected, and nothing in it: somebody wants to know whether this end lives.
      if (ahead !== 0) this.#owesAnswer = true;
      return;
    }
    this.#owesAnswer = true;
    if (ahead > 0 || this.#peerHasEnded) return;
    const fresh = payload.subarray(Math.min(-ahead, payload.length));
    const taken = fresh.subarray(0, this.#session.room);
    if (taken.length > 0) this.#session.take(taken);
    this.#expected = advanced(this.#expected, taken.length);
    // A FIN before what is expected has been seen already.
    if (!hasFin || taken.length < fresh.length || -ahead > payload.length) return;
    this.#peerHasEnded = true;
    this.#expected = advanced(this.#expected, 1);
  }

  /** One answer at a time: the next is made when all of this has arrived. */
  #answer(): void {
    if (this.#data.length > 0 || this.#hasFin || this.#unacknowledged !== this.#farthest) return;
    const roomBefore = this.#session.room;
    this.#data = this.#session.nextAnswer() ?? NOTHING;
    this.#hasFin = this.#session.isOver || (this.#data.length === 0 && this.#peerHasEnded);
    if (this.#session.room > roomBefore) this.#owesAnswer = true;
  }

  #nextSyn(): Segment | undefined {
    if (this.#next !== this.#unacknowledged) return undefined;
    const segment = { ...this.#segment(SYN | ACK, this.#next), mss: OWN_MSS };
    this.#advance(1);
    return segment;
  }

  #nextData(nowMs: number): Segment | undefined {
    const sent = distance(this.#unacknowledged, this.#next);
    const left = this.#data.length - sent;
    let length = Math.min(left, this.#mss, this.#window - sent);
    if (length <= 0 && left > 0 && sent === 0) {
      // A window of nothing: after a while, a byte asks whether it is still so.
      if (this.#tries === 0) {
        if (this.#dueMs === Infinity) this.#dueMs = nowMs + this.#retransmissionMs;
      } else {
        length = 1;
      }
    }
    if (length > 0) {
      const payload = this.#data.subarray(sent, sent + length);
      const isLast = length === left;
      const flags = ACK | (isLast ? PSH : 0) | (isLast && this.#hasFin ? FIN : 0);
      const segment = { ...this.#segment(flags, this.#next), payload };
      this.#advance(length + (isLast && this.#hasFin ? 1 : 0));
      return segment;
    }
    if (left === 0 && this.#hasFin && !this.#isFinAcknowledged) {
      const segment = this.#segment(FIN | ACK, this.#next);
      this.#advance(1);
      return segment;
    }
    return this.#owesAnswer ? this.#segment(ACK, this.#next) : undefined;
  }

  #advance(count: number): void {
    this.#next = advanced(this.#next, count);
    if (distance(this.#farthest, this.#next) > 0) this.#farthest = this.#next;
  }

  #sendAgain(): void {
    this.#next = this.#unacknowledged;
    this.#dueMs = Infinity;
  }

  #segment(flags: number, sequence: number): Segment {
    const { room } = this.#session;
    return { sequence, acknowledgement: this.#expected, flags, window: Math.min(room, 0xffff), payload: NOTHING };
  }
}
