// Registers by KVM_IOEVENTFD: the guest's write ends in the kernel and the vCPU goes on at once.
// A QueueNotify wakes the event loop, an InterruptACK wakes nobody. KVM api.rst §4.59.
import {
  VIRTIO_MMIO_INTERRUPT_ACK,
  VIRTIO_MMIO_INT_VRING,
  VIRTIO_MMIO_QUEUE_NOTIFY,
} from "../../devices/virtio/constants.js";
import type { NotificationEvents } from "./device-host.js";
import type { VmFd } from "../kvm/vm-fd.js";
import { KVM_IOEVENTFD_FLAG_DATAMATCH } from "../sys/kvm-abi.js";
import { drainEventfd, eventfd, pollReadable, type PollHandle } from "../sys/events.js";
import type { VirtioMmioRange } from "../x86/acpi/dsdt.js";
import { closeDescriptor } from "../sys/descriptors.js";

export class IoEvents implements NotificationEvents {
  readonly #vm: VmFd;
  readonly #ranges: readonly VirtioMmioRange[];
  /** Nobody reads it. */
  #unheardFd: number | undefined;
  // Keeps the handles: a collected one would never call back.
  readonly #events: { readonly fd: number; readonly poll: PollHandle }[] = [];

  constructor(vm: VmFd, ranges: readonly VirtioMmioRange[]) {
    this.#vm = vm;
    this.#ranges = ranges;
  }

  connect(device: number, queueIndex: number, notified: () => void): void {
    if (this.#ranges[device] === undefined) return;
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
    const range = this.#ranges[device];
    if (range === undefined) return;
    const register = range.gpa + VIRTIO_MMIO_QUEUE_NOTIFY;
    this.#vm.connectIoeventfd(fd, register, 4, KVM_IOEVENTFD_FLAG_DATAMATCH, BigInt(queueIndex));
  }

  /**
   * Otherwise an interrupt would cost two exits, more than everything else together. The price: "used buffers"
   * stays set in InterruptStatus once it has been. A driver that looks then finds its rings empty; and
   * it does not wait for the bit to change, because an interrupt is an edge.
   */
  silenceAcknowledgements(device: number): void {
    const range = this.#ranges[device];
    if (range === undefined) return;
    this.#unheardFd ??= eventfd();
    const register = range.gpa + VIRTIO_MMIO_INTERRUPT_ACK;
    // Together with a configuration change it is another number, and an exit.
    this.#vm.connectIoeventfd(
      this.#unheardFd,
      register,
      4,
      KVM_IOEVENTFD_FLAG_DATAMATCH,
      BigInt(VIRTIO_MMIO_INT_VRING),
    );
  }

  close(): void {
    if (this.#unheardFd !== undefined) closeDescriptor(this.#unheardFd);
    this.#unheardFd = undefined;
    for (const { fd, poll } of this.#events.splice(0)) {
      poll.close();
      closeDescriptor(fd);
    }
  }
}
