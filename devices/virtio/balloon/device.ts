// Memory balloon: the host asks for pages, the guest gives them, and the host's memory behind them
// is free. virtio 1.2 §5.5. Besides, a guest may report pages that it does not use at the moment, by itself or when asked.
// Left out on purpose: page poison, MUST_TELL_HOST (a page that
// the guest takes back without telling simply gets new memory).
import type { AccessSize } from "../../contracts.js";
import type { StateReader } from "../../state.js";
import { DescriptorChain } from "../chain.js";
import { ConfigSpace } from "../config-space.js";
import { VIRTIO_ID_BALLOON } from "../constants.js";
import { Reader } from "../cursor.js";
import type { ActivationContext, VirtioDevice } from "../device.js";
import type { EventLoop } from "../event-loop.js";
import { featureSet, hasFeature } from "../features.js";
import { LimitedReport } from "../limited-report.js";
import type { Queue } from "../queue.js";
import { serveQueue, Turn, type Step, type TurnLimits } from "../serve-queue.js";
import type { GuestPages } from "./backend.js";
import {
  BALLOON_DEFLATEQ,
  BALLOON_FIRST_OPTIONAL_QUEUE,
  BALLOON_INFLATEQ,
  BALLOON_PAGE_SIZE,
  BALLOON_PFN_SIZE,
  VIRTIO_BALLOON_CONFIG_ACTUAL,
  VIRTIO_BALLOON_CONFIG_FREE_PAGE_HINT_CMD_ID,
  VIRTIO_BALLOON_CONFIG_LENGTH,
  VIRTIO_BALLOON_CONFIG_NUM_PAGES,
  VIRTIO_BALLOON_F_DEFLATE_ON_OOM,
  VIRTIO_BALLOON_F_FREE_PAGE_HINT,
  VIRTIO_BALLOON_F_PAGE_REPORTING,
  VIRTIO_BALLOON_F_STATS_VQ,
} from "./constants.js";
import { PageHinting, type HintingStatus } from "./hinting.js";
import { PageRanges } from "./page-ranges.js";
import { readBalloonState, type BalloonState } from "./state.js";
import { readStatistics, type BalloonStatistics } from "./statistics.js";

const QUEUE_SIZE = 128;
/** Page numbers of one turn, and `ms` after which it ends as well. */
const INFLATE_TURN = { steps: Infinity, amount: 4096, ms: 2 };
/** Page numbers between two looks at the clock: as many as Linux puts into a chain. */
const STEP_PAGES = 256;
/** `bytes` of an answer to a request for free pages. */
const HINT_COMMAND_BYTES = 4;
/** Chains of one turn, in queues that do not count pages. */
const TURN = { steps: 64, ms: 2 };

export interface BalloonDeviceOptions {
  /** Short instance name, such as "balloon0". */
  readonly name: string;
  readonly pages: GuestPages;
  /** `bytes` that the guest is to give up at the start; a multiple of 4096. */
  readonly targetBytes?: number | undefined;
  /** The guest takes pages back by itself before it runs out of memory. */
  readonly deflateOnOom?: boolean | undefined;
  /** The guest reports free pages by itself. */
  readonly pageReporting?: boolean | undefined;
  /** It can be asked for all its free pages. */
  readonly pageHinting?: boolean | undefined;
  /** Called with each report: the driver's first, then those that were asked for; without it there are none. */
  readonly onStatistics?: ((statistics: BalloonStatistics) => void) | undefined;
  /** `ms` after which the driver is asked for a report, again and again; 0: only by `requestStatistics`. */
  readonly statisticsIntervalMs?: number | undefined;
  readonly loop: EventLoop;
  /** Takes a line for the log. */
  readonly report: (line: string) => void;
}

/** What exists between DRIVER_OK and reset. */
interface Session {
  readonly context: ActivationContext;
  readonly inflate: Queue;
  readonly deflate: Queue;
  readonly statistics: Queue | undefined;
  readonly hinting: Queue | undefined;
  readonly reporting: Queue | undefined;
  readonly reader: Reader;
  readonly statisticsReader: Reader;
  readonly ranges: PageRanges;
  /** A chain of page numbers that is longer than a turn's worth. */
  readonly inflating: DescriptorChain;
}

