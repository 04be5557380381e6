// Block device: features, life cycle, and how its one queue is served. virtio 1.2 §5.2.
// Left out on purpose: secure erase, lifetime, zones, several queues, a cache mode that the
// driver can change.
import type { AccessSize } from "../../contracts.js";
import type { DescriptorChain } from "../chain.js";
import type { ConfigSpace } from "../config-space.js";
import { VIRTIO_ID_BLOCK } from "../constants.js";
import { Reader, Writer } from "../cursor.js";
import type { ActivationContext, VirtioDevice } from "../device.js";
import type { EventLoop } from "../event-loop.js";
import { featureSet, hasFeature } from "../features.js";
import { LimitedReport } from "../limited-report.js";
import type { Queue } from "../queue.js";
import { RateLimiter, type RateLimiterConfig } from "../rate-limiter.js";
import type { BlockBackend } from "./backend.js";
import { blockConfig } from "./config.js";
import {
  VIRTIO_BLK_F_BLK_SIZE,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_RO,
  VIRTIO_BLK_F_SEG_MAX,
  VIRTIO_BLK_F_SIZE_MAX,
  VIRTIO_BLK_F_TOPOLOGY,
  VIRTIO_BLK_F_WRITE_ZEROES,
  VIRTIO_BLK_ID_BYTES,
  VIRTIO_BLK_S_OK,
} from "./constants.js";
import { BlockExecutor, type BlockCounters } from "./executor.js";
import { BLOCK_LIMITS, BLOCK_QUEUE_SIZE } from "./limits.js";
import { BlockRequest } from "./request.js";

/** Batches of one turn; the loop then serves others before it comes back. */
const TURN_BATCHES = 32;
/** `ms` after which a turn ends: what a slow disk may cost the rest of the machine. */
const TURN_MS = 2;
/** Answers that are held back to be published with others, which saves the guest interrupts. */
const BATCH_REQUESTS = 8;
/** `bytes` moved after which answers are not held back any longer. */
const BATCH_BYTES = 256 * 1024;

export interface BlockDeviceOptions {
  /** Short instance name, such as "block0". */
  readonly name: string;
  readonly backend: BlockBackend;
  /** What GET_ID answers, up to 20 bytes; in a Linux guest /sys/block/vda/serial. */
  readonly id: string;
  /** `bytes` of a logical block. */
  readonly blockSize: 512 | 4096;
  /** "unsafe": no flush is offered, and a crash of the host may lose what the guest has written. */
  readonly cache: "writeback" | "unsafe";
  readonly rateLimiter?: RateLimiterConfig | undefined;
  readonly loop: EventLoop;
  /** Takes a line for the log. */
  readonly report: (line: string) => void;
}

/** What exists between DRIVER_OK and reset. */
interface Session {
  readonly context: ActivationContext;
  readonly queue: Queue;
  readonly executor: BlockExecutor;
  readonly reader: Reader;
  readonly writer: Writer;
}

export class BlockDevice implements VirtioDevice {
  readonly name: string;
  readonly deviceType = VIRTIO_ID_BLOCK;
  readonly offeredFeatures: bigint;
  readonly queueMaxSizes = [BLOCK_QUEUE_SIZE];
  readonly counters = {
    reads: 0,
    readBytes: 0,
    writes: 0,
    writeBytes: 0,
    flushes: 0,
    discards: 0,
    writeZeroes: 0,
    hostErrors: 0,
    refused: 0,
    throttled: 0,
  } satisfies BlockCounters;
  readonly #backend: BlockBackend;
  readonly #config: ConfigSpace;
  readonly #id = new Uint8Array(VIRTIO_BLK_ID_BYTES);
  readonly #limiter: RateLimiter | undefined;
  readonly #loop: EventLoop;
  readonly #report: LimitedReport;
  readonly #request = new BlockRequest(BLOCK_QUEUE_SIZE);
  #session: Session | undefined;
  /** Takes the timer back for which the rate limiter has the queue wait. */
  #cancelWait: (() => void) | undefined;

