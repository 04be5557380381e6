// Interrupts of virtio devices on the PCI bus for those who serve queues in the monitor's place (the host's kernel, another
// process): whoever signals a queue's eventfd has KVM send the message of its vector, as the guest has set it up just then.
import type { MsiMessage } from "../../devices/pci/msix.js";
import type { MsiRoute, MsiRoutes } from "../pci/msi-routes.js";

/** What a queue sends now; undefined: nothing. */
type QueueMessage = (queueIndex: number) => MsiMessage | undefined;

interface QueueRoute {
  readonly route: MsiRoute;
  readonly queueIndex: number;
}

export class PciInterrupts {
  readonly #routes: Pick<MsiRoutes, "connect">;
  /** By device: those of its queues that somebody signals. */
  readonly #connected = new Map<number, QueueRoute[]>();

  constructor(routes: Pick<MsiRoutes, "connect">) {
    this.#routes = routes;
  }

  /** Once for each queue and eventfd, which stay the same over resets. */
  connect(device: number, queueIndex: number, fd: number, messageOf: QueueMessage): void {
    const connected = this.#connected.get(device) ?? [];
    connected.push({ route: this.#routes.connect(fd), queueIndex });
    this.#connected.set(device, connected);
    this.messagesChanged(device, messageOf);
  }

  /** What queues of the device send may be something else. */
  messagesChanged(device: number, messageOf: QueueMessage): void {
    for (const { route, queueIndex } of this.#connected.get(device) ?? []) route.set(messageOf(queueIndex));
  }
}
