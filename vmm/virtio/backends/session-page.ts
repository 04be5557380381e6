// A request to a server of queues that comes from the monitor, not from the guest: in a ring of a page of its own, which the
// server has beside the guest's memory. For the beginning of a session that a driver has had with another server.
import { closeDescriptor } from "../../sys/descriptors.js";
import { drainEventfd, eventfd, signalEventfd } from "../../sys/events.js";
import { waitForInput } from "../../sys/messages.js";
import { IDX_OFFSET, OwnMemory, VIRTQ_DESC_F_NEXT, VIRTQ_DESC_F_WRITE, writeDescriptor } from "./own-memory.js";
import type { VhostUser } from "./vhost-user.js";

const PAGE_BYTES = 4096;
/** Descriptors of the ring. */
const RING_SIZE = 4;
// Places in the page.
const AVAILABLE = 256;
const USED = 512;
/** Behind the ring of what is available. */
const USED_EVENT = AVAILABLE + 4 + 2 * RING_SIZE;
const REQUEST = 1024;
const ANSWER = 2048;
const ANSWER_BYTES = 512;

/** By the number of each request, from 0 on. */
export interface Conversation {
  /** At most as long as is between REQUEST and ANSWER. */
  request(at: number): Uint8Array;
  isRight(at: number, answer: Uint8Array): boolean;
}

export class SessionPage extends OwnMemory {
  constructor() {
    super("vmlet-session", PAGE_BYTES);
  }

  /**
   * Puts requests into queue `index`, one after the other, which the server does not serve then, and does not afterwards. False if
   * it has not answered all until the deadline, or wrongly, or does not leave the queue.
   */
  ask(vhost: VhostUser, index: number, deadlineMs: number, count: number, conversation: Conversation): boolean {
    const page = this.view();
    const bytes = new Uint8Array(page.buffer);
    bytes.fill(0);
    writeDescriptor(page, 1, { offset: ANSWER, length: ANSWER_BYTES, flags: VIRTQ_DESC_F_WRITE });
    const kickFd = eventfd();
    const callFd = eventfd();
    try {
      const addresses = {
        descriptorHva: this.address,
        availableHva: this.address + AVAILABLE,
        usedHva: this.address + USED,
      };
      vhost.startRing(index, { size: RING_SIZE, nextAvailable: 0, ...addresses }, { kickFd, callFd });
      let asked = 0;
      for (let isRight = true; isRight && asked < count; asked += isRight ? 1 : 0) {
        const request = conversation.request(asked);
        bytes.fill(0, REQUEST);
        bytes.set(request, REQUEST);
        writeDescriptor(page, 0, { offset: REQUEST, length: request.length, flags: VIRTQ_DESC_F_NEXT, next: 1 });
        // Every entry of the ring is 0: the same chain again.
        page.setUint16(AVAILABLE + IDX_OFFSET, asked + 1, true);
        // Each answer is to be told.
        page.setUint16(USED_EVENT, asked, true);
        signalEventfd(kickFd);
        const isAnswered = (): boolean => page.getUint16(USED + IDX_OFFSET, true) === asked + 1;
        while (!isAnswered() && waitForInput(callFd, deadlineMs)) drainEventfd(callFd);
        isRight = isAnswered() && conversation.isRight(asked, bytes.slice(ANSWER, ANSWER + ANSWER_BYTES));
      }
      return vhost.stopQueue(index, deadlineMs) && asked === count;
    } finally {
      closeDescriptor(kickFd);
      closeDescriptor(callFd);
    }
  }
}
