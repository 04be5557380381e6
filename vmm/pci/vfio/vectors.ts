// MSI-X or MSI of an assigned device: the device signals an eventfd, and KVM sends the guest's message for it, without this process.
// A vector that the guest has masked is not connected: what is signalled then waits in its eventfd.
import type { MsiMessage } from "../../../devices/pci/msix.js";
import { closeDescriptor } from "../../sys/descriptors.js";
import { drainEventfd, eventfd, pollReadable, type PollHandle } from "../../sys/events.js";
import type { MsiRoute, MsiRoutes } from "../msi-routes.js";

/** What the guest has set. */
export interface GuestVectors {
  /** At least one. */
  readonly vectors: number;
  /** Undefined: it is to send nothing now. */
  message(vector: number): MsiMessage | undefined;
  signal(vector: number): void;
}

/** The device's side. They throw SystemCallError. */
export interface VectorSource {
  enableVectors(count: number): void;
  connectVector(vector: number, eventfd: number): void;
  disableVectors(): void;
}

interface Vector {
  readonly fd: number;
  readonly route: MsiRoute;
  poll: PollHandle | undefined;
}

export interface VectorOptions {
  readonly source: VectorSource;
  readonly guest: GuestVectors;
  readonly routes: MsiRoutes;
  /** Does what the host may refuse: false if it has. */
  readonly attempt: (action: () => void) => boolean;
  /** Runs a callback of the event loop. */
  readonly guard: (task: () => void) => void;
}

export class AssignedVectors {
  readonly #options: VectorOptions;
  /** Those that the guest has used, by number. */
  readonly #vectors = new Map<number, Vector>();
  #isOn = false;
  #isRelaying = false;

  constructor(options: VectorOptions) {
    this.#options = options;
  }

  turnOn(): void {
    const { source, guest, attempt } = this.#options;
    const count = guest.vectors;
    this.#isOn = attempt(() => {
      source.enableVectors(count);
    });
    for (let vector = 0; vector < count; vector++) this.update(vector);
  }

  turnOff(): void {
    if (!this.#isOn) return;
    this.#isOn = false;
    for (const { fd, route, poll } of this.#vectors.values()) {
      route.close();
      poll?.close();
      closeDescriptor(fd);
    }
    this.#vectors.clear();
    const { source, attempt } = this.#options;
    attempt(() => {
      source.disableVectors();
    });
  }

  /** The vector's message may be another one. */
  update(vector: number): void {
    if (!this.#isOn) return;
    const message = this.#options.guest.message(vector);
    const known = this.#vectors.get(vector);
    if (message === undefined) {
      known?.route.set(undefined);
      known?.poll?.stop();
      return;
    }
    const used = known ?? this.#connect(vector);
    if (used === undefined) return;
    if (this.#isRelaying) {
      used.route.set(undefined);
      this.#watch(vector, used);
    } else {
      used.poll?.stop();
      used.route.set(message);
    }
  }

  relay(isOn: boolean): void {
    this.#isRelaying = isOn;
    for (const vector of this.#vectors.keys()) this.update(vector);
  }

  #connect(vector: number): Vector | undefined {
    const { source, routes, attempt } = this.#options;
    const fd = eventfd();
    const isConnected = attempt(() => {
      source.connectVector(vector, fd);
    });
    if (!isConnected) {
      closeDescriptor(fd);
      return undefined;
    }
    const made = { fd, route: routes.connect(fd), poll: undefined };
    this.#vectors.set(vector, made);
    return made;
  }

  #watch(vector: number, used: Vector): void {
    const { guest, guard } = this.#options;
    const ready = (): void => {
      guard(() => {
        drainEventfd(used.fd);
        guest.signal(vector);
      });
    };
    if (used.poll === undefined) used.poll = pollReadable(used.fd, ready);
    else used.poll.start(ready);
  }
}
