// MSI-X of an assigned device: the device signals an eventfd, and KVM sends the guest's message for it, without this process. A
// vector that the guest has masked is not connected: what is signalled then waits in its eventfd.
import { Msix } from "../../../devices/pci/msix.js";
import type { VmFd } from "../../kvm/vm-fd.js";
import { closeDescriptor } from "../../sys/descriptors.js";
import { drainEventfd, eventfd, pollReadable, type PollHandle } from "../../sys/events.js";
import type { MsiRoute, MsiRoutes } from "../msi-routes.js";

/** The device's side. They throw SystemCallError. */
export interface VectorSource {
  enableVectors(count: number): void;
  connectVector(vector: number, eventfd: number): void;
  disableVectors(): void;
}

export interface VectorOptions {
  readonly source: VectorSource;
  readonly vectors: number;
  readonly vm: Pick<VmFd, "signalMsi">;
  readonly routes: MsiRoutes;
  /** The guest may rest without a thread: it has an interrupt now. */
  readonly interruptRaised: () => void;
  /** Runs a callback of the event loop. */
  readonly guard: (task: () => void) => void;
  /** Takes a line for the log. */
  readonly report: (line: string) => void;
}

interface Vector {
  readonly fd: number;
  readonly route: MsiRoute;
  poll: PollHandle | undefined;
}

export class AssignedVectors {
  readonly msix: Msix;
  readonly #options: VectorOptions;
  /** Those that the guest has used, by number. */
  readonly #vectors = new Map<number, Vector>();
  /** MSI-X is on in the device. */
  #isEnabled = false;
  #hasFailed = false;
  #isRelaying = false;

  constructor(options: VectorOptions) {
    this.#options = options;
    this.msix = new Msix({
      vectors: options.vectors,
      send: ({ addressLow, addressHigh, data }) => {
        options.vm.signalMsi(addressLow, addressHigh, data);
        options.interruptRaised();
      },
      changed: (vector) => {
        this.#changed(vector);
      },
    });
  }

  /** The guest rests without a thread, which KVM cannot wake: interrupts come through this thread, or do so no more. */
  relay(isOn: boolean): void {
    if (this.#isRelaying === isOn) return;
    this.#isRelaying = isOn;
    for (const vector of this.#vectors.keys()) this.#changed(vector);
  }

  close(): void {
    this.#disable();
  }

  #changed(vector: number): void {
    if (this.msix.isEnabled !== this.#isEnabled) {
      if (this.msix.isEnabled) this.#enable();
      else this.#disable();
    }
    if (!this.#isEnabled) return;
    const message = this.msix.message(vector);
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

  #enable(): void {
    this.#isEnabled = this.#try(() => {
      this.#options.source.enableVectors(this.msix.vectors);
    });
  }

  #connect(vector: number): Vector | undefined {
    const fd = eventfd();
    const isConnected = this.#try(() => {
      this.#options.source.connectVector(vector, fd);
    });
    if (!isConnected) {
      closeDescriptor(fd);
      return undefined;
    }
    const made = { fd, route: this.#options.routes.connect(fd), poll: undefined };
    this.#vectors.set(vector, made);
    return made;
  }

  #watch(vector: number, used: Vector): void {
    const ready = (): void => {
      this.#options.guard(() => {
        drainEventfd(used.fd);
        this.msix.signal(vector);
      });
    };
    if (used.poll === undefined) used.poll = pollReadable(used.fd, ready);
    else used.poll.start(ready);
  }

  #disable(): void {
    if (!this.#isEnabled) return;
    this.#isEnabled = false;
    for (const { fd, route, poll } of this.#vectors.values()) {
      route.close();
      poll?.close();
      closeDescriptor(fd);
    }
    this.#vectors.clear();
    this.#try(() => {
      this.#options.source.disableVectors();
    });
  }

  /** A host that has no more interrupts, or a device that is gone: the guest's driver finds that none come. */
  #try(action: () => void): boolean {
    try {
      action();
      return true;
    } catch (error) {
      if (!this.#hasFailed) this.#options.report(`its interrupts do not work: ${(error as Error).message}`);
      this.#hasFailed = true;
      return false;
    }
  }
}
