// Block device: features, life cycle, and how its one queue is served. virtio 1.2 §5.2.
// Left out on purpose: secure erase, lifetime, zones, several queues, a cache mode that the
// driver can change.
import type { AccessSize } from "../../contracts.js";
import { StateError, type State, type StateReader } from "../../state.js";
import type { ConfigSpace } from "../config-space.js";
import { VIRTIO_ID_BLOCK } from "../constants.js";
import { Reader, Writer } from "../cursor.js";
import type { ActivationContext, VirtioDevice } from "../device.js";
import type { EventLoop } from "../event-loop.js";
import { featureSet, hasFeature } from "../features.js";
import { LimitedReport } from "../limited-report.js";
import type { Queue } from "../queue.js";
import { serveQueue, Turn, type Step } from "../serve-queue.js";
import { Throttle } from "../throttle.js";
import type { RateLimiterConfig } from "../rate-limiter.js";
import { BACKEND_BUSY, type BlockBackend } from "./backend.js";
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
  VIRTIO_BLK_S_IOERR,
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_T_GET_ID,
  VIRTIO_BLK_T_IN,
} from "./constants.js";
import { BlockExecutor, STATUS_LATER, type BlockCounters } from "./executor.js";
import { BLOCK_LIMITS, BLOCK_QUEUE_SIZE } from "./limits.js";
import { BlockRequest } from "./request.js";
import { SlowRequests, type SlowRequest } from "./slow-requests.js";
import { restoreBlock, saveBlock } from "./state.js";

