// An assigned device that the guest loses: the host takes it back, or finds it broken. There is no hot-plug, and a guest does not
// go on without its disk: the VM ends, and says why. linux/vfio.h, VFIO_PCI_REQ_IRQ_INDEX, VFIO_PCI_ERR_IRQ_INDEX.
import { HostError } from "../../errors.js";
import { closeDescriptor } from "../../sys/descriptors.js";
import { drainEventfd, eventfd, pollReadable, type PollHandle } from "../../sys/events.js";
import { VFIO_PCI_ERR_IRQ_INDEX, VFIO_PCI_REQ_IRQ_INDEX } from "../../sys/vfio-abi.js";

const REASONS: readonly (readonly [index: number, why: string, cure: string])[] = [
  [VFIO_PCI_REQ_IRQ_INDEX, "this host takes it back", "end guests before their devices are removed or unbound"],
  [VFIO_PCI_ERR_IRQ_INDEX, "it has failed", "the last lines of the host's kernel log (dmesg) say how"],
];

export interface LosableDevice {
  readonly address: string;
  interrupts(index: number): number;
  connect(index: number, eventfd: number): void;
}

export class DeviceLoss {
  readonly #watches: { readonly fd: number; readonly poll: PollHandle }[] = [];

  /** `guard` ends the VM with what its task throws. Throws SystemCallError. */
  constructor(device: LosableDevice, guard: (task: () => void) => void) {
    for (const [index, why, cure] of REASONS) {
      if (device.interrupts(index) === 0) continue;
      const fd = eventfd();
      const poll = pollReadable(fd, () => {
        drainEventfd(fd);
        guard(() => {
          throw new HostError(`Assigned device ${device.address}: ${why}, and the guest cannot go on without it`, {
            cure,
          });
        });
      });
      this.#watches.push({ fd, poll });
      device.connect(index, fd);
    }
  }

  close(): void {
    for (const { fd, poll } of this.#watches.splice(0)) {
      poll.close();
      closeDescriptor(fd);
    }
  }
}
