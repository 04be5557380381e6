// The host side of a file system device: a virtiofsd that serves its queues. The guest's notifications reach it, and its
// interrupts the guest, through descriptors that KVM has, too: nothing of a request passes through this process.
import { readFileSync } from "node:fs";
import { FS_REQUEST_QUEUE } from "../../../devices/virtio/fs/constants.js";
import type { FsBackend, FsSession } from "../../../devices/virtio/fs/backend.js";
import type { ServedQueue } from "../../../devices/virtio/queue.js";
import { SnapshotError } from "../../errors.js";
import type { MappedGuestMemory } from "../../memory/guest-memory.js";
import { closeDescriptor } from "../../sys/descriptors.js";
import { drainEventfd, eventfd, signalEventfd } from "../../sys/events.js";
import { hasInput } from "../../sys/messages.js";
import type { DirectEvents } from "../device-host.js";
import type { Guard } from "../guard.js";
import { decodeJournal, encodeEntry, encodeJournal, isAsBefore, journalOf } from "./fuse-journal.js";
import { ReadableWatch } from "./readable-watch.js";
import { SessionPage } from "./session-page.js";
import { UsedNotifications } from "./used-notification.js";
import { endVirtiofsd, readWords, type Virtiofsd } from "./virtiofsd.js";

/** Queues of the device. */
const QUEUES = 2;
/** The longest wait for an answer of the server, `ms`: it does at once what it is told, unless it is stopped or broken. */
const ANSWER_LIMIT_MS = 1000;
const NO_ANSWER = "virtiofsd does not answer, and is ended";

export interface SharedFolderServices {
  readonly memory: MappedGuestMemory;
  readonly events: DirectEvents;
  readonly guard: Guard;
  /** Takes the reason why the folder is gone. */
  readonly ended: (why: string) => void;
}

export class SharedFolder implements FsBackend {
  onLost: (() => void) | undefined;
  readonly #server: Virtiofsd;
  readonly #services: SharedFolderServices;
  readonly #kickFds: readonly number[];
  readonly #calls: UsedNotifications;
  readonly #serves = new Array<boolean>(QUEUES).fill(false);
  readonly #endWatch: ReadableWatch;
  readonly #wordsWatch: ReadableWatch;
  readonly #kickWatches: ReadableWatch[] = [];
  readonly #page = new SessionPage();
  #isWired = false;
  #state: "alive" | "lost" | "closed" = "alive";
  #lastWords = "";

