// The network device's backend over a stream socket to a program that is the network: each frame
// behind its length, four bytes in network order, as QEMU's "stream" and passt have it. A frame is
// one system call straight from or to guest memory: reading takes the next frame's length along.
// The stream knows no offloads: the driver's header is left out, and an empty one put before a frame.
import { writeSync } from "node:fs";
import type { GuestMemory } from "../../../devices/contracts.js";
import { VIRTIO_NET_HDR_SIZE } from "../../../devices/virtio/net/constants.js";
import type { NetBackend } from "../../../devices/virtio/net/backend.js";
import type { Segments } from "../../../devices/virtio/segments.js";
import { EAGAIN, EINTR, EPIPE, errnoName } from "../../sys/errno.js";
import { IOV_MAX, IoVectors, readvRaw, writevRaw } from "../../sys/files.js";
import { mmapAnonymous, munmap, viewMemory } from "../../sys/memory.js";
import { arpAnnouncement } from "./arp-announcement.js";
import { acknowledgeReset } from "./bare-reset.js";
import { appendVectors, type HostAddresses } from "./host-vectors.js";
import { unguarded, type Guard } from "../guard.js";
import { ReadableWatch, type PollFunction } from "./readable-watch.js";
import { closeDescriptor } from "../../sys/descriptors.js";

/** `bytes` before each frame. */
const PREFIX_LENGTH = 4;
/** `bytes` of the longest frame that makes sense; a longer one means that the stream is out of step. */
const MAX_FRAME = 65535 + 18;

// One mapping for what is not the guest's: both prefixes, the ends of frames that find no room, and
// zeroes for what is left of a frame that the guest has taken back.
const TX_PREFIX = 0;
const RX_PREFIX = 4;
const REST = 4096;
const REST_LENGTH = 128 * 1024;
const ZEROES = REST + REST_LENGTH;
const SCRATCH_LENGTH = ZEROES + 128 * 1024;

export type StreamNetMemory = HostAddresses & Pick<GuestMemory, "readU8" | "writeU8" | "writeU32">;

export class StreamNet implements NetBackend {
  readonly canOffload = false;
  readonly #fd: number;
  readonly #memory: StreamNetMemory;
  readonly #ended: () => void;
  readonly #watch: ReadableWatch;
  readonly #vectors = new IoVectors(IOV_MAX + 2);
  readonly #scratch = mmapAnonymous(SCRATCH_LENGTH);
  #prefixes: DataView | undefined = new DataView(viewMemory(this.#scratch, 8));
  /** `bytes` of the frame that is being sent, and how many of them and its prefix have been. */
  #txLength = 0;
  #txDone = 0;
  /** `bytes` that are here of the prefix of the frame to come ... */
  #rxPrefixBytes = 0;
  /** ... of the frame itself, and its length. */
  #rxDone = 0;
  #rxLength = 0;
  /** The rest of this frame belongs to a driver that has reset the device. */
  #isDropping = false;
  #hasEnded = false;

  /** The socket does not wait, and is closed with this; `ended` is called when the other end has gone. */
  constructor(fd: number, memory: StreamNetMemory, ended: () => void, guard: Guard = unguarded, poll?: PollFunction) {
    this.#fd = fd;
    this.#memory = memory;
    this.#ended = ended;
    this.#watch = new ReadableWatch(fd, guard, poll);
  }

  setGuestOffloads(): number {
    this.#isDropping = this.#rxDone > 0;
    return 0;
  }

