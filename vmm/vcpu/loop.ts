// The exit loop in two parts: dispatchExit answers one exit, and a tight loop around it leaves only when
// asked to. It names buses, never devices. KVM api.rst §5.
import type { AccessSize } from "../../devices/contracts.js";
import type { Bus } from "./bus.js";
import type { KvmRun } from "../kvm/kvm-run.js";
import {
  KVM_EXIT_FAIL_ENTRY,
  KVM_EXIT_HLT,
  KVM_EXIT_INTERNAL_ERROR,
  KVM_EXIT_INTR,
  KVM_EXIT_IO,
  KVM_EXIT_IRQ_WINDOW_OPEN,
  KVM_EXIT_MMIO,
  KVM_EXIT_SHUTDOWN,
  KVM_EXIT_SYSTEM_EVENT,
  KVM_SYSTEM_EVENT_RESET,
  KVM_SYSTEM_EVENT_SHUTDOWN,
  kvm_run,
} from "../sys/kvm-abi.js";

/** What one exit means for the loop; "unknown" is for the caller to explain with the vCPU's registers. */
export type ExitOutcome = "handled" | "interrupted" | "poweroff" | "reboot" | "triple-fault" | "halted" | "unknown";

/** One vCPU as the loop sees it; tests hand in a fake. */
export interface VcpuRun {
  /** One KVM_RUN; false if a signal interrupted it. */
  enter(): boolean;
  readonly run: KvmRun;
}

/** Answers the exit that `run` holds. */
export function dispatchExit(run: KvmRun, pio: Bus, mmio: Bus): ExitOutcome {
  switch (run.exitReason) {
    case KVM_EXIT_IO:
      return answerPortIo(run, pio);
    case KVM_EXIT_MMIO:
      return answerMmio(run, mmio);
    case KVM_EXIT_INTR:
    case KVM_EXIT_IRQ_WINDOW_OPEN:
      return "interrupted";
    case KVM_EXIT_SHUTDOWN:
      return "triple-fault";
    case KVM_EXIT_SYSTEM_EVENT:
      switch (run.loadU32(kvm_run.system_event)) {
        case KVM_SYSTEM_EVENT_SHUTDOWN:
          return "poweroff";
        case KVM_SYSTEM_EVENT_RESET:
          return "reboot";
        default:
          return "unknown";
      }
    case KVM_EXIT_HLT:
      // Only without the in-kernel irqchip: with it, a halted vCPU waits inside KVM_RUN.
      return "halted";
    case KVM_EXIT_FAIL_ENTRY:
    case KVM_EXIT_INTERNAL_ERROR:
    default:
      return "unknown";
  }
}

function answerPortIo(run: KvmRun, pio: Bus): ExitOutcome {
  const port = run.ioPort;
  const size = run.ioSize;
  let offset = run.ioDataOffset;
  // String instructions: `ioCount` packed items, all for the same port.
  if (run.isIoOut) {
    for (let left = run.ioCount; left > 0; left--, offset += size) pio.write(port, size, run.load(offset, size));
  } else {
    for (let left = run.ioCount; left > 0; left--, offset += size) run.store(offset, size, pio.read(port, size));
  }
  return "handled";
}

function answerMmio(run: KvmRun, mmio: Bus): ExitOutcome {
  const address = run.mmioAddress;
  const length = run.mmioLength;
  // Power-of-two accesses are one register access (8 bytes are two); the rest goes byte by byte.
  const size: AccessSize = length === 1 || length === 2 ? length : length % 4 === 0 ? 4 : 1;
  for (let done = 0; done < length; done += size) {
    const offset = kvm_run.mmio_data + done;
    if (run.isMmioWrite) mmio.write(address + done, size, run.load(offset, size));
    else run.store(offset, size, mmio.read(address + done, size));
  }
  return "handled";
}

/** What the loop does around every exit; the machine of this thread implements it. */
export interface ExitObserver {
  /** Runs before the exit is answered: writes that KVM has held back come first. */
  beforeExit(reason: number): void;
  /** Called for an exit that nothing else answers; true if the guest can go on. */
  fixUp(reason: number): boolean;
  /** True ends the loop after the exit: a stop, a hand-over, output that waits for the event loop. */
  shouldLeave(): boolean;
}

/**
 * Ends what the last exit has begun (the answer to a read of a device, the rest of a string instruction), so that the
 * vCPU's registers are those between two instructions. "interrupted" is success: nothing of the guest has run.
 * KVM api.rst §5, "immediate_exit".
 */
export function completeExit(vcpu: VcpuRun, pio: Bus, mmio: Bus, observer: ExitObserver): ExitOutcome {
  const { run } = vcpu;
  for (;;) {
    run.immediateExit = 1;
    const exited = vcpu.enter();
    observer.beforeExit(exited ? run.exitReason : KVM_EXIT_INTR);
    if (!exited) return "interrupted";
    let outcome = dispatchExit(run, pio, mmio);
    if (outcome === "unknown" && observer.fixUp(run.exitReason)) outcome = "handled";
    if (outcome !== "handled" && outcome !== "interrupted") return outcome;
  }
}

/** Runs until the guest ends or `observer` asks to leave ("interrupted"). */
export function runVcpu(vcpu: VcpuRun, pio: Bus, mmio: Bus, observer: ExitObserver): ExitOutcome {
  const { run } = vcpu;
  for (;;) {
    const exited = vcpu.enter();
    observer.beforeExit(exited ? run.exitReason : KVM_EXIT_INTR);
    let outcome = exited ? dispatchExit(run, pio, mmio) : "interrupted";
    if (outcome === "unknown" && observer.fixUp(run.exitReason)) outcome = "handled";
    if (outcome === "handled" || outcome === "interrupted") {
      if (observer.shouldLeave()) return "interrupted";
    } else {
      return outcome;
    }
  }
}