  constructor(server: Virtiofsd, services: SharedFolderServices) {
    this.#server = server;
    this.#services = services;
    const { guard } = services;
    this.#kickFds = Array.from({ length: QUEUES }, () => eventfd());
    this.#calls = new UsedNotifications(QUEUES, guard);
    this.#endWatch = new ReadableWatch(server.socket, guard);
    this.#wordsWatch = new ReadableWatch(server.wordsFd, guard);
    this.#endWatch.start(() => {
      // It says nothing unasked.
      if (hasInput(server.socket)) this.#lose("virtiofsd has ended");
    });
    this.#wordsWatch.start(() => {
      this.#hearWords();
    });
    this.#ask(() => {
      server.vhost.setMemory(services.memory, this.#page);
    });
  }

  start(features: bigint, queues: readonly (ServedQueue | undefined)[], session?: FsSession): void {
    this.#ask(() => {
      this.#wire();
      const { vhost } = this.#server;
      vhost.setFeatures(features);
      if (session !== undefined && !this.#takeUp(session)) {
        this.#lose("virtiofsd does not take up what the guest has begun");
        if (session.journal.length > 0) {
          throw new SnapshotError("A shared folder is not what it was when the guest was saved");
        }
        return;
      }
      queues.forEach((queue, index) => {
        const kickFd = this.#kickFds[index];
        if (queue === undefined || kickFd === undefined) return;
        this.#serves[index] = true;
        vhost.startQueue(index, queue, { kickFd, callFd: this.#calls.fd(index) }, this.#services.memory);
      });
    });
  }

  kick(queueIndex: number): void {
    const fd = this.#kickFds[queueIndex];
    if (fd !== undefined && this.#state === "alive") signalEventfd(fd);
  }

  stopQueue(queueIndex: number): void {
    if (this.#serves[queueIndex] !== true) return;
    this.#serves[queueIndex] = false;
    this.#ask(() => {
      if (this.#server.vhost.stopQueue(queueIndex, performance.now() + ANSWER_LIMIT_MS)) return;
      // It may still write to what the guest uses for something else now.
      this.#lose(NO_ANSWER);
    });
  }

  journal(): Uint8Array | undefined {
    const { journalFd, folder } = this.#server;
    if (journalFd === undefined || this.#state !== "alive") return undefined;
    const entries = journalOf(readFileSync(`/proc/self/fd/${String(journalFd)}`, "latin1"), folder);
    return entries === undefined ? undefined : encodeJournal(entries);
  }

  relay(used: ((queueIndex: number) => void) | undefined): void {
    if (this.#state !== "alive" || !this.#calls.relay(used)) return;
    this.#ask(() => {
      const { vhost } = this.#server;
      this.#serves.forEach((isServed, index) => {
        if (isServed) vhost.setCall(index, this.#calls.fd(index));
      });
      const isOver = used === undefined || !this.#serves.includes(true);
      if (!isOver && !vhost.sync(performance.now() + ANSWER_LIMIT_MS)) this.#lose(NO_ANSWER);
    });
  }

  hearNotifications(notified: (queueIndex: number) => void): void {
    this.#kickFds.forEach((fd, queueIndex) => {
      const watch = new ReadableWatch(fd, this.#services.guard);
      watch.start(() => {
        drainEventfd(fd);
        notified(queueIndex);
      });
      this.#kickWatches.push(watch);
    });
  }

  close(): void {
    if (this.#state === "closed") return;
    if (this.#state === "alive") this.#endServer();
    this.#state = "closed";
    for (const watch of this.#kickWatches) watch.close();
    this.#calls.close();
    for (const fd of this.#kickFds) closeDescriptor(fd);
    this.#page.close();
  }

  /** The server answers as the one before it. */
  #takeUp({ init, journal }: FsSession): boolean {
    const entries = decodeJournal(journal);
    const asked = [undefined, ...(entries ?? [])];
    return (
      entries !== undefined &&
      this.#page.ask(this.#server.vhost, FS_REQUEST_QUEUE, performance.now() + ANSWER_LIMIT_MS, asked.length, {
        request: (at) => (asked[at] === undefined ? init : encodeEntry(asked[at])),
        isRight: (at, answer) => isAsBefore(asked[at], answer),
      })
    );
  }

  /** Once: the descriptors stay the same over resets. */
  #wire(): void {
    if (this.#isWired) return;
    this.#isWired = true;
    const { events } = this.#services;
    this.#kickFds.forEach((fd, queueIndex) => {
      events.connectKick(queueIndex, fd);
    });
    this.#calls.interruptFds.forEach((fd, queueIndex) => {
      events.connectInterrupt(queueIndex, fd);
    });
  }

  /** A server that takes no message has gone, or is as good as that. */
  #ask(task: () => void): void {
    if (this.#state !== "alive") return;
    try {
      task();
    } catch (error) {
      if ((error as { code?: string }).code !== "ERR_SYSTEM_CALL") throw error;
      this.#lose("virtiofsd has ended");
    }
  }

  #lose(why: string): void {
    if (this.#state !== "alive") return;
    this.#hearWords();
    this.#state = "lost";
    this.#endServer();
    this.#services.ended(this.#lastWords === "" ? why : `${why}: ${this.#lastWords}`);
    this.onLost?.();
  }

  #hearWords(): void {
    const words = readWords(this.#server.wordsFd);
    if (words === "") this.#wordsWatch.stop();
    const last = words.trim().split("\n").at(-1);
    if (last !== undefined && last !== "") this.#lastWords = last;
  }

  #endServer(): void {
    for (const watch of [this.#endWatch, this.#wordsWatch]) watch.close();
    endVirtiofsd(this.#server);
  }
}