/** Batches of one turn, and `ms` after which it ends as well: what a slow disk may cost the rest of the machine. */
const TURN = { steps: 32, ms: 2 };
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
    slow: 0,
  } satisfies BlockCounters;
  #backend: BlockBackend;
  #config: ConfigSpace;
  readonly #blockSize: 512 | 4096;
  readonly #id = new Uint8Array(VIRTIO_BLK_ID_BYTES);
  readonly #throttle: Throttle;
  readonly #loop: EventLoop;
  readonly #report: LimitedReport;
  readonly #request = new BlockRequest(BLOCK_QUEUE_SIZE);
  #slow: SlowRequests;
  /** Of disks that have been replaced, as long as they have something in flight. */
  readonly #old = new Set<{ readonly slow: SlowRequests; readonly finished: () => void }>();
  #session: Session | undefined;
  /** The queue is held until one of the slow requests is finished. */
  #isHeld = false;
  /** Requests of an earlier driver are under way: what they write must not come after what this one writes. */
  #isDraining = false;
  /** Whoever waits for the last of the slow requests. */
  #onIdle: (() => void) | undefined;

  constructor(options: BlockDeviceOptions) {
    const { backend, loop } = options;
    this.name = options.name;
    this.offeredFeatures = offeredFeatures(backend.isReadonly, options.cache === "writeback");
    this.#backend = backend;
    this.#blockSize = options.blockSize;
    this.#config = blockConfig(backend.size, options.blockSize);
    new TextEncoder().encodeInto(options.id, this.#id);
    this.#throttle = new Throttle(options.rateLimiter, loop);
    this.#loop = loop;
    this.#report = new LimitedReport(loop, options.report);
    this.#slow = this.#slowRequestsOf(backend);
  }

  readConfig(offset: number, size: AccessSize): number {
    return this.#config.read(offset, size);
  }

  writeConfig(): void {
    // The driver may write no field: the only one that it could comes with VIRTIO_BLK_F_CONFIG_WCE.
  }

  activate(context: ActivationContext): void {
    const { memory } = context;
    const [queue] = context.queues;
    if (queue === undefined) return;
    const executor = this.#executorOf(context);
    this.#session = { context, queue, executor, reader: new Reader(memory), writer: new Writer(memory) };
  }

  /**
   * Another disk in the place of this one, as readable and writable as it: the driver hears of its size. What the old one
   * has begun, it finishes; `finished` comes, in a later turn, when it will not be used any more.
   */
  replaceBackend(backend: BlockBackend, finished: () => void): void {
    const old = { slow: this.#slow, finished };
    this.#old.add(old);
    this.#backend = backend;
    this.#config = blockConfig(backend.size, this.#blockSize);
    this.#slow = this.#slowRequestsOf(backend);
    this.#isHeld = false;
    this.#isDraining = false;
    const session = this.#session;
    if (session !== undefined) {
      this.#session = { ...session, executor: this.#executorOf(session.context) };
      session.context.configChanged();
      // The queue may have been held because too much of the old one was in flight.
      session.context.serve(0);
    }
    this.#loop.defer(() => this.#letOldGo());
  }

  #executorOf({ memory, features }: ActivationContext): BlockExecutor {
    const abilities = {
      canFlush: hasFeature(features, VIRTIO_BLK_F_FLUSH),
      canDiscard: hasFeature(features, VIRTIO_BLK_F_DISCARD),
      canWriteZeroes: hasFeature(features, VIRTIO_BLK_F_WRITE_ZEROES),
    };
    const backend = this.#backend;
    const disk = { backend, abilities, limits: BLOCK_LIMITS, id: this.#id };
    return new BlockExecutor(memory, disk, this.counters, (request, error) =>
      this.#onHostError(backend, request, error),
    );
  }

  /** Their ends come in turns of their own, where a defect is caught. */
  #slowRequestsOf(backend: BlockBackend): SlowRequests {
    const finished = (request: SlowRequest, error: number): void => this.#onFinished(backend, request, error);
    return new SlowRequests(backend, finished, (task) => this.#loop.defer(task));
  }

  #letOldGo(): void {
    for (const old of this.#old) {
      if (!old.slow.isIdle) continue;
      this.#old.delete(old);
      old.finished();
    }
  }

  get #isIdle(): boolean {
    return this.#slow.isIdle && [...this.#old].every(({ slow }) => slow.isIdle);
  }

  /** What other threads do for the disk comes to its end, and is answered. */
  quiesce(): void | Promise<void> {
    if (this.#isIdle) return;
    return new Promise((resolve) => {
      this.#onIdle = resolve;
    });
  }

  flush(): Promise<void> {
    if (this.#backend.isReadonly) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const done = (error: number): void => {
        if (error === 0) resolve();
        else reject(new StateError(this.name, `cannot be saved, a flush has failed: ${this.#backend.explain(error)}`));
      };
      const error = this.#backend.flush();
      if (error === BACKEND_BUSY) this.#backend.flushLater(done);
      else done(error);
    });
  }

  save(): State {
    return saveBlock(this.#backend.size, this.#throttle);
  }

  restore(state: StateReader): void {
    restoreBlock(state, this.#backend.size, this.#throttle);
  }

  /** Buckets that are not given stay as they are. */
  updateRateLimiter(config: RateLimiterConfig): void {
    this.#throttle.update(config);
  }

  reset(): void {
    this.#throttle.cancel();
    this.#session = undefined;
    this.#isHeld = false;
    this.#isDraining = !this.#slow.isIdle;
  }

  onAvailable(_queueIndex: number): boolean {
    const session = this.#session;
    // While the limiter or a slow medium holds the queue, its end will come back here.
    if (session === undefined || this.#isWaiting()) return false;
    const turn = new Turn(TURN, () => this.#loop.now());
    return serveQueue(session.queue, session.context, turn, () => this.#serveBatch(session));
  }

  /** Serves a few requests, and publishes their answers together. */
  #serveBatch(session: Session): Step {
    const result = this.#serveSome(session);
    if (session.queue.publishUsed()) session.context.interrupt(session.queue);
    return result;
  }

  #serveSome(session: Session): Step {
    const request = this.#request;
    const { queue } = session;
    let bytes = 0;
    for (let served = 0; served < BATCH_REQUESTS && bytes < BATCH_BYTES; served++) {
      if (this.#slow.isFull) {
        this.#isHeld = true;
        return "waiting";
      }
      const chain = queue.pop();
      if (chain === null) return "empty";
      request.parse(chain, session.reader, session.writer);
      if (!this.#throttle.admit(transferBytes(request), () => session.context.serve(0))) {
        this.counters.throttled++;
        queue.putBack();
        return "waiting";
      }
      const status = session.executor.execute(request);
      if (status === STATUS_LATER) {
        this.counters.slow++;
        this.#slow.start(
          request,
          chain,
          session.context.memory,
          () => this.#session?.context === session.context && !queue.isStopped,
        );
        continue;
      }
      session.writer.writeU8(status);
      queue.pushUsed(chain.head, usedLength(request.type, chain.writable.byteLength, status));
      bytes += request.data.byteLength;
    }
    return "done";
  }

  /** Answers a request that had to wait, unless its driver is gone. */
  #onFinished(backend: BlockBackend, request: SlowRequest, error: number): void {
    const session = this.#session;
    if (session !== undefined && request.isWanted()) {
      if (error !== 0) {
        this.counters.hostErrors++;
        this.#onHostError(backend, request, error);
      }
      const status = error === 0 ? VIRTIO_BLK_S_OK : VIRTIO_BLK_S_IOERR;
      session.context.memory.writeU8(request.statusGpa, status);
      session.queue.pushUsed(request.head, usedLength(request.type, request.writableBytes, status));
      if (session.queue.publishUsed()) session.context.interrupt(session.queue);
    }
    const hasDrained = this.#isDraining && this.#slow.isIdle;
    if (hasDrained) this.#isDraining = false;
    if (this.#isHeld || hasDrained) {
      this.#isHeld = false;
      this.#session?.context.serve(0);
    }
    if (this.#old.size > 0) this.#letOldGo();
    if (this.#isIdle) this.#onIdle?.();
  }

  #isWaiting(): boolean {
    return this.#throttle.isWaiting() || this.#isHeld || this.#isDraining;
  }

  #onHostError(backend: BlockBackend, { type, sector }: Pick<BlockRequest, "type" | "sector">, error: number): void {
    const what = `Request of type ${String(type)} at sector ${String(sector)}`;
    this.#report.line(`${this.name}: ${what} failed: ${backend.explain(error)}`);
  }
}

function transferBytes(request: BlockRequest): number {
  return request.isTransfer ? request.data.byteLength : 0;
}

function offeredFeatures(isReadonly: boolean, canFlush: boolean): bigint {
  const always = [VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_SEG_MAX, VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_TOPOLOGY];
  const access = isReadonly ? [VIRTIO_BLK_F_RO] : [VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_WRITE_ZEROES];
  return featureSet(...always, ...access, ...(canFlush ? [VIRTIO_BLK_F_FLUSH] : []));
}

/**
 * The used length counts what is filled from the start on (§2.7.8.2): everything if the data is
 * there, or if the status is all that there is; nothing if data is missing before the status.
 */
function usedLength(type: number, writableBytes: number, status: number): number {
  const isFilled = status === VIRTIO_BLK_S_OK && (type === VIRTIO_BLK_T_IN || type === VIRTIO_BLK_T_GET_ID);
  return isFilled || writableBytes === 1 ? writableBytes : 0;
}
