// How an assigned device interrupts its guest: by MSI-X, by MSI or by its line, whichever the guest's driver has turned on. The
// host's kernel has one of them at a time.
import type { AssignedLayout } from "../../../devices/pci/assigned-layout.js";
import { Msi } from "../../../devices/pci/msi.js";
import { Msix, type MsiMessage } from "../../../devices/pci/msix.js";
import type { VmFd } from "../../kvm/vm-fd.js";
import type { MsiRoutes } from "../msi-routes.js";
import { AssignedLine, type LineSource } from "./intx.js";
import { AssignedVectors, type GuestVectors, type VectorSource } from "./vectors.js";

/** The device's side of each way. */
export interface InterruptSource {
  readonly msix: VectorSource;
  readonly msi: VectorSource;
  readonly line: LineSource;
}

export interface InterruptOptions {
  readonly source: InterruptSource;
  readonly layout: Pick<AssignedLayout, "msix" | "msi" | "hasLine">;
  /** The line's. */
  readonly gsi: number;
  readonly vm: Pick<VmFd, "signalMsi" | "connectResamplingIrqfd" | "disconnectIrqfd">;
  readonly routes: MsiRoutes;
  /** The guest may rest without a thread: it has an interrupt now. */
  readonly interruptRaised: () => void;
  /** Runs a callback of the event loop. */
  readonly guard: (task: () => void) => void;
  /** Takes a line for the log. */
  readonly report: (line: string) => void;
}

interface Way {
  turnOn(): void;
  turnOff(): void;
  relay(isOn: boolean): void;
}

export class AssignedInterrupts {
  readonly msix: Msix | undefined;
  readonly msi: Msi | undefined;
  readonly #vectors: { readonly msix?: AssignedVectors; readonly msi?: AssignedVectors };
  readonly #line: AssignedLine | undefined;
  #mayUseLine = false;
  #way: Way | undefined;
  #isRelaying = false;

  constructor(options: InterruptOptions) {
    const { source, layout, vm, interruptRaised, report } = options;
    const send = ({ addressLow, addressHigh, data }: MsiMessage): void => {
      vm.signalMsi(addressLow, addressHigh, data);
      interruptRaised();
    };
    let hasFailed = false;
    // A host that has no more interrupts, or a device that is gone: the guest's driver finds that none come.
    const attempt = (action: () => void): boolean => {
      try {
        action();
        return true;
      } catch (error) {
        if (!hasFailed) report(`its interrupts do not work: ${(error as Error).message}`);
        hasFailed = true;
        return false;
      }
    };
    const vectors = (side: VectorSource, guest: GuestVectors): AssignedVectors =>
      new AssignedVectors({ ...options, source: side, guest, attempt });
    if (layout.msix !== undefined) {
      const changed = (vector: number): void => {
        this.#changed(this.#vectors.msix, vector);
      };
      this.msix = new Msix({ vectors: layout.msix.vectors, send, changed });
    }
    if (layout.msi !== undefined) {
      const changed = (vector: number): void => {
        this.#changed(this.#vectors.msi, vector);
      };
      this.msi = new Msi({ vectors: layout.msi.vectors, send, changed });
    }
    this.#vectors = {
      ...(this.msix !== undefined && { msix: vectors(source.msix, this.msix) }),
      ...(this.msi !== undefined && { msi: vectors(source.msi, this.msi) }),
    };
    if (layout.hasLine) this.#line = new AssignedLine({ ...options, source: source.line, attempt });
  }

  /** The guest lets the device use its line, or no more. */
  letUseLine(isOn: boolean): void {
    this.#mayUseLine = isOn;
    this.#settle();
  }

  /** The guest rests without a thread, which KVM cannot wake: interrupts come through this thread, or do so no more. */
  relay(isOn: boolean): void {
    if (this.#isRelaying === isOn) return;
    this.#isRelaying = isOn;
    for (const way of [this.#vectors.msix, this.#vectors.msi, this.#line]) way?.relay(isOn);
  }

  close(): void {
    this.#way?.turnOff();
    this.#way = undefined;
  }

  #changed(vectors: AssignedVectors | undefined, vector: number): void {
    if (!this.#settle()) vectors?.update(vector);
  }

  /** True if it has turned to another way. §6.8.2.4 gives MSI-X and MSI the line's place; MSI-X first is drivers' custom. */
  #settle(): boolean {
    const way = this.#wanted();
    if (way === this.#way) return false;
    this.#way?.turnOff();
    this.#way = way;
    way?.turnOn();
    return true;
  }

  #wanted(): Way | undefined {
    if (this.msix?.isEnabled === true) return this.#vectors.msix;
    if (this.msi?.isEnabled === true) return this.#vectors.msi;
    return this.#mayUseLine ? this.#line : undefined;
  }
}
