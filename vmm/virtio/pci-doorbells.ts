// Notification addresses of virtio devices on the PCI bus by KVM_IOEVENTFD: the guest's write ends in the kernel and the vCPU
// goes on at once. They move with the range that the guest moves, and are there from the first time that a driver uses its
// device: while a system looks for devices, it moves them often, and each costs the host's kernel a grace period.
import { NOTIFY_MULTIPLIER, NOTIFY_OFFSET } from "../../devices/virtio/pci-transport.js";
import type { VmFd } from "../kvm/vm-fd.js";
import { closeDescriptor } from "../sys/descriptors.js";
import { drainEventfd, eventfd, pollReadable, type PollHandle } from "../sys/events.js";
import type { NotificationEvents } from "./device-host.js";

/** What a driver writes: a queue's number, 16 bits (virtio 1.2 §4.1.5.2). */
const WRITE_BYTES = 2;

type Doorkeeper = Pick<VmFd, "connectIoeventfd" | "disconnectIoeventfd">;

interface Doorbells {
  /** By queue. */
  readonly fds: Map<number, number>;
  /** Where the device's range lies, if the guest meets nothing else there. */
  gpa: number | undefined;
  isUsed: boolean;
}

export class PciDoorbells implements NotificationEvents {
  readonly #vm: Doorkeeper;
  readonly #devices: Doorbells[] = [];
  // Keeps the handles: a collected one would never call back.
  readonly #events: { readonly fd: number; readonly poll: PollHandle }[] = [];

  constructor(vm: Doorkeeper) {
    this.#vm = vm;
  }

  connect(device: number, queueIndex: number, notified: () => void): void {
    const fd = eventfd();
    try {
      const poll = pollReadable(fd, () => {
        // Before the queue is looked at: a notification in between makes it readable again.
        drainEventfd(fd);
        notified();
      });
      this.#events.push({ fd, poll });
    } catch (error) {
      closeDescriptor(fd);
      throw error;
    }
    this.connectTo(device, queueIndex, fd);
  }

  connectTo(device: number, queueIndex: number, fd: number): void {
    const doorbells = this.#of(device);
    doorbells.fds.set(queueIndex, fd);
    if (doorbells.isUsed && doorbells.gpa !== undefined) this.#attach(doorbells.gpa, queueIndex, fd);
  }

  /** There is nothing to acknowledge. */
  silenceAcknowledgements(): void {
    // MSI-X needs no register.
  }

  /** The guest has put the device's range there, or taken it away. */
  placed(device: number, gpa: number | undefined): void {
    const doorbells = this.#of(device);
    const { gpa: before, isUsed, fds } = doorbells;
    doorbells.gpa = gpa;
    if (!isUsed) return;
    for (const [queueIndex, fd] of fds) {
      if (before !== undefined) this.#vm.disconnectIoeventfd(fd, addressOf(before, queueIndex), WRITE_BYTES);
      if (gpa !== undefined) this.#attach(gpa, queueIndex, fd);
    }
  }

  /** A driver uses the device, from now on. */
  used(device: number): void {
    const doorbells = this.#of(device);
    if (doorbells.isUsed) return;
    doorbells.isUsed = true;
    if (doorbells.gpa === undefined) return;
    for (const [queueIndex, fd] of doorbells.fds) this.#attach(doorbells.gpa, queueIndex, fd);
  }

  close(): void {
    for (const { fd, poll } of this.#events.splice(0)) {
      poll.close();
      closeDescriptor(fd);
    }
  }

  #of(device: number): Doorbells {
    return (this.#devices[device] ??= { fds: new Map(), gpa: undefined, isUsed: false });
  }

  #attach(gpa: number, queueIndex: number, fd: number): void {
    this.#vm.connectIoeventfd(fd, addressOf(gpa, queueIndex), WRITE_BYTES, 0);
  }
}

function addressOf(gpa: number, queueIndex: number): number {
  return gpa + NOTIFY_OFFSET + NOTIFY_MULTIPLIER * queueIndex;
}
