// File system device: the tag, and the way to a server that serves the queues. virtio 1.2 §5.11. When the server has
// gone, the device answers all requests itself, with an error: no program of the guest waits for ever.
// Left out on purpose: the notification queue and the DAX window.
import type { AccessSize } from "../../contracts.js";
import type { State, StateReader } from "../../state.js";
import { ConfigSpace } from "../config-space.js";
import { VIRTIO_ID_FS } from "../constants.js";
import { Reader, Writer } from "../cursor.js";
import type { ActivationContext, VirtioDevice } from "../device.js";
import type { Queue } from "../queue.js";
import { serveQueue, Turn, type Step } from "../serve-queue.js";
import type { FsBackend, FsSession } from "./backend.js";
import {
  ENOTCONN,
  FS_CONFIG_BYTES,
  FS_CONFIG_NUM_REQUEST_QUEUES,
  FS_CONFIG_TAG_BYTES,
  FS_REQUEST_QUEUE,
  FUSE_IN_HEADER_UNIQUE,
  FUSE_OUT_HEADER_BYTES,
  MAX_FUSE_INIT_BYTES,
} from "./constants.js";
import { hasHadOnly, isIdle, isInit, restoreFs, saveFs } from "./state.js";

/** Linux makes requests of up to 1 MiB if a queue has room for 256 pages and some headers. */
const QUEUE_SIZE = 512;
const REQUEST_QUEUES = 1;
/** Requests that are refused in one turn. */
const TURN = { steps: 64 };

export interface FsDeviceOptions {
  /** Short instance name, such as "share0". */
  readonly name: string;
  /** 1 to 36 bytes. */
  readonly tag: Uint8Array;
  readonly backend: FsBackend;
}

export class FsDevice implements VirtioDevice {
  readonly name: string;
  readonly deviceType = VIRTIO_ID_FS;
  readonly offeredFeatures = 0n;
  readonly queueMaxSizes = [QUEUE_SIZE, QUEUE_SIZE];
  readonly isServedElsewhere = true;
  readonly counters = {
    /** Requests that were answered with an error, because their server had gone. */
    refused: 0,
  };
  readonly #backend: FsBackend;
  readonly #config = new ConfigSpace(FS_CONFIG_BYTES);
  /** What exists between DRIVER_OK and reset. */
  #context: ActivationContext | undefined;
  /** The server has the queues: from the first request on. */
  #isServed = false;
  /** The request with which the driver has begun its session. */
  #init: Uint8Array | undefined;
  /** What it has had with a server before this one, once it was restored. */
  #session: FsSession | undefined;
  #isLost = false;

  constructor({ name, tag, backend }: FsDeviceOptions) {
    this.name = name;
    this.#backend = backend;
    tag.subarray(0, FS_CONFIG_TAG_BYTES).forEach((byte, offset) => {
      this.#config.setU8(offset, byte);
    });
    this.#config.setU32(FS_CONFIG_NUM_REQUEST_QUEUES, REQUEST_QUEUES);
    backend.onLost = () => {
      this.#lost();
    };
  }

  readConfig(offset: number, size: AccessSize): number {
    return this.#config.read(offset, size);
  }

  writeConfig(): void {
    // All fields are read-only (§5.11.4).
  }

