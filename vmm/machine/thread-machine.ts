// The machine as one thread serves it: both buses with their devices, over shared words.
// Every vCPU thread (and the main thread, which boots vCPU 0) builds one of these, so that
// an exit is answered on the thread where it happens. DESIGN.md, "Threads".
import type { BusDevice, SharedWords } from "../../devices/contracts.js";
import { ACPI_PM_LENGTH, ACPI_PM_WORDS, AcpiPm } from "../../devices/legacy/acpi-pm.js";
import { CmosRtc, RTC_LENGTH } from "../../devices/legacy/cmos-rtc.js";
import { RTC_WORDS } from "../../devices/legacy/rtc-registers.js";
import { I8042, I8042_LENGTH, I8042_WORDS } from "../../devices/legacy/i8042.js";
import { Serial } from "../../devices/legacy/serial.js";
import { SERIAL_WORDS } from "../../devices/legacy/serial-words.js";
import { BootTimer } from "../../devices/pseudo/boot-timer.js";
import { PCI_CONFIG_PORTS_LENGTH, PCI_CONFIG_WORDS, PciConfigPorts } from "../../devices/pci/config-ports.js";
import { Bus } from "../vcpu/bus.js";
import type { KvmRun } from "../kvm/kvm-run.js";
import { VmFd } from "../kvm/vm-fd.js";
import type { VcpuFd } from "../kvm/vcpu-fd.js";
import {
  ACPI_PM1A_EVT_PORT,
  BOOT_TIMER_GPA,
  BOOT_TIMER_LENGTH,
  I8042_DATA_PORT,
  KEYBOARD_GSI,
  PCI_CONFIG_PORT,
  RTC_INDEX_PORT,
  SERIAL0_GSI,
  SERIAL0_PORT,
  SERIAL_LENGTH,
  VIRTIO_GSIS,
} from "../memory/layout.js";
import { KVM_EXIT_INTR } from "../sys/kvm-abi.js";
import { Fixups } from "../fixups/fixups.js";
import { MappedGuestMemory } from "../memory/guest-memory.js";
import { WrittenPages } from "../memory/written-pages.js";
import { CoalescedRing } from "../vcpu/coalesced-ring.js";
import { Kicker } from "../vcpu/kicker.js";
import type { ExitObserver } from "../vcpu/loop.js";
import type { MachineDescriptor } from "../vcpu/messages.js";
import { RegisterCalls } from "../virtio/register-calls.js";
import { CMPXCHG16B_LOCK, COALESCED_LOCK, VmShared, type Outcome } from "../vcpu/shared.js";
import { OwnerPort, VIRTIO_PORT_WORDS, VirtioPort } from "../virtio/virtio-port.js";

// Where each device's words lie in the shared memory.
const SERIAL_AT = 0;
const RTC_AT = SERIAL_AT + SERIAL_WORDS;
const ACPI_PM_AT = RTC_AT + RTC_WORDS;
const I8042_AT = ACPI_PM_AT + ACPI_PM_WORDS;
const PCI_CONFIG_AT = I8042_AT + I8042_WORDS;
const VIRTIO_AT = PCI_CONFIG_AT + PCI_CONFIG_WORDS;
/** Words of all devices together. */
export const DEVICE_WORDS = VIRTIO_AT + VIRTIO_GSIS.length * VIRTIO_PORT_WORDS;

/** The words of virtio device `device`. */
export function virtioWords(shared: VmShared, device: number): SharedWords {
  return shared.deviceWords(VIRTIO_AT + device * VIRTIO_PORT_WORDS, VIRTIO_PORT_WORDS);
}

/** The words of the serial port. */
export function serialWords(shared: VmShared): SharedWords {
  return shared.deviceWords(SERIAL_AT, SERIAL_WORDS);
}

/** The words of ACPI's fixed hardware. */
export function acpiPmWords(shared: VmShared): SharedWords {
  return shared.deviceWords(ACPI_PM_AT, ACPI_PM_WORDS);
}

/** The words of the keyboard controller. */
export function i8042Words(shared: VmShared): SharedWords {
  return shared.deviceWords(I8042_AT, I8042_WORDS);
}