  constructor(options: BlockDeviceOptions) {
    const { backend, loop } = options;
    this.name = options.name;
    this.offeredFeatures = offeredFeatures(backend.isReadOnly, options.cache === "writeback");
    this.#backend = backend;
    this.#config = blockConfig(backend.size, options.blockSize);
    new TextEncoder().encodeInto(options.id, this.#id);
    const limiter = new RateLimiter(options.rateLimiter ?? {}, () => loop.now());
    this.#limiter = limiter.isLimiting ? limiter : undefined;
    this.#loop = loop;
    this.#report = new LimitedReport(loop, options.report);
  }

  readConfig(offset: number, size: AccessSize): number {
    return this.#config.read(offset, size);
  }

  writeConfig(): void {
    // No field is the driver's: the only one that could be comes with VIRTIO_BLK_F_CONFIG_WCE.
  }

  activate(context: ActivationContext): void {
    const { memory, features } = context;
    const [queue] = context.queues;
    if (queue === undefined) return;
    const abilities = {
      canFlush: hasFeature(features, VIRTIO_BLK_F_FLUSH),
      canDiscard: hasFeature(features, VIRTIO_BLK_F_DISCARD),
      canWriteZeroes: hasFeature(features, VIRTIO_BLK_F_WRITE_ZEROES),
    };
    const disk = { backend: this.#backend, abilities, limits: BLOCK_LIMITS, id: this.#id };
    const executor = new BlockExecutor(memory, disk, this.counters, this.#onHostError);
    this.#session = { context, queue, executor, reader: new Reader(memory), writer: new Writer(memory) };
  }

  reset(): void {
    this.#cancelWait?.();
    this.#cancelWait = undefined;
    this.#session = undefined;
  }

  onAvailable(_queueIndex: number): boolean {
    const session = this.#session;
    // While the limiter holds the queue, its timer will come back here.
    if (session === undefined || this.#isWaiting()) return false;
    const { queue, context } = session;
    const endMs = this.#loop.now() + TURN_MS;
    for (let batches = 0; batches < TURN_BATCHES; batches++) {
      queue.suppressNotifications();
      const isFull = this.#serveBatch(session);
      if (queue.publishUsed()) context.interrupt();
      if (this.#isWaiting() || (!isFull && !queue.resumeNotifications())) return false;
      if (this.#loop.now() >= endMs) break;
    }
    return true;
  }

  /** Serves a few requests without publishing the answers; false if the queue ran empty. */
  #serveBatch(session: Session): boolean {
    const request = this.#request;
    const { queue } = session;
    let bytes = 0;
    for (let served = 0; served < BATCH_REQUESTS && bytes < BATCH_BYTES; served++) {
      const chain = queue.pop();
      if (chain === null) return false;
      request.parse(chain, session.reader, session.writer);
      const waitMs = this.#limiter?.admit(request.isTransfer ? request.data.byteLength : 0) ?? 0;
      if (waitMs > 0) {
        queue.putBack();
        this.#wait(session.context, waitMs);
        return false;
      }
      const status = session.executor.execute(request);
      session.writer.writeU8(status);
      queue.pushUsed(chain.head, this.#usedLength(chain, status));
      bytes += request.data.byteLength;
    }
    return true;
  }

  /**
   * The used length counts what is filled from the start on (§2.7.8.2): everything if the data is
   * there, or if the status is all that there is; nothing if data is missing before the status.
   */
  #usedLength({ writable }: DescriptorChain, status: number): number {
    const isFilled = status === VIRTIO_BLK_S_OK && this.#request.isToDriver;
    return isFilled || writable.byteLength === 1 ? writable.byteLength : 0;
  }

  #isWaiting(): boolean {
    return this.#cancelWait !== undefined;
  }

  #wait(context: ActivationContext, waitMs: number): void {
    this.counters.throttled++;
    this.#cancelWait = this.#loop.after(waitMs, () => {
      this.#cancelWait = undefined;
      context.serve(0);
    });
  }

  readonly #onHostError = ({ type, sector }: BlockRequest, error: number): void => {
    const what = `Request of type ${String(type)} at sector ${String(sector)}`;
    this.#report.line(`${this.name}: ${what} failed: ${this.#backend.explain(error)}`);
  };
}

function offeredFeatures(isReadOnly: boolean, canFlush: boolean): bigint {
  const always = [VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_TOPOLOGY];
  const access = isReadOnly ? [VIRTIO_BLK_F_RO] : [VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES];
  return featureSet(...always, ...access, ...(canFlush ? [VIRTIO_BLK_F_FLUSH] : []));
}