  /**
   * A guest that goes on from a snapshot may be silent until it is spoken to. Until then passt sends to everybody, and Linux
   * answers no TCP that is not for it alone: the first connection to a published port would wait until passt gives it up.
   */
  announce(mac: Uint8Array): void {
    if (this.#txDone > 0 || this.#hasEnded) return;
    const frame = arpAnnouncement(mac);
    const prefix = Buffer.alloc(PREFIX_LENGTH);
    prefix.writeUInt32BE(frame.length);
    try {
      const written = writeSync(this.#fd, Buffer.concat([prefix, frame]));
      // What is left is filled up by the next frame.
      if (written < PREFIX_LENGTH + frame.length) [this.#txDone, this.#txLength] = [written, frame.length];
    } catch {
      // No room, so frames of the guest have been sent; or passt has gone, which the next read tells.
    }
  }

  send(frame: Segments): number {
    const length = frame.byteLength - VIRTIO_NET_HDR_SIZE;
    // A frame that was begun has to be finished, or the stream is out of step: if the guest comes with
    // another frame than the one that it was told to try again, with zeroes.
    if (this.#txDone > 0 && length !== this.#txLength) {
      const result = this.#write(undefined);
      if (result <= 0) return result;
    }
    if (this.#txDone === 0) {
      this.#txLength = length;
      this.#prefixes?.setUint32(TX_PREFIX, length);
    }
    const result = this.#write(frame);
    return result > 0 ? frame.byteLength : result;
  }

  receive(buffers: Segments): number {
    for (;;) {
      const wanted = this.#rxPrefixBytes === PREFIX_LENGTH ? this.#rxLength - this.#rxDone : 0;
      const read = this.#read(buffers, wanted);
      if (read <= 0) return read;
      if (wanted === 0) {
        this.#rxPrefixBytes += read;
      } else if (read < wanted) {
        this.#rxDone += read;
        continue;
      } else {
        this.#rxPrefixBytes = read - wanted;
        this.#rxDone = 0;
      }
      const length = this.#rxLength;
      if (this.#rxPrefixBytes === PREFIX_LENGTH) {
        this.#rxLength = this.#prefixes?.getUint32(RX_PREFIX) ?? 0;
        if (this.#rxLength === 0 || this.#rxLength > MAX_FRAME) this.#end();
      }
      if (wanted === 0) continue;
      if (this.#isDropping) this.#isDropping = false;
      else {
        this.#writeHeader(buffers);
        acknowledgeReset(this.#memory, buffers, length);
        return VIRTIO_NET_HDR_SIZE + length;
      }
    }
  }

  watch(ready: () => void): void {
    // The end of a stream is readable for ever.
    if (!this.#hasEnded) this.#watch.start(ready);
  }

  unwatch(): void {
    this.#watch.stop();
  }

  explain(error: number): string {
    return errnoName(error);
  }

  close(): void {
    this.#watch.close();
    closeDescriptor(this.#fd);
    this.#hasEnded = true;
    this.#prefixes = undefined;
    munmap(this.#scratch, SCRATCH_LENGTH);
  }

  /** Writes the rest of the frame that is being sent; above 0 once all of it is out. */
  #write(frame: Segments | undefined): number {
    if (this.#hasEnded) return -EPIPE;
    const vectors = this.#vectors;
    const total = PREFIX_LENGTH + this.#txLength;
    while (this.#txDone < total) {
      const done = this.#txDone;
      vectors.clear();
      // SAFETY: parts of the scratch mapping, which lives until close(); so in #read.
      if (done < PREFIX_LENGTH) vectors.append(this.#scratch + TX_PREFIX + done, PREFIX_LENGTH - done);
      const from = Math.max(done - PREFIX_LENGTH, 0);
      if (frame === undefined) vectors.append(this.#scratch + ZEROES, this.#txLength - from);
      else appendVectors(vectors, this.#memory, frame, VIRTIO_NET_HDR_SIZE + from, this.#txLength - from);
      const written = writevRaw(this.#fd, vectors);
      if (written > 0) this.#txDone += written;
      else if (written === -EAGAIN) return 0;
      else if (written !== -EINTR) return this.#end(written);
    }
    this.#txDone = 0;
    return total;
  }

  /**
   * Reads `wanted` bytes that are left of a frame and the prefix of the one behind it, or the rest of
   * a prefix; how many bytes, 0 if there are none.
   */
  #read(buffers: Segments, wanted: number): number {
    if (this.#hasEnded) return 0;
    const vectors = this.#vectors;
    vectors.clear();
    let prefixBytes = this.#rxPrefixBytes;
    if (wanted > 0) {
      prefixBytes = 0;
      const placed = this.#isDropping
        ? 0
        : appendVectors(vectors, this.#memory, buffers, VIRTIO_NET_HDR_SIZE + this.#rxDone, wanted);
      if (placed < wanted) vectors.append(this.#scratch + REST, wanted - placed);
    }
    vectors.append(this.#scratch + RX_PREFIX + prefixBytes, PREFIX_LENGTH - prefixBytes);
    let read: number;
    do read = readvRaw(this.#fd, vectors);
    while (read === -EINTR);
    if (read === -EAGAIN) return 0;
    return read > 0 ? read : this.#end(read);
  }

  /** Nothing is left undone for the driver; its count of buffers is the device's to fill in. */
  #writeHeader({ gpas, lengths }: Segments): void {
    const memory = this.#memory;
    const gpa = gpas[0] ?? 0;
    if ((lengths[0] ?? 0) >= VIRTIO_NET_HDR_SIZE) {
      for (let offset = 0; offset < VIRTIO_NET_HDR_SIZE; offset += 4) memory.writeU32(gpa + offset, 0);
      return;
    }
    for (let index = 0, left = VIRTIO_NET_HDR_SIZE; left > 0; index++) {
      const length = Math.min(lengths[index] ?? 0, left);
      for (let offset = 0; offset < length; offset++) memory.writeU8((gpas[index] ?? 0) + offset, 0);
      left -= length;
    }
  }

  /** The other end has gone, or does not keep to the protocol; returns `result`. */
  #end(result = 0): number {
    if (!this.#hasEnded) {
      this.#hasEnded = true;
      this.#watch.stop();
      this.#ended();
    }
    return result;
  }
}