  activate(context: ActivationContext): void {
    this.#context = context;
    if (this.#session === undefined || this.#isLost) return;
    // The session's beginning has been answered by a server before this one.
    for (const queue of context.queues) queue.takeOver();
    this.#serveElsewhere(context, this.#session);
  }

  onAvailable(queueIndex: number): boolean {
    const context = this.#context;
    const queue = context?.queues[queueIndex];
    if (context === undefined || queue === undefined || queue.isStopped) return false;
    if (this.#isLost) return this.#refuseAll(context, queue);
    if (!this.#isServed) {
      const request = firstOf(context, queue);
      if (request === undefined) return false;
      if (queueIndex === FS_REQUEST_QUEUE && isInit(request)) this.#init = request;
      this.#serveElsewhere(context);
    }
    this.#backend.kick(queueIndex);
    return false;
  }

  relayInterrupts(isOn: boolean): void {
    this.#backend.relay(isOn ? this.#relayInterrupt : undefined);
  }

  queueStopped(queueIndex: number): void {
    this.#backend.stopQueue(queueIndex);
  }

  whyNotSaved(): string | undefined {
    const { memory, queues = [] } = this.#context ?? {};
    const used = queues.filter((queue, index) => {
      const expected = index === FS_REQUEST_QUEUE && this.#init !== undefined ? 1 : 0;
      return !queue.isStopped && memory !== undefined && !hasHadOnly(expected, memory, queue.addresses);
    });
    if (used.length === 0 || memory === undefined) return undefined;
    const isKnown =
      used.every((queue) => isIdle(memory, queue.addresses)) &&
      this.#init !== undefined &&
      this.#backend.journal?.() !== undefined;
    return isKnown ? undefined : "the guest has used it, and what it has open there only its server knows";
  }

  save(): State {
    return saveFs(this.#init, (this.#init === undefined ? undefined : this.#backend.journal?.()) ?? new Uint8Array(0));
  }

  restore(state: StateReader): void {
    this.#session = restoreFs(state);
    this.#init = this.#session?.init;
  }

  reset(): void {
    this.#context = undefined;
    this.#isServed = false;
    this.#init = undefined;
    this.#session = undefined;
    this.queueMaxSizes.forEach((_, queueIndex) => {
      this.#backend.stopQueue(queueIndex);
    });
  }

  readonly #relayInterrupt = (queueIndex: number): void => {
    const queue = this.#context?.queues[queueIndex];
    if (queue !== undefined) this.#context?.interrupt(queue);
  };

  #serveElsewhere({ features, queues }: ActivationContext, session?: FsSession): void {
    this.#isServed = true;
    const served = queues.map((queue) => queue.served());
    this.#backend.start(features, served, session);
  }

  #lost(): void {
    this.#isLost = true;
    const context = this.#context;
    this.#backend.hearNotifications((queueIndex) => this.#context?.serve(queueIndex));
    context?.queues.forEach((queue, queueIndex) => {
      queue.takeOver();
      context.serve(queueIndex);
    });
  }

  #refuseAll(context: ActivationContext, queue: Queue): boolean {
    const reader = new Reader(context.memory);
    const writer = new Writer(context.memory);
    return serveQueue(queue, context, new Turn(TURN), (): Step => {
      const chain = queue.pop();
      if (chain === null) return "empty";
      this.counters.refused++;
      const { readable, writable } = chain;
      // What wants no answer has no room for one.
      const hasAnswer = writable.byteLength >= FUSE_OUT_HEADER_BYTES && readable.byteLength >= FUSE_OUT_HEADER_BYTES;
      if (hasAnswer) {
        const unique = new Uint8Array(8);
        reader.start(readable);
        reader.skip(FUSE_IN_HEADER_UNIQUE);
        reader.readBytes(unique);
        writer.start(writable);
        writer.writeU32(FUSE_OUT_HEADER_BYTES);
        writer.writeU32(-ENOTCONN >>> 0);
        writer.writeBytes(unique);
      }
      queue.pushUsed(chain.head, hasAnswer ? FUSE_OUT_HEADER_BYTES : 0);
      return "done";
    });
  }
}

/** The readable bytes of the first chain of the queue, which stays there; undefined if there is none. */
function firstOf({ memory }: ActivationContext, queue: Queue): Uint8Array | undefined {
  const chain = queue.pop();
  if (chain === null) return undefined;
  const bytes = new Uint8Array(Math.min(chain.readable.byteLength, MAX_FUSE_INIT_BYTES + 1));
  const reader = new Reader(memory);
  reader.start(chain.readable);
  reader.readBytes(bytes);
  queue.putBack();
  return bytes;
}
