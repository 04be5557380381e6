// struct virtio_vsock_hdr, before every packet in both directions. virtio 1.2 §5.10.6.
import type { Reader, Writer } from "../cursor.js";

export class VsockHeader {
  /** Context ids: 64 bits, inexact but equal to no real one from 2^53. */
  sourceCid = 0;
  destinationCid = 0;
  sourcePort = 0;
  destinationPort = 0;
  /** `bytes` of payload. */
  length = 0;
  /** VIRTIO_VSOCK_TYPE_*. */
  type = 0;
  /** VIRTIO_VSOCK_OP_*. */
  operation = 0;
  flags = 0;
  /** buf_alloc: `bytes` that the sender's buffer holds. */
  bufferSize = 0;
  /** fwd_cnt: `bytes` that have left the sender's buffer, modulo 2^32. */
  forwarded = 0;

  /** Takes the next 44 bytes, each read once. */
  read(reader: Reader): void {
    this.sourceCid = reader.readU64();
    this.destinationCid = reader.readU64();
    this.sourcePort = reader.readU32();
    this.destinationPort = reader.readU32();
    this.length = reader.readU32();
    this.type = reader.readU16();
    this.operation = reader.readU16();
    this.flags = reader.readU32();
    this.bufferSize = reader.readU32();
    this.forwarded = reader.readU32();
  }

  write(writer: Writer): void {
    writer.writeU32(this.sourceCid >>> 0);
    writer.writeU32(Math.floor(this.sourceCid / 2 ** 32));
    writer.writeU32(this.destinationCid >>> 0);
    writer.writeU32(Math.floor(this.destinationCid / 2 ** 32));
    writer.writeU32(this.sourcePort);
    writer.writeU32(this.destinationPort);
    writer.writeU32(this.length);
    writer.writeU16(this.type);
    writer.writeU16(this.operation);
    writer.writeU32(this.flags);
    writer.writeU32(this.bufferSize);
    writer.writeU32(this.forwarded);
  }
}
