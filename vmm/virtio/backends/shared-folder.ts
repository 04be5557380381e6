// The host side of a file system device: a virtiofsd that serves its queues. The guest's notifications reach it, and its
// interrupts the guest, through descriptors that KVM has, too: nothing of a request passes through this process.
import { readFileSync } from "node:fs";
import { FS_REQUEST_QUEUE } from "../../../devices/virtio/fs/constants.js";
import type { FsBackend, FsSession } from "../../../devices/virtio/fs/backend.js";
import type { ServedQueue } from "../../../devices/virtio/queue.js";
import { SnapshotError } from "../../errors.js";
import { decodeJournal, encodeEntry, encodeJournal, isAsBefore, journalOf } from "./fuse-journal.js";
import { SessionPage } from "./session-page.js";
import { VhostUserQueues, type VhostUserServices } from "./vhost-user-queues.js";
import type { VhostUser } from "./vhost-user.js";
import { endVirtiofsd, type Virtiofsd } from "./virtiofsd.js";

/** Queues of the device. */
const QUEUES = 2;

export class SharedFolder implements FsBackend {
  onLost: (() => void) | undefined;
  readonly #server: Virtiofsd;
  readonly #queues: VhostUserQueues;
  readonly #page = new SessionPage();

  constructor(server: Virtiofsd, services: VhostUserServices) {
    this.#server = server;
    const ended = (why: string): void => {
      services.ended(why);
      this.onLost?.();
    };
    this.#queues = new VhostUserQueues(server, QUEUES, { ...services, ended }, this.#page, () => endVirtiofsd(server));
  }

  start(features: bigint, queues: readonly (ServedQueue | undefined)[], session?: FsSession): void {
    const { vhost } = this.#server;
    this.#queues.start(features, queues, () => {
      if (session === undefined || this.#takeUp(vhost, session)) return true;
      this.#queues.lose("virtiofsd does not take up what the guest has begun");
      if (session.journal.length > 0) {
        throw new SnapshotError("A shared folder is not what it was when the guest was saved");
      }
      return false;
    });
  }

  kick(queueIndex: number): void {
    this.#queues.kick(queueIndex);
  }

  stopQueue(queueIndex: number): void {
    this.#queues.stopQueue(queueIndex);
  }

  journal(): Uint8Array | undefined {
    const { journalFd, folder } = this.#server;
    if (journalFd === undefined || !this.#queues.isAlive) return undefined;
    const entries = journalOf(readFileSync(`/proc/self/fd/${String(journalFd)}`, "latin1"), folder);
    return entries === undefined ? undefined : encodeJournal(entries);
  }

  relay(used: ((queueIndex: number) => void) | undefined): void {
    this.#queues.relay(used);
  }

  hearNotifications(notified: (queueIndex: number) => void): void {
    this.#queues.hear(notified);
  }

  close(): void {
    if (this.#queues.isClosed) return;
    this.#queues.close();
    this.#page.close();
  }

  /** The server answers as the one before it. */
  #takeUp(vhost: VhostUser, { init, journal }: FsSession): boolean {
    const entries = decodeJournal(journal);
    const asked = [undefined, ...(entries ?? [])];
    return (
      entries !== undefined &&
      this.#page.ask(vhost, FS_REQUEST_QUEUE, this.#queues.deadline(), asked.length, {
        request: (at) => (asked[at] === undefined ? init : encodeEntry(asked[at])),
        isRight: (at, answer) => isAsBefore(asked[at], answer),
      })
    );
  }
}
