// Needs: nothing.
import assert from "node:assert/strict";
import type { KvmRun } from "../../vmm/kvm/kvm-run.js";
import { SIZEOF_KVM_COALESCED_MMIO, kvm_coalesced_mmio, kvm_coalesced_mmio_ring } from "../../vmm/sys/kvm-abi.js";
import { Bus } from "../../vmm/vcpu/bus.js";
import { CoalescedRing } from "../../vmm/vcpu/coalesced-ring.js";

const PORT = 0x3f8;
const CAPACITY = 170;

/** KVM's side of the ring: page 2 of a vCPU's mapping. */
function ring(written: (byte: number) => void) {
  const page = new Uint32Array(1024);
  const pio = new Bus("pio");
  pio.attach(PORT, 1, { name: "port", read: () => 0, write: (_offset, _size, value) => written(value) });
  const last = kvm_coalesced_mmio_ring.last >> 2;
  return {
    page,
    coalesced: new CoalescedRing(
      { pageWords: () => page } as unknown as KvmRun,
      new Int32Array(new SharedArrayBuffer(4)),
      0,
      pio,
    ),
    /** What KVM does for a guest's OUT; false if the ring is full. */
    put: (byte: number): boolean => {
      const at = page[last] ?? 0;
      const next = (at + 1) % CAPACITY;
      if (next === page[kvm_coalesced_mmio_ring.first >> 2]) return false;
      const entry = (kvm_coalesced_mmio_ring.coalesced_mmio + at * SIZEOF_KVM_COALESCED_MMIO) >> 2;
      page[entry + (kvm_coalesced_mmio.phys_addr >> 2)] = PORT;
      page[entry + (kvm_coalesced_mmio.len >> 2)] = 1;
      page[entry + (kvm_coalesced_mmio.data >> 2)] = byte;
      page[last] = next;
      return true;
    },
  };
}

describe("coalesced ring", () => {
  it("hands on what is there, in order, around the end of the ring", () => {
    const seen: number[] = [];
    const r = ring((byte) => seen.push(byte));
    const sent: number[] = [];
    for (let round = 0; round < 5; round++) {
      for (let i = 0; i < 100; i++) {
        assert.ok(r.put((round * 100 + i) & 0xff));
        sent.push((round * 100 + i) & 0xff);
      }
      r.coalesced.drain();
    }
    assert.deepEqual(seen, sent);
  });

  it("a guest that goes on writing keeps nobody: one call takes what was there when it began", () => {
    let count = 0;
    const r = ring(() => {
      if (++count > 10_000) throw new Error("Drains as long as the guest writes");
      r.put(count & 0xff);
    });
    for (let i = 0; i < 50; i++) r.put(i);
    r.coalesced.drain();
    assert.equal(count, 50);
    r.coalesced.drain();
    assert.equal(count, 100);
  });
});
