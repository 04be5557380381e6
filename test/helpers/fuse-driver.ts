// A guest's file system driver as bytes: FUSE requests through the queues of a file system device, whatever they hold.
// Linux: include/uapi/linux/fuse.h.
import { setTimeout as sleep } from "node:timers/promises";
import { VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC } from "../../devices/virtio/constants.js";
import type { MappedGuestMemory } from "../../vmm/memory/guest-memory.js";
import type { DriverQueue } from "./driver-queue.js";
import type { VirtioDriver } from "./virtio-driver.js";

export const FUSE_LOOKUP = 1;
export const FUSE_FORGET = 2;
export const FUSE_SETATTR = 4;
export const FUSE_READLINK = 5;
export const FUSE_SYMLINK = 6;
export const FUSE_MKNOD = 8;
export const FUSE_MKDIR = 9;
export const FUSE_UNLINK = 10;
export const FUSE_RENAME = 12;
export const FUSE_LINK = 13;
export const FUSE_OPEN = 14;
export const FUSE_READ = 15;
export const FUSE_WRITE = 16;
export const FUSE_RELEASE = 18;
export const FUSE_INIT = 26;
export const FUSE_CREATE = 35;
/** The folder itself. */
export const ROOT = 1n;

const IN_HEADER = 40;
const OUT_HEADER = 16;
const ANSWER_BYTES = 64 * 1024;
const REQUEST_QUEUE = 1;
const LIMIT_MS = 20_000;

export interface FuseAnswer {
  /** 0, or the negative errno. */
  readonly error: number;
  readonly body: Buffer;
}

/** Fields one after the other: 32 bits for a number, 64 for a bigint, text with its zero. */
export function fields(...values: readonly (number | bigint | string | Uint8Array)[]): Buffer {
  return Buffer.concat(
    values.map((value) => {
      if (typeof value === "number") return Buffer.from(Uint32Array.of(value).buffer);
      if (typeof value === "bigint") return Buffer.from(BigUint64Array.of(value).buffer);
      return typeof value === "string" ? Buffer.from(`${value}\0`) : Buffer.from(value);
    }),
  );
}

export class FuseDriver {
  readonly #driver: VirtioDriver;
  readonly #memory: MappedGuestMemory;
  readonly #queue: DriverQueue;
  readonly #requestGpa: number;
  readonly #answerGpa: number;
  #unique = 2n;

  /** Brings the device up. */
  constructor(driver: VirtioDriver, memory: MappedGuestMemory) {
    this.#driver = driver;
    this.#memory = memory;
    const features = [VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC];
    const queue = driver.start({ features, queueSize: 64 })[REQUEST_QUEUE];
    if (queue === undefined) throw new Error("The device has no queue for requests");
    this.#queue = queue;
    this.#requestGpa = driver.allocate(ANSWER_BYTES);
    this.#answerGpa = driver.allocate(ANSWER_BYTES);
  }

  async init(): Promise<FuseAnswer> {
    return this.ask(FUSE_INIT, 0n, fields(7, 36, 0x2_0000, 0, new Uint8Array(48)));
  }

  /** Makes a request as root of the guest, and waits for its answer. */
  async ask(opcode: number, node: bigint, body: Uint8Array): Promise<FuseAnswer> {
    this.send(opcode, node, body);
    for (const end = performance.now() + LIMIT_MS; performance.now() < end;) {
      if (this.#queue.collect().length > 0) return this.#answer();
      await sleep(1);
    }
    throw new Error(`No answer to FUSE request ${String(opcode)}`);
  }

  /** Makes a request, and does not wait. */
  send(opcode: number, node: bigint, body: Uint8Array): void {
    const unique = this.#unique++;
    const request = fields(IN_HEADER + body.length, opcode, unique, node, 0, 0, 1, 0, body);
    this.#memory.slice(this.#requestGpa, request.length).set(request);
    const hasBody = body.length > 0;
    this.#queue.add([
      { gpa: this.#requestGpa, length: IN_HEADER },
      ...(hasBody ? [{ gpa: this.#requestGpa + IN_HEADER, length: body.length }] : []),
      { gpa: this.#answerGpa, length: OUT_HEADER, writable: true },
      { gpa: this.#answerGpa + OUT_HEADER, length: ANSWER_BYTES - OUT_HEADER, writable: true },
    ]);
    this.#driver.notify(REQUEST_QUEUE);
  }

  /** A name's node, or the negative errno. */
  async lookUp(node: bigint, name: string): Promise<bigint> {
    const { error, body } = await this.ask(FUSE_LOOKUP, node, fields(name));
    return error === 0 ? body.readBigUInt64LE() : BigInt(error);
  }

  /** A file's bytes from its start, or the error. */
  async read(node: bigint, length: number): Promise<FuseAnswer> {
    const opened = await this.ask(FUSE_OPEN, node, fields(0, 0));
    if (opened.error !== 0) return opened;
    return this.ask(FUSE_READ, node, fields(opened.body.readBigUInt64LE(), 0n, length, 0, 0n, 0, 0));
  }

  #answer(): FuseAnswer {
    const length = this.#memory.readU32(this.#answerGpa);
    const error = this.#memory.readU32(this.#answerGpa + 4) | 0;
    const body = this.#memory.slice(this.#answerGpa + OUT_HEADER, Math.max(0, length - OUT_HEADER));
    return { error, body: Buffer.from(body) };
  }
}
