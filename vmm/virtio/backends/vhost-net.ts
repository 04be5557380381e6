// The host kernel's vhost-net behind a TAP interface: a kernel thread moves frames between the interface and the rings in
// guest memory. The guest's notifications reach it, and its interrupts the guest, through descriptors that KVM has, too.
// Linux: Documentation/networking/tuntap.rst says nothing of it; linux/vhost.h does.
import { closeSync, constants, openSync, readSync } from "node:fs";
import { featureSet } from "../../../devices/virtio/features.js";
import type { NetMoved, NetVhost } from "../../../devices/virtio/net/vhost.js";
import type { ServedQueue } from "../../../devices/virtio/queue.js";
import { HostError, SystemCallError } from "../../errors.js";
import type { MappedGuestMemory } from "../../memory/guest-memory.js";
import { closeDescriptor } from "../../sys/descriptors.js";
import { drainEventfd, eventfd, signalEventfd } from "../../sys/events.js";
import { ioctl, ioctlStruct } from "../../sys/ioctl-calls.js";
import {
  SIZEOF_VHOST_MEMORY,
  SIZEOF_VHOST_MEMORY_REGION,
  SIZEOF_VHOST_VRING_ADDR,
  VHOST_F_LOG_ALL,
  VHOST_GET_FEATURES,
  VHOST_NET_F_VIRTIO_NET_HDR,
  VHOST_NET_SET_BACKEND,
  VHOST_SET_FEATURES,
  VHOST_SET_MEM_TABLE,
  VHOST_SET_OWNER,
  VHOST_SET_VRING_ADDR,
  VHOST_SET_VRING_BASE,
  VHOST_SET_VRING_CALL,
  VHOST_SET_VRING_KICK,
  VHOST_SET_VRING_NUM,
  vhost_memory,
  vhost_memory_region,
  vhost_vring_addr,
} from "../../sys/vhost-abi.js";
import type { DirectEvents } from "../device-host.js";
import type { Guard } from "../guard.js";
import { ReadableWatch } from "./readable-watch.js";
import type { TapInterface } from "./tap-interface.js";
import { UsedNotifications } from "./used-notification.js";

const VHOST_NET_DEVICE = "/dev/vhost-net";
/** What each interface of this network namespace has moved, a line each. proc(5). */
const INTERFACE_COUNTS = "/proc/self/net/dev";
const COUNTS_PIECE_BYTES = 4096;
/** Queues of the device. */
const QUEUES = 2;
/** In place of a descriptor: no back end. */
const NONE = -1;
/** The header before each frame is the interface's, and pages are followed by nobody while the kernel writes them. */
const NOT_WANTED = featureSet(VHOST_F_LOG_ALL, VHOST_NET_F_VIRTIO_NET_HDR);