/** The words of PCI's configuration mechanism 1. */
export function pciConfigWords(shared: VmShared): SharedWords {
  return shared.deviceWords(PCI_CONFIG_AT, PCI_CONFIG_WORDS);
}

/** The words of the real-time clock. */
export function rtcWords(shared: VmShared): SharedWords {
  return shared.deviceWords(RTC_AT, RTC_WORDS);
}

/** Output without a newline that the main thread, while it runs the guest, lets gather, in bytes. */
const MAIN_GATHERS_BYTES = 1024;
const NEWLINE = 0x0a;

export class ThreadMachine implements ExitObserver {
  readonly shared: VmShared;
  /** Its vCPUs go on with saved state. */
  readonly isRestored: boolean;
  readonly kicker: Kicker;
  readonly pio = new Bus("pio");
  readonly mmio = new Bus("mmio");
  readonly serial: Serial;
  readonly i8042: I8042;
  readonly #index: number;
  readonly #run: KvmRun;
  readonly #isMain: boolean;
  readonly #counters: SharedWords;
  readonly #ring: CoalescedRing | undefined;
  readonly #fixups: Fixups | undefined;
  #hasOutput = false;
  #gathered = 0;
  #wasInterrupted = false;
  #answeredQuestion = 0;

  /**
   * `vcpu` is vCPU `index`, which this thread runs or (the main thread) may run. `virtio`: what answers in each of the
   * ranges of virtio devices, on the main thread, which owns them, and which hears of an interrupt that is raised there.
   */
  constructor(
    descriptor: MachineDescriptor,
    index: number,
    vcpu: VcpuFd,
    virtio?: readonly BusDevice[],
    interruptRaised: () => void = () => undefined,
  ) {
    const { run } = vcpu;
    this.shared = VmShared.attach(descriptor.shared, descriptor.vcpus.length, DEVICE_WORDS);
    this.isRestored = descriptor.isRestored;
    this.#index = index;
    this.#run = run;
    this.#isMain = virtio !== undefined;
    const { vcpus, mmapSize, doorbellFd } = descriptor;
    this.kicker = new Kicker(this.shared, vcpus, mmapSize, doorbellFd, this.#isMain);
    this.#counters = this.shared.exitCounters(index);

    const vm = new VmFd(descriptor.vmFd);
    const serialInterrupt = {
      trigger: () => {
        vm.pulseIrqLine(SERIAL0_GSI);
        interruptRaised();
      },
    };
    const power = {
      powerOff: () => {
        this.stop("poweroff");
      },
      reset: () => {
        this.stop("reboot");
      },
    };
    this.serial = new Serial(serialWords(this.shared), serialInterrupt, {
      transmit: (byte) => {
        this.#transmit(byte);
      },
      roomAvailable: () => {
        this.shared.markInputRoom();
        this.kicker.wakeMain();
      },
    });
    this.pio.attach(SERIAL0_PORT, SERIAL_LENGTH, this.serial);
    const keyboardInterrupt = {
      trigger: () => {
        vm.pulseIrqLine(KEYBOARD_GSI);
        interruptRaised();
      },
    };
    this.i8042 = new I8042(i8042Words(this.shared), keyboardInterrupt, power.reset);
    this.pio.attach(I8042_DATA_PORT, I8042_LENGTH, this.i8042);
    const rtc = new CmosRtc(rtcWords(this.shared), () => {
      this.kicker.wakeMain();
    });
    this.pio.attach(RTC_INDEX_PORT, RTC_LENGTH, rtc);
    this.pio.attach(ACPI_PM1A_EVT_PORT, ACPI_PM_LENGTH, new AcpiPm(acpiPmWords(this.shared), power));
    this.mmio.attach(
      BOOT_TIMER_GPA,
      BOOT_TIMER_LENGTH,
      new BootTimer(
        {
          milestone: (code) => {
            this.shared.markMilestone(code, process.hrtime.bigint());
            // The main thread acts on milestones: it hands vCPU 0 over, and lets input in.
            this.kicker.wakeMain();
          },
          exitStatus: (status) => {
            this.shared.setExitStatus(status);
          },
          powerOff: power.powerOff,
          channelRang: () => {
            this.kicker.wakeMain();
          },
          snapshotPoint: () => {
            this.shared.reachSnapshotPoint();
            this.kicker.wakeMain();
          },
        },
        descriptor.commandChannelGpa,
      ),
    );
    const devices = virtio ?? this.#virtioPorts(descriptor);
    descriptor.virtioRanges.forEach(({ gpa, length }, i) => {
      const device = devices[i];
      if (device !== undefined) this.mmio.attach(gpa, length, device);
    });
    const [ecam] = devices;
    if (descriptor.hasPci && ecam !== undefined) {
      const ports = new PciConfigPorts(pciConfigWords(this.shared), ecam);
      this.pio.attach(PCI_CONFIG_PORT, PCI_CONFIG_PORTS_LENGTH, ports);
    }
    if (descriptor.coalescesSerial) {
      this.#ring = new CoalescedRing(run, this.shared.words, COALESCED_LOCK, this.pio);
    }
    if (descriptor.quirks !== undefined) {
      const { memoryAddress, memorySize, writtenPagesAddress } = descriptor;
      const written = WrittenPages.attach(writtenPagesAddress, memorySize);
      const memory = MappedGuestMemory.attach(
        memoryAddress,
        memorySize,
        written,
        descriptor.isRestored ? "small" : "large",
      );
      const counters = this.shared.fixupCounters(index);
      this.#fixups = new Fixups(vcpu, memory, descriptor.quirks, counters, this.shared.words, CMPXCHG16B_LOCK);
    }
  }

  /** Ends the VM; the first reason counts. */
  stop(outcome: Exclude<Outcome, "running">): void {
    this.shared.tryStop(outcome);
    this.kicker.wakeMain();
  }

  /** Serves writes that KVM still holds back, when no exit is coming that would. */
  drainHeldBackWrites(): void {
    this.#ring?.drain();
  }

  beforeExit(reason: number): void {
    this.#counters[reason] = ((this.#counters[reason] ?? 0) + 1) | 0;
    // Before shouldLeave looks: a kick that comes later sets it again.
    if (reason === KVM_EXIT_INTR) {
      this.#run.immediateExit = 0;
      this.#wasInterrupted = true;
    }
    this.#ring?.drain();
    this.#fixups?.observe();
  }

  fixUp(reason: number): boolean {
    return this.#fixups?.answer(reason) ?? false;
  }

  shouldLeave(): boolean {
    const { shared } = this;
    if (this.#hasOutput) {
      this.#hasOutput = false;
      this.#gathered = 0;
      if (this.#isMain || !shared.isGathering()) this.kicker.wakeMain();
    }
    const wasInterrupted = this.#wasInterrupted;
    this.#wasInterrupted = false;
    if (shared.isStopping() || shared.shallRest || shared.outputIsHigh()) return true;
    if (wasInterrupted && shared.haltQuestion !== this.#answeredQuestion) return true;
    // On the main thread, any signal may be one that JavaScript waits for.
    return this.#isMain && (wasInterrupted || shared.doorbellRang);
  }

  /** Answers the halt watcher's question, if there is a new one, for the vCPU of this thread. */
  answerHaltQuestion(vcpu: VcpuFd): void {
    const question = this.shared.haltQuestion;
    if (question === this.#answeredQuestion) return;
    this.#answeredQuestion = question;
    if (vcpu.isHaltedForever()) this.shared.answerHalted(this.#index, question);
  }

  #virtioPorts({ virtioRanges, hasPci }: MachineDescriptor): BusDevice[] {
    const wakeOwner = (): void => {
      this.kicker.wakeMain();
    };
    const calls = new RegisterCalls(this.shared, this.#index, wakeOwner);
    return virtioRanges.map((_, index) =>
      hasPci ? new OwnerPort(index, calls) : new VirtioPort(index, virtioWords(this.shared, index), calls, wakeOwner),
    );
  }

  #transmit(byte: number): void {
    this.shared.putOutput(byte);
    // On the main thread, a turn of the event loop a line; elsewhere the bell is cheap.
    if (!this.#isMain || byte === NEWLINE || ++this.#gathered >= MAIN_GATHERS_BYTES) this.#hasOutput = true;
  }
}
