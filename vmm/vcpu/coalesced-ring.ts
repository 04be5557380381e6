// The ring in which KVM keeps port writes of registered zones instead of exiting for each.
// One ring a VM: any vCPU thread drains it, under a lock, before it answers its own exit,
// so that the held-back writes come first. KVM api.rst §4.58, struct kvm_coalesced_mmio_ring.
import { lock, unlock } from "../../devices/lock.js";
import type { SharedWords } from "../../devices/contracts.js";
import type { Bus } from "./bus.js";
import type { KvmRun } from "../kvm/kvm-run.js";
import {
  KVM_COALESCED_MMIO_PAGE_OFFSET,
  SIZEOF_KVM_COALESCED_MMIO,
  kvm_coalesced_mmio,
  kvm_coalesced_mmio_ring,
} from "../sys/kvm-abi.js";

const FIRST = kvm_coalesced_mmio_ring.first >> 2;
const LAST = kvm_coalesced_mmio_ring.last >> 2;
const ENTRIES = kvm_coalesced_mmio_ring.coalesced_mmio >> 2;
const ENTRY_WORDS = SIZEOF_KVM_COALESCED_MMIO >> 2;
const PORT = kvm_coalesced_mmio.phys_addr >> 2;
const LENGTH = kvm_coalesced_mmio.len >> 2;
const DATA = kvm_coalesced_mmio.data >> 2;
/** KVM_COALESCED_MMIO_MAX: what fits in the page after the indices. */
export const COALESCED_WRITES = Math.floor((4096 - kvm_coalesced_mmio_ring.coalesced_mmio) / SIZEOF_KVM_COALESCED_MMIO);

export class CoalescedRing {
  readonly #ring: Uint32Array;
  readonly #words: SharedWords;
  readonly #lock: number;
  readonly #pio: Bus;

  constructor(run: KvmRun, words: SharedWords, lockIndex: number, pio: Bus) {
    this.#ring = run.pageWords(KVM_COALESCED_MMIO_PAGE_OFFSET);
    this.#words = words;
    this.#lock = lockIndex;
    this.#pio = pio;
  }

  /** Hands every held-back write to the port bus, oldest first; those that come meanwhile are the next call's. */
  drain(): void {
    const ring = this.#ring;
    if (Atomics.load(ring, FIRST) === Atomics.load(ring, LAST)) return;
    lock(this.#words, this.#lock);
    let first = Atomics.load(ring, FIRST);
    // Pairs with the write barrier in KVM: an entry is complete once `last` has passed it. Read once: a vCPU
    // that goes on writing would keep this thread here for as long as it likes.
    const last = Atomics.load(ring, LAST) % COALESCED_WRITES;
    while (first !== last) {
      const at = ENTRIES + first * ENTRY_WORDS;
      const length = ring[at + LENGTH] ?? 0;
      const data = ring[at + DATA] ?? 0;
      if (length === 1) this.#pio.write(ring[at + PORT] ?? 0, 1, data & 0xff);
      else if (length === 2) this.#pio.write(ring[at + PORT] ?? 0, 2, data & 0xffff);
      else this.#pio.write(ring[at + PORT] ?? 0, 4, data);
      first = (first + 1) % COALESCED_WRITES;
      Atomics.store(ring, FIRST, first);
    }
    unlock(this.#words, this.#lock);
  }
}
