// The front end of vhost-user over a socket: tells the process at the other end where a guest's queues are, and waits for
// it only where it answers with a number. Whoever does not answer in time is given up.
import type { ServedQueue } from "../../../devices/virtio/queue.js";
import type { MappedGuestMemory } from "../../memory/guest-memory.js";
import { MessageSender, receiveAll } from "../../sys/messages.js";
import {
  isReplyTo,
  memoryMessage,
  ringAddressesMessage,
  ringEventMessage,
  ringStateMessage,
  u64Message,
  VHOST_USER_F_PROTOCOL_FEATURES,
  VHOST_USER_GET_FEATURES,
  VHOST_USER_GET_PROTOCOL_FEATURES,
  VHOST_USER_GET_VRING_BASE,
  VHOST_USER_HEADER_BYTES,
  VHOST_USER_PROTOCOL_F_MQ,
  VHOST_USER_SET_FEATURES,
  VHOST_USER_SET_OWNER,
  VHOST_USER_SET_PROTOCOL_FEATURES,
  VHOST_USER_SET_VRING_BASE,
  VHOST_USER_SET_VRING_CALL,
  VHOST_USER_SET_VRING_ENABLE,
  VHOST_USER_SET_VRING_KICK,
  VHOST_USER_SET_VRING_NUM,
  vhostMessage,
  type VhostMemoryRegion,
  type VhostRingAddresses,
} from "./vhost-user-messages.js";

/** Descriptors through which a queue's two sides wake each other. */
export interface QueueEvents {
  readonly kickFd: number;
  readonly callFd: number;
}

export interface Ring extends VhostRingAddresses {
  readonly size: number;
  readonly nextAvailable: number;
}

export class VhostUser {
  readonly #socket: number;
  readonly #sender = new MessageSender();

  /** Over a connected socket, which stays the caller's. */
  constructor(socket: number) {
    this.#socket = socket;
  }

  /** What the back end offers; undefined if it does not answer by `deadlineMs` of performance.now(). */
  begin(deadlineMs: number): bigint | undefined {
    this.#send(vhostMessage(VHOST_USER_SET_OWNER));
    const features = this.#ask(vhostMessage(VHOST_USER_GET_FEATURES), VHOST_USER_GET_FEATURES, deadlineMs);
    if (features === undefined || (features & VHOST_USER_F_PROTOCOL_FEATURES) === 0n) return features;
    const request = VHOST_USER_GET_PROTOCOL_FEATURES;
    const protocol = this.#ask(vhostMessage(request), request, deadlineMs);
    if (protocol === undefined) return undefined;
    this.#send(u64Message(VHOST_USER_SET_PROTOCOL_FEATURES, protocol & VHOST_USER_PROTOCOL_F_MQ));
    return features;
  }

  /** The guest's memory, which must be shared, and a piece that is the monitor's. */
  setMemory(memory: MappedGuestMemory, own: { readonly fd: number; readonly region: VhostMemoryRegion }): void {
    const { sharedFd, hostAddress, regions } = memory;
    if (sharedFd === undefined) throw new Error("Guest memory that no other process can have");
    const table = regions.map(({ gpa, size, hva }) => ({ gpa, size, hva, offset: hva - hostAddress }));
    this.#send(memoryMessage([...table, own.region]), [...table.map(() => sharedFd), own.fd]);
  }

  /** What the driver has chosen. */
  setFeatures(features: bigint): void {
    this.#send(u64Message(VHOST_USER_SET_FEATURES, features | VHOST_USER_F_PROTOCOL_FEATURES));
  }

  /** The queue is served from now on. The transport has checked that it lies in RAM. */
  startQueue(index: number, queue: ServedQueue, events: QueueEvents, memory: MappedGuestMemory): void {
    const { size, descriptorGpa, availableGpa, usedGpa, nextAvailable } = queue;
    // Throws for what is not RAM; the lengths have been checked with the ring's size.
    const descriptorHva = memory.hostAddressOf(descriptorGpa, 1);
    const availableHva = memory.hostAddressOf(availableGpa, 1);
    const usedHva = memory.hostAddressOf(usedGpa, 1);
    this.startRing(index, { size, nextAvailable, descriptorHva, availableHva, usedHva }, events);
  }

  /** The same for a ring anywhere in the memory that the back end has. */
  startRing(index: number, ring: Ring, events: QueueEvents): void {
    this.#send(ringStateMessage(VHOST_USER_SET_VRING_NUM, index, ring.size));
    this.#send(ringStateMessage(VHOST_USER_SET_VRING_BASE, index, ring.nextAvailable));
    this.#send(ringAddressesMessage(index, ring));
    this.setCall(index, events.callFd);
    this.#send(ringEventMessage(VHOST_USER_SET_VRING_KICK, index, true), [events.kickFd]);
    this.#send(ringStateMessage(VHOST_USER_SET_VRING_ENABLE, index, 1));
  }

  /** Another eventfd for used buffers. */
  setCall(index: number, callFd: number): void {
    this.#send(ringEventMessage(VHOST_USER_SET_VRING_CALL, index, true), [callFd]);
  }

  /** Everything that it was told has been done; false if it does not say so by the deadline. */
  sync(deadlineMs: number): boolean {
    return this.#ask(vhostMessage(VHOST_USER_GET_FEATURES), VHOST_USER_GET_FEATURES, deadlineMs) !== undefined;
  }

  /** False if the back end has not said by the deadline that it has left the queue. */
  stopQueue(index: number, deadlineMs: number): boolean {
    const request = VHOST_USER_GET_VRING_BASE;
    return this.#ask(ringStateMessage(request, index, 0), request, deadlineMs) !== undefined;
  }

  close(): void {
    this.#sender.close();
  }

  #send(message: Uint8Array, descriptors: readonly number[] = []): void {
    this.#sender.send(this.#socket, message, descriptors);
  }

  /** All that is answered is answered with 8 bytes. */
  #ask(message: Uint8Array, request: number, deadlineMs: number): bigint | undefined {
    this.#send(message);
    const reply = new Uint8Array(VHOST_USER_HEADER_BYTES + 8);
    if (!receiveAll(this.#socket, reply, deadlineMs)) return undefined;
    const view = new DataView(reply.buffer);
    return isReplyTo(request, 8, view) ? view.getBigUint64(VHOST_USER_HEADER_BYTES, true) : undefined;
  }
}
