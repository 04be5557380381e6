// Register accesses that only the owner of the devices can answer, from any vCPU thread: the
// thread writes its access into its slot, wakes the owner and blocks until the answer is there.
// That is what a trap to a device model costs anyway; the frequent registers do without it
// (virtio-port.ts).
import type { AccessSize, BusDevice, SharedWords } from "../../devices/contracts.js";
import type { VmShared } from "../vcpu/shared.js";

// Words of a slot: the REGISTER_CALL_WORDS of VmShared.registerCall.
const STATE = 0;
/** Device, direction and size in one word. */
const ACCESS = 1;
const VALUE = 2;
/** Offset, in two words: windows of PCI are large. */
const OFFSET_LOW = 3;
const OFFSET_HIGH = 4;

const IDLE = 0;
const ASKED = 1;
const ANSWERED = 2;

const SIZE_SHIFT = 12;
const SIZE_MASK = 0x7;
const IS_WRITE = 1 << 15;
const DEVICE_SHIFT = 16;

/** The answer usually comes within microseconds; after this the thread looks whether the owner is gone, `ms`. */
const RECHECK_MS = 100;

/** The asking side, one for each vCPU thread. */
export class RegisterCalls {
  readonly #shared: VmShared;
  readonly #words: SharedWords;
  readonly #wakeOwner: () => void;

  constructor(shared: VmShared, vcpu: number, wakeOwner: () => void) {
    this.#shared = shared;
    this.#words = shared.registerCall(vcpu);
    this.#wakeOwner = wakeOwner;
  }

  read(device: number, offset: number, size: AccessSize): number {
    return this.#call((device << DEVICE_SHIFT) | (size << SIZE_SHIFT), offset, 0);
  }

  write(device: number, offset: number, size: AccessSize, value: number): void {
    this.#call((device << DEVICE_SHIFT) | IS_WRITE | (size << SIZE_SHIFT), offset, value);
  }

  #call(access: number, offset: number, value: number): number {
    const words = this.#words;
    words[ACCESS] = access;
    words[OFFSET_LOW] = offset | 0;
    words[OFFSET_HIGH] = Math.floor(offset / 2 ** 32);
    words[VALUE] = value | 0;
    Atomics.store(words, STATE, ASKED);
    this.#wakeOwner();
    // A wake-up alone is no answer: it may be a late one, of the previous call.
    while (Atomics.load(words, STATE) === ASKED) {
      const isLate = Atomics.wait(words, STATE, ASKED, RECHECK_MS) === "timed-out";
      // The VM stops: nobody answers any more, and the guest will not run on.
      if (isLate && this.#shared.isStopping()) return 0;
    }
    const answer = words[VALUE] >>> 0;
    Atomics.store(words, STATE, IDLE);
    return answer;
  }
}

/** The owner's side: answers what the vCPU asks, if it does. */
export function answerRegisterCall(words: SharedWords, devices: readonly BusDevice[]): void {
  if (Atomics.load(words, STATE) !== ASKED) return;
  const access = words[ACCESS] ?? 0;
  const device = devices[access >>> DEVICE_SHIFT];
  const offset = ((words[OFFSET_LOW] ?? 0) >>> 0) + (words[OFFSET_HIGH] ?? 0) * 2 ** 32;
  const size = ((access >>> SIZE_SHIFT) & SIZE_MASK) as AccessSize;
  if ((access & IS_WRITE) !== 0) device?.write(offset, size, (words[VALUE] ?? 0) >>> 0);
  else words[VALUE] = (device?.read(offset, size) ?? 0) | 0;
  Atomics.store(words, STATE, ANSWERED);
  Atomics.notify(words, STATE);
}