export class BalloonDevice implements VirtioDevice {
  readonly name: string;
  readonly deviceType = VIRTIO_ID_BALLOON;
  readonly offeredFeatures: bigint;
  readonly queueMaxSizes: readonly number[];
  readonly counters = {
    inflatedPages: 0,
    deflatedPages: 0,
    reportedBytes: 0,
    hintedBytes: 0,
    releasedBytes: 0,
    statistics: 0,
    badPages: 0,
    hostErrors: 0,
  };
  readonly #pages: GuestPages;
  readonly #config = new ConfigSpace(VIRTIO_BALLOON_CONFIG_LENGTH);
  readonly #onStatistics: ((statistics: BalloonStatistics) => void) | undefined;
  readonly #loop: EventLoop;
  readonly #report: LimitedReport;
  readonly #hinting = new PageHinting();
  /** A restored driver has not been told that its pages are its own again. */
  #owesHintsDone = false;
  #intervalMs: number;
  #cancelInterval: (() => void) | undefined;
  /** Pages that the driver says it has given up. */
  #actual = 0;
  /** The head of `inflating` has not been given back yet. */
  #isInflating = false;
  /** Head of the buffer that the driver will fill with statistics when it gets it back. */
  #statisticsHead: number | undefined;
  #isQuiet = false;
  #session: Session | undefined;

  constructor(options: BalloonDeviceOptions) {
    this.name = options.name;
    this.#pages = options.pages;
    this.#onStatistics = options.onStatistics;
    this.#loop = options.loop;
    this.#intervalMs = options.statisticsIntervalMs ?? 0;
    this.#report = new LimitedReport(options.loop, options.report);
    const optional = [
      ...(options.onStatistics === undefined ? [] : [VIRTIO_BALLOON_F_STATS_VQ]),
      ...(options.pageHinting === true ? [VIRTIO_BALLOON_F_FREE_PAGE_HINT] : []),
      ...(options.pageReporting === true ? [VIRTIO_BALLOON_F_PAGE_REPORTING] : []),
    ];
    const deflateOnOom = options.deflateOnOom === true ? [VIRTIO_BALLOON_F_DEFLATE_ON_OOM] : [];
    this.offeredFeatures = featureSet(...optional, ...deflateOnOom);
    this.queueMaxSizes = [QUEUE_SIZE, QUEUE_SIZE, ...optional.map(() => QUEUE_SIZE)];
    this.#setTarget(options.targetBytes ?? 0);
  }

  /** `bytes` that the guest has given up, as it says. */
  get actualBytes(): number {
    return this.#actual * BALLOON_PAGE_SIZE;
  }

  /** `bytes` that it is asked to give up. */
  get targetBytes(): number {
    return this.#config.read(VIRTIO_BALLOON_CONFIG_NUM_PAGES, 4) * BALLOON_PAGE_SIZE;
  }

  /** Asks the guest to give up so many bytes in all, more or less than before. */
  setTarget(bytes: number): void {
    this.#setTarget(bytes);
    this.#session?.context.configChanged();
  }

  /** Asks for a report; false if the guest is not there, cannot, or has not answered the last time. */
  requestStatistics(): boolean {
    const session = this.#isQuiet ? undefined : this.#session;
    const head = this.#statisticsHead;
    if (session?.statistics === undefined || session.statistics.isStopped || head === undefined) return false;
    this.#statisticsHead = undefined;
    session.statistics.pushUsed(head, 0);
    if (session.statistics.publishUsed()) session.context.interrupt(session.statistics);
    return true;
  }

  /** How often the driver is asked by itself, from now on. */
  setStatisticsInterval(intervalMs: number): void {
    this.#intervalMs = intervalMs;
    this.#askLater();
  }

