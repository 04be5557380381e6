// Message-signalled interrupts that do not pass through this process: whoever signals an eventfd (a device of the host, another
// process, the host's kernel) interrupts the guest, by the message that the guest has chosen. KVM knows such messages by
// numbers of interrupts behind those of its controllers. KVM api.rst §4.52, §4.75.
import { isSameMessage, type MsiMessage } from "../../devices/pci/msix.js";
import type { GsiRoute, VmFd } from "../kvm/vm-fd.js";
import { GSI_COUNT } from "../memory/layout.js";
import { KVM_IRQCHIP_IOAPIC, KVM_IRQCHIP_PIC_MASTER, KVM_IRQCHIP_PIC_SLAVE } from "../sys/kvm-abi.js";

const PIC_PINS = 8;

/** What KVM has for a machine with the three chips of a PC: a table of one's own has to repeat it. */
function chipRoutes(): GsiRoute[] {
  const pic = Array.from({ length: 2 * PIC_PINS }, (_, gsi) => ({
    gsi,
    chip: gsi < PIC_PINS ? KVM_IRQCHIP_PIC_MASTER : KVM_IRQCHIP_PIC_SLAVE,
    pin: gsi % PIC_PINS,
  }));
  const ioApic = Array.from({ length: GSI_COUNT }, (_, gsi) => ({ gsi, chip: KVM_IRQCHIP_IOAPIC, pin: gsi }));
  return [...pic, ...ioApic];
}

/** The way of one eventfd. */
export interface MsiRoute {
  /** From now on it sends this; undefined, masked, nothing: what is signalled meanwhile waits in the eventfd. */
  set(message: MsiMessage | undefined): void;
  close(): void;
}

export class MsiRoutes {
  readonly #vm: VmFd;
  readonly #chips = chipRoutes();
  /** By GSI. */
  readonly #messages = new Map<number, MsiMessage>();
  /** GSIs that no route has any more. */
  readonly #free: number[] = [];
  #next = GSI_COUNT;

  constructor(vm: VmFd) {
    this.#vm = vm;
  }

  /** Sends nothing at first. */
  connect(eventfd: number): MsiRoute {
    const gsi = this.#free.pop() ?? this.#next++;
    let isOn = false;
    const set = (message: MsiMessage | undefined): void => {
      // A driver writes its table word by word, and each change costs the host's kernel a grace period.
      if (isOn && message !== undefined && isSameMessage(message, this.#messages.get(gsi))) return;
      // Off while the table changes: an old message must not go to where a new one is meant to go.
      if (isOn) this.#vm.disconnectIrqfd(eventfd, gsi);
      isOn = false;
      if (message === undefined) return;
      this.#messages.set(gsi, message);
      // What KVM refuses is a message that reaches no processor.
      if (!this.#load()) {
        this.#messages.delete(gsi);
        return;
      }
      this.#vm.connectIrqfd(eventfd, gsi);
      isOn = true;
    };
    return {
      set,
      close: () => {
        set(undefined);
        this.#messages.delete(gsi);
        this.#free.push(gsi);
      },
    };
  }

  #load(): boolean {
    const messages = [...this.#messages].map(([gsi, message]) => ({ gsi, message }));
    return this.#vm.trySetGsiRouting([...this.#chips, ...messages]);
  }
}
