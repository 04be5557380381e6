// INTx of an assigned device: a line that the device holds until its driver has looked. KVM raises it for an eventfd; once the guest has
// acknowledged it, KVM lowers it and signals another, by which the host's kernel lets the device raise it again. Neither
// needs this process. KVM api.rst §4.75 (KVM_IRQFD_FLAG_RESAMPLE); Documentation/driver-api/vfio.rst.
import type { VmFd } from "../../kvm/vm-fd.js";
import { closeDescriptor } from "../../sys/descriptors.js";
import { eventfd, pollReadable, type PollHandle } from "../../sys/events.js";

/** The device's side. They throw SystemCallError. */
export interface LineSource {
  /** The host's kernel masks the device's line at each interrupt, and unmasks it when `acknowledged` is signalled. */
  enableLine(raised: number, acknowledged: number): void;
  /** What the device still asks for is signalled again. */
  unmaskLine(): void;
  disableLine(): void;
}

export interface LineOptions {
  readonly source: LineSource;
  readonly vm: Pick<VmFd, "connectResamplingIrqfd" | "disconnectIrqfd">;
  readonly gsi: number;
  /** Does what the host may refuse: false if it has. */
  readonly attempt: (action: () => void) => boolean;
  /** Runs a callback of the event loop. */
  readonly guard: (task: () => void) => void;
  /** The guest may rest without a thread: it has an interrupt now. */
  readonly interruptRaised: () => void;
}

interface Line {
  readonly raised: number;
  readonly acknowledged: number;
  isConnected: boolean;
  poll: PollHandle | undefined;
}

export class AssignedLine {
  readonly #options: LineOptions;
  #line: Line | undefined;
  #isRelaying = false;

  constructor(options: LineOptions) {
    this.#options = options;
  }

  turnOn(): void {
    const { source, attempt } = this.#options;
    const line = { raised: eventfd(), acknowledged: eventfd(), isConnected: false, poll: undefined };
    const isEnabled = attempt(() => {
      source.enableLine(line.raised, line.acknowledged);
    });
    if (!isEnabled) {
      closeDescriptor(line.raised);
      closeDescriptor(line.acknowledged);
      return;
    }
    this.#line = line;
    if (this.#isRelaying) this.#watch(line);
    else this.#connect(line);
  }

  turnOff(): void {
    const line = this.#line;
    if (line === undefined) return;
    this.#line = undefined;
    const { source, attempt } = this.#options;
    this.#disconnect(line);
    line.poll?.close();
    attempt(() => {
      source.disableLine();
    });
    closeDescriptor(line.raised);
    closeDescriptor(line.acknowledged);
  }

  relay(isOn: boolean): void {
    this.#isRelaying = isOn;
    const line = this.#line;
    if (line === undefined) return;
    if (isOn) {
      this.#disconnect(line);
      this.#watch(line);
    } else this.#connect(line);
    // A line that was raised when it was let go of has been lowered by nobody.
    const { source, attempt } = this.#options;
    attempt(() => {
      source.unmaskLine();
    });
  }

  #connect(line: Line): void {
    line.poll?.stop();
    if (line.isConnected) return;
    // What has been signalled before is raised by KVM now.
    this.#options.vm.connectResamplingIrqfd(line.raised, line.acknowledged, this.#options.gsi);
    line.isConnected = true;
  }

  #disconnect(line: Line): void {
    if (line.isConnected) this.#options.vm.disconnectIrqfd(line.raised, this.#options.gsi);
    line.isConnected = false;
  }

  /** The signal stays in its eventfd, for KVM: the guest's acknowledgement comes to nobody else. */
  #watch(line: Line): void {
    const { guard, interruptRaised } = this.#options;
    const ready = (): void => {
      guard(() => {
        this.#connect(line);
        interruptRaised();
      });
    };
    if (line.poll === undefined) line.poll = pollReadable(line.raised, ready);
    else line.poll.start(ready);
  }
}