  /**
   * Asks for all free pages: the driver keeps them until the end. `endsItself`: that comes when it has handed in the last
   * one. Does nothing for a driver that cannot.
   */
  startHinting(endsItself: boolean): void {
    if (this.#session?.hinting !== undefined) this.#tellHinting(this.#hinting.begin(endsItself));
  }

  /** The driver may use all its pages again. */
  stopHinting(): void {
    if (this.#session?.hinting !== undefined) this.#tellHinting(this.#hinting.end());
  }

  get hintingStatus(): HintingStatus {
    return this.#hinting.status;
  }

  #tellHinting(command: number): void {
    this.#config.setU32(VIRTIO_BALLOON_CONFIG_FREE_PAGE_HINT_CMD_ID, command);
    this.#session?.context.configChanged();
  }

  /** A guest that is paused is not asked, but the next time. */
  #askLater(): void {
    this.#cancelInterval?.();
    this.#cancelInterval = undefined;
    if (this.#session?.statistics === undefined || this.#intervalMs === 0) return;
    this.#cancelInterval = this.#loop.after(this.#intervalMs, () => {
      this.requestStatistics();
      this.#askLater();
    });
  }

  readConfig(offset: number, size: AccessSize): number {
    return this.#config.read(offset, size);
  }

  writeConfig(offset: number, size: AccessSize, value: number): void {
    if (offset !== VIRTIO_BALLOON_CONFIG_ACTUAL || size !== 4) return;
    this.#setActual(value);
  }

  activate(context: ActivationContext): void {
    const { memory, features, queues } = context;
    const inflate = queues[BALLOON_INFLATEQ];
    const deflate = queues[BALLOON_DEFLATEQ];
    if (inflate === undefined || deflate === undefined) return;
    let next = BALLOON_FIRST_OPTIONAL_QUEUE;
    const optional = (feature: number): Queue | undefined =>
      hasFeature(features, feature) ? queues[next++] : undefined;
    this.#session = {
      context,
      inflate,
      deflate,
      statistics: optional(VIRTIO_BALLOON_F_STATS_VQ),
      hinting: optional(VIRTIO_BALLOON_F_FREE_PAGE_HINT),
      reporting: optional(VIRTIO_BALLOON_F_PAGE_REPORTING),
      reader: new Reader(memory),
      statisticsReader: new Reader(memory),
      ranges: new PageRanges(memory, this.#pages, this.counters, this.#onError),
      inflating: new DescriptorChain(QUEUE_SIZE),
    };
    // Linux hands the first buffer in, and says so, before DRIVER_OK, when nobody may look yet.
    const { statistics } = this.#session;
    if (statistics !== undefined) context.serve(queues.indexOf(statistics));
    this.#askLater();
    if (this.#owesHintsDone) this.stopHinting();
    this.#owesHintsDone = false;
  }

  /** Page numbers that were seen before are seen again, which does no harm: the chain is still the device's. */
  heldChains(queueIndex: number): number {
    const session = this.#session;
    const queue = session?.context.queues[queueIndex];
    if (session === undefined || queue === undefined) return 0;
    if (queue === session.inflate) return this.#isInflating ? 1 : 0;
    return queue === session.statistics && this.#statisticsHead !== undefined ? 1 : 0;
  }

  /** Nobody asks a guest that does not run. */
  quiesce(): void {
    this.#isQuiet = true;
  }

  unquiesce(): void {
    this.#isQuiet = false;
  }

  save(): BalloonState {
    return {
      targetPages: this.#config.read(VIRTIO_BALLOON_CONFIG_NUM_PAGES, 4),
      actualPages: this.#actual,
    };
  }

  restore(state: StateReader): void {
    const { targetPages, actualPages } = readBalloonState(state);
    this.#config.setU32(VIRTIO_BALLOON_CONFIG_NUM_PAGES, targetPages);
    this.#setActual(actualPages);
    // Whatever it was asked for: nobody here waits for it.
    this.#owesHintsDone = true;
  }

  /** The pages are the guest's again: a new driver begins with an empty balloon. */
  reset(): void {
    this.#session = undefined;
    this.#cancelInterval?.();
    this.#cancelInterval = undefined;
    this.#hinting.reset();
    this.#config.setU32(VIRTIO_BALLOON_CONFIG_FREE_PAGE_HINT_CMD_ID, 0);
    this.#isInflating = false;
    this.#statisticsHead = undefined;
    this.#setActual(0);
  }

  onAvailable(queueIndex: number): boolean {
    const session = this.#session;
    const queue = session?.context.queues[queueIndex];
    if (session === undefined || queue === undefined) return false;
    if (queue === session.inflate) return this.#serve(session, queue, INFLATE_TURN, this.#inflateSome);
    if (queue === session.deflate) return this.#serve(session, queue, TURN, this.#deflateOne);
    if (queue === session.statistics) return this.#serve(session, queue, TURN, this.#takeStatistics);
    if (queue === session.hinting) return this.#serve(session, queue, TURN, this.#takeHint);
    if (queue === session.reporting) return this.#serve(session, queue, TURN, this.#releaseReported);
    return false;
  }

  #setActual(pages: number): void {
    this.#actual = pages;
    this.#config.setU32(VIRTIO_BALLOON_CONFIG_ACTUAL, pages);
  }

  #setTarget(bytes: number): void {
    const pages = bytes / BALLOON_PAGE_SIZE;
    if (!Number.isInteger(pages) || pages < 0 || pages >= 2 ** 32) {
      throw new RangeError(`A balloon of ${String(bytes)} bytes is not a number of pages of 4096`);
    }
    this.#config.setU32(VIRTIO_BALLOON_CONFIG_NUM_PAGES, pages);
  }

  #serve(session: Session, queue: Queue, limits: TurnLimits, step: (session: Session, turn: Turn) => Step): boolean {
    const turn = new Turn(limits, () => this.#loop.now());
    return serveQueue(queue, session.context, turn, () => step(session, turn));
  }

  /** Some page numbers of one chain; each is spent, and a chain without any counts as one. */
  readonly #inflateSome = ({ inflate: queue, inflating, reader, ranges }: Session, turn: Turn): Step => {
    if (!this.#isInflating) {
      if (queue.pop(inflating) === null) return "empty";
      reader.start(inflating.readable);
      this.#isInflating = true;
    }
    const count = Math.min(Math.floor(reader.remaining / BALLOON_PFN_SIZE), turn.amount, STEP_PAGES);
    for (let index = 0; index < count; index++) ranges.add(reader.readU32());
    ranges.flush();
    this.counters.inflatedPages += count;
    if (reader.remaining < BALLOON_PFN_SIZE) {
      this.#isInflating = false;
      queue.pushUsed(inflating.head, 0);
    }
    turn.spend(Math.max(1, count));
    return "done";
  };

  /** The guest uses these pages again: they get memory as it touches them. */
  readonly #deflateOne = ({ deflate: queue }: Session): Step => {
    const chain = queue.pop();
    if (chain === null) return "empty";
    this.counters.deflatedPages += Math.floor(chain.readable.byteLength / BALLOON_PFN_SIZE);
    queue.pushUsed(chain.head, 0);
    return "done";
  };

  /** The first buffer comes by itself, the others as answers; it is kept until the next request. */
  readonly #takeStatistics = ({ statistics: queue, statisticsReader: reader }: Session): Step => {
    const chain = queue?.pop() ?? null;
    if (queue === undefined || chain === null) return "empty";
    // A driver that hands in two at once has the older one back.
    if (this.#statisticsHead !== undefined) queue.pushUsed(this.#statisticsHead, 0);
    this.#statisticsHead = chain.head;
    reader.start(chain.readable);
    this.counters.statistics++;
    this.#onStatistics?.(readStatistics(reader));
    return "done";
  };

  /** An answer, which is a number, or free pages. */
  readonly #takeHint = ({ hinting: queue, statisticsReader: reader, ranges }: Session): Step => {
    const chain = queue?.pop() ?? null;
    if (queue === undefined || chain === null) return "empty";
    if (chain.readable.byteLength >= HINT_COMMAND_BYTES) {
      reader.start(chain.readable);
      if (this.#hinting.answer(reader.readU32())) this.stopHinting();
    } else if (this.#hinting.isAnswered) {
      // After the end, and before an answer, they may be in use.
      this.counters.hintedBytes += releaseWholePages(chain, ranges);
    }
    queue.pushUsed(chain.head, 0);
    return "done";
  };

  /** Free page reporting: the buffers themselves are the free pages (§5.5.6.7). */
  readonly #releaseReported = ({ reporting: queue, ranges }: Session): Step => {
    const chain = queue?.pop() ?? null;
    if (queue === undefined || chain === null) return "empty";
    this.counters.reportedBytes += releaseWholePages(chain, ranges);
    queue.pushUsed(chain.head, 0);
    return "done";
  };

  readonly #onError = (error: number): void => {
    this.#report.line(`${this.name}: Pages cannot be given back: ${this.#pages.explain(error)}`);
  };
}

/** What a chain's buffers hold of whole pages is given back: what shares a page with them is in use. Its `bytes`. */
function releaseWholePages({ writable }: DescriptorChain, ranges: PageRanges): number {
  const { gpas, lengths, count } = writable;
  let bytes = 0;
  for (let index = 0; index < count; index++) {
    const gpa = gpas[index] ?? 0;
    const start = Math.ceil(gpa / BALLOON_PAGE_SIZE) * BALLOON_PAGE_SIZE;
    const end = Math.floor((gpa + (lengths[index] ?? 0)) / BALLOON_PAGE_SIZE) * BALLOON_PAGE_SIZE;
    if (end <= start) continue;
    ranges.release(start, end - start);
    bytes += end - start;
  }
  return bytes;
}