/** Throws HostError where the host has none, or it is not for this user. */
export function openVhostNet(): number {
  try {
    const fd = openSync(VHOST_NET_DEVICE, constants.O_RDWR);
    try {
      ioctl(fd, "VHOST_SET_OWNER", VHOST_SET_OWNER);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    return fd;
  } catch (error) {
    const code = error instanceof SystemCallError ? error.errnoName : ((error as NodeJS.ErrnoException).code ?? "");
    const cure =
      code === "EACCES" || code === "EPERM"
        ? `let your user open it, or say vhost=off`
        : "load the kernel's module: modprobe vhost_net; or say vhost=off";
    throw new HostError(`${VHOST_NET_DEVICE} cannot be used (${code})`, { cause: error, cure });
  }
}

export interface VhostNetServices {
  readonly memory: Pick<MappedGuestMemory, "regions" | "hostAddressOf">;
  readonly events: DirectEvents;
  readonly guard: Guard;
}

export class VhostNet implements NetVhost {
  readonly #fd: number;
  readonly #tap: TapInterface;
  readonly #countsFd = openSync(INTERFACE_COUNTS, constants.O_RDONLY);
  readonly #services: VhostNetServices;
  /** What it knows of. */
  readonly #features: bigint;
  readonly #kickFds: readonly number[];
  readonly #kickWatches: readonly ReadableWatch[];
  readonly #calls: UsedNotifications;
  readonly #serves = new Array<boolean>(QUEUES).fill(false);
  #isWired = false;
  #lastMoved: NetMoved = { rxFrames: 0, rxBytes: 0, txFrames: 0, txBytes: 0 };

  /** `fd` is of `openVhostNet`, and closed with it; the interface's stays the caller's. Throws SystemCallError. */
  constructor(fd: number, tap: TapInterface, services: VhostNetServices) {
    this.#fd = fd;
    this.#tap = tap;
    this.#services = services;
    const features = new BigUint64Array(1);
    ioctlStruct(fd, "VHOST_GET_FEATURES", VHOST_GET_FEATURES, features);
    this.#features = (features[0] ?? 0n) & ~NOT_WANTED;
    ioctlStruct(fd, "VHOST_SET_MEM_TABLE", VHOST_SET_MEM_TABLE, memoryTable(services.memory.regions));
    this.#kickFds = Array.from({ length: QUEUES }, () => eventfd());
    this.#kickWatches = this.#kickFds.map((kickFd) => new ReadableWatch(kickFd, services.guard));
    this.#calls = new UsedNotifications(QUEUES, services.guard);
  }

  start(features: bigint, queues: readonly (ServedQueue | undefined)[]): number {
    this.#wire();
    for (const watch of this.#kickWatches) watch.stop();
    try {
      const known = BigUint64Array.of(features & this.#features);
      ioctlStruct(this.#fd, "VHOST_SET_FEATURES", VHOST_SET_FEATURES, known);
      queues.forEach((queue, index) => {
        if (queue !== undefined) this.#prepare(index, queue);
      });
      queues.forEach((queue, index) => {
        if (queue === undefined) return;
        this.#setBackend(index, this.#tap.fd);
        this.#serves[index] = true;
        // What was notified while nobody listened.
        this.kick(index);
      });
      return 0;
    } catch (error) {
      if (!(error instanceof SystemCallError)) throw error;
      for (let index = 0; index < QUEUES; index++) this.stopQueue(index);
      return error.errno;
    }
  }

  moved(): NetMoved {
    const line = this.#countsLine();
    // It has gone: somebody has removed or renamed it.
    if (line === undefined) return this.#lastMoved;
    // An interface receives what a guest sends. Bytes and frames stand before six kinds of trouble.
    const [txBytes = 0, txFrames = 0, ...rest] = line
      .slice(line.indexOf(":") + 1)
      .trim()
      .split(/\s+/)
      .map(Number);
    const [rxBytes = 0, rxFrames = 0] = rest.slice(6);
    this.#lastMoved = { rxFrames, rxBytes, txFrames, txBytes };
    return this.#lastMoved;
  }

  relay(used: ((queueIndex: number) => void) | undefined): void {
    if (!this.#calls.relay(used)) return;
    // Returns when what was being signalled is.
    this.#serves.forEach((isServed, index) => {
      if (isServed) this.#setCall(index);
    });
  }

  kick(queueIndex: number): void {
    const fd = this.#kickFds[queueIndex];
    if (fd !== undefined) signalEventfd(fd);
  }

  stopQueue(queueIndex: number): void {
    if (this.#serves[queueIndex] !== true) return;
    this.#serves[queueIndex] = false;
    // Returns when the kernel's thread has left the queue.
    this.#setBackend(queueIndex, NONE);
  }

  stop(notified: (queueIndex: number) => void): void {
    for (let index = 0; index < QUEUES; index++) this.stopQueue(index);
    this.#kickWatches.forEach((watch, queueIndex) => {
      watch.start(() => {
        drainEventfd(this.#kickFds[queueIndex] ?? NONE);
        notified(queueIndex);
      });
    });
  }

  /** Before the interface is closed. */
  close(): void {
    for (const watch of this.#kickWatches) watch.close();
    closeSync(this.#fd);
    closeSync(this.#countsFd);
    this.#calls.close();
    for (const fd of this.#kickFds) closeDescriptor(fd);
  }

  #countsLine(): string | undefined {
    const piece = Buffer.allocUnsafe(COUNTS_PIECE_BYTES);
    let text = "";
    for (let length: number; (length = readSync(this.#countsFd, piece, 0, piece.length, text.length)) > 0;) {
      text += piece.toString("latin1", 0, length);
    }
    return text.split("\n").find((line) => line.trimStart().startsWith(`${this.#tap.name}:`));
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

  /** The transport has checked that the queue lies in RAM. */
  #prepare(index: number, { size, nextAvailable, descriptorGpa, availableGpa, usedGpa }: ServedQueue): void {
    const { memory } = this.#services;
    const [fd, kickFd] = [this.#fd, this.#kickFds[index] ?? NONE];
    ioctlStruct(fd, "VHOST_SET_VRING_NUM", VHOST_SET_VRING_NUM, Uint32Array.of(index, size));
    ioctlStruct(fd, "VHOST_SET_VRING_BASE", VHOST_SET_VRING_BASE, Uint32Array.of(index, nextAvailable));
    const address = new DataView(new ArrayBuffer(SIZEOF_VHOST_VRING_ADDR));
    address.setUint32(vhost_vring_addr.index, index, true);
    // Throws for what is not RAM; the lengths have been checked with the ring's size.
    const setAddress = (offset: number, gpa: number): void => {
      address.setBigUint64(offset, BigInt(memory.hostAddressOf(gpa, 1)), true);
    };
    setAddress(vhost_vring_addr.desc_user_addr, descriptorGpa);
    setAddress(vhost_vring_addr.used_user_addr, usedGpa);
    setAddress(vhost_vring_addr.avail_user_addr, availableGpa);
    ioctlStruct(fd, "VHOST_SET_VRING_ADDR", VHOST_SET_VRING_ADDR, address);
    this.#setCall(index);
    ioctlStruct(fd, "VHOST_SET_VRING_KICK", VHOST_SET_VRING_KICK, Int32Array.of(index, kickFd));
  }

  #setCall(index: number): void {
    ioctlStruct(this.#fd, "VHOST_SET_VRING_CALL", VHOST_SET_VRING_CALL, Int32Array.of(index, this.#calls.fd(index)));
  }

  #setBackend(index: number, fd: number): void {
    ioctlStruct(this.#fd, "VHOST_NET_SET_BACKEND", VHOST_NET_SET_BACKEND, Int32Array.of(index, fd));
  }
}

/** Guest RAM as struct vhost_memory. */
function memoryTable(regions: MappedGuestMemory["regions"]): DataView {
  const table = new DataView(new ArrayBuffer(SIZEOF_VHOST_MEMORY + regions.length * SIZEOF_VHOST_MEMORY_REGION));
  table.setUint32(vhost_memory.nregions, regions.length, true);
  regions.forEach(({ gpa, size, hva }, index) => {
    const at = SIZEOF_VHOST_MEMORY + index * SIZEOF_VHOST_MEMORY_REGION;
    table.setBigUint64(at + vhost_memory_region.guest_phys_addr, BigInt(gpa), true);
    table.setBigUint64(at + vhost_memory_region.memory_size, BigInt(size), true);
    table.setBigUint64(at + vhost_memory_region.userspace_addr, BigInt(hva), true);
  });
  return table;
}
