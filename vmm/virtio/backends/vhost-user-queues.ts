// Queues that a process serves by vhost-user: starts and stops it at them, and gives it up when it ends, says nothing in time, or
// answers nonsense. Nothing of a request passes through this process.
import type { ServedQueue } from "../../../devices/virtio/queue.js";
import type { MappedGuestMemory } from "../../memory/guest-memory.js";
import { hasInput } from "../../sys/messages.js";
import { DirectQueues, type DirectServices } from "./direct-queues.js";
import { ReadableWatch } from "./readable-watch.js";
import { endVhostUser, readWords, type VhostUserProcess } from "./vhost-user-process.js";
import type { QueueEvents, Ring, VhostUser } from "./vhost-user.js";
import type { VhostMemoryRegion } from "./vhost-user-messages.js";

/** The longest wait for an answer, `ms`: it does at once what it is told, unless it is stopped or broken. */
const ANSWER_LIMIT_MS = 1000;

export interface OwnRing {
  readonly ring: Ring;
  readonly events: QueueEvents;
}

export interface VhostUserServices extends DirectServices {
  readonly memory: MappedGuestMemory;
  /** Takes the reason why nobody serves the queues any more. */
  readonly ended: (why: string) => void;
}

export class VhostUserQueues {
  readonly #server: VhostUserProcess;
  readonly #endServer: () => void;
  readonly #services: VhostUserServices;
  readonly #direct: DirectQueues;
  readonly #serves: boolean[];
  readonly #endWatch: ReadableWatch;
  readonly #wordsWatch: ReadableWatch;
  #state: "alive" | "lost" | "closed" = "alive";
  #lastWords = "";

  /**
   * `own`: memory besides the guest's that the server has, too. `endServer`: closes and ends all of it, if there is more than
   * of any server.
   */
  constructor(
    server: VhostUserProcess,
    queues: number,
    services: VhostUserServices,
    own: { readonly fd: number; readonly region: VhostMemoryRegion },
    endServer = (): void => endVhostUser(server),
  ) {
    this.#server = server;
    this.#endServer = endServer;
    this.#services = services;
    this.#direct = new DirectQueues(queues, services);
    this.#serves = new Array<boolean>(queues).fill(false);
    this.#endWatch = new ReadableWatch(server.socket, services.guard);
    this.#wordsWatch = new ReadableWatch(server.wordsFd, services.guard);
    this.#endWatch.start(() => {
      // It says nothing unasked.
      if (hasInput(server.socket)) this.lose(`${server.name} has ended`);
    });
    this.#wordsWatch.start(() => {
      this.#hearWords();
    });
    this.ask((vhost) => {
      vhost.setMemory(services.memory, own);
    });
  }

  get isAlive(): boolean {
    return this.#state === "alive";
  }

  get isClosed(): boolean {
    return this.#state === "closed";
  }

  /** `performance.now()` at which an answer that is asked for now is late. */
  deadline(): number {
    return performance.now() + ANSWER_LIMIT_MS;
  }

  /**
   * What was negotiated, and the queues, undefined for one that the driver has not set up. `before`: what comes between the
   * two; false if nothing more is to be done.
   */
  start(features: bigint, queues: readonly (ServedQueue | undefined)[], before: () => boolean = () => true): void {
    this.ask((vhost) => {
      this.#direct.wire();
      this.#direct.unhear();
      vhost.setFeatures(features);
      if (!before()) return;
      queues.forEach((queue, index) => {
        if (queue === undefined) return;
        this.#serves[index] = true;
        const events = { kickFd: this.#direct.kickFd(index), callFd: this.#direct.calls.fd(index) };
        vhost.startQueue(index, queue, events, this.#services.memory);
      });
    });
  }

  /** There may be chains in the queue. */
  kick(queueIndex: number): void {
    if (this.isAlive) this.#direct.kick(queueIndex);
  }

  /** When this returns, nothing of the queue and its chains is touched any more. Nothing if it is not served. */
  stopQueue(queueIndex: number): void {
    if (this.#serves[queueIndex] !== true) return;
    this.#serves[queueIndex] = false;
    this.#leave(queueIndex);
  }

  stopAll(): void {
    this.#serves.forEach((_, queueIndex) => {
      this.stopQueue(queueIndex);
    });
  }

  /** It serves rings that are not the guest's, one a queue, in the place of those. */
  startOwn(features: bigint, rings: readonly OwnRing[]): void {
    this.ask((vhost) => {
      vhost.setFeatures(features);
      rings.forEach(({ ring, events }, index) => {
        vhost.startRing(index, ring, events);
      });
    });
  }

  /** It has left these rings when this returns. */
  stopOwn(): void {
    this.#serves.forEach((_, queueIndex) => {
      this.#leave(queueIndex);
    });
  }

  /** As DirectQueues.hear. */
  hear(notified: (queueIndex: number) => void): void {
    this.#direct.hear(notified);
  }

  /** Used buffers are told to `used` from now on, or to the driver itself again. Nothing of before is still on its way. */
  relay(used: ((queueIndex: number) => void) | undefined): void {
    const { calls } = this.#direct;
    if (!this.isAlive || !calls.relay(used)) return;
    this.ask((vhost) => {
      this.#serves.forEach((isServed, index) => {
        if (isServed) vhost.setCall(index, calls.fd(index));
      });
      const isOver = used === undefined || !this.#serves.includes(true);
      if (!isOver && !vhost.sync(this.deadline())) this.lose(this.#silence());
    });
  }

  /** A server that takes no message has gone, or is as good as that. */
  ask(task: (vhost: VhostUser) => void): void {
    if (!this.isAlive) return;
    try {
      task(this.#server.vhost);
    } catch (error) {
      if ((error as { code?: string }).code !== "ERR_SYSTEM_CALL") throw error;
      this.lose(`${this.#server.name} has ended`);
    }
  }

  /** Ends the server. */
  lose(why: string): void {
    if (!this.isAlive) return;
    this.#hearWords();
    this.#state = "lost";
    this.#close();
    this.#services.ended(this.#lastWords === "" ? why : `${why}: ${this.#lastWords}`);
  }

  close(): void {
    if (this.isClosed) return;
    if (this.isAlive) this.#close();
    this.#state = "closed";
    this.#direct.close();
  }

  #leave(queueIndex: number): void {
    this.ask((vhost) => {
      // Without that it may still write to what the guest uses for something else now.
      if (!vhost.stopQueue(queueIndex, this.deadline())) this.lose(this.#silence());
    });
  }

  #silence(): string {
    return `${this.#server.name} does not answer, and is ended`;
  }

  #hearWords(): void {
    const words = readWords(this.#server.wordsFd);
    if (words === "") this.#wordsWatch.stop();
    const last = words
      .split("\n")
      .filter((line) => line.trim() !== "" && !this.#server.noise.test(line))
      .at(-1);
    if (last !== undefined) this.#lastWords = last.trim();
  }

  #close(): void {
    this.#serves.fill(false);
    for (const watch of [this.#endWatch, this.#wordsWatch]) watch.close();
    this.#endServer();
  }
}
