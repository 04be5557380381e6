// Needs: a /dev/kvm of any kind. Guests of a few bytes of user-mode code.
import assert from "node:assert/strict";
import { HostError, KvmIoctlError } from "../../vmm/errors.js";
import { Bus } from "../../vmm/vcpu/bus.js";
import { KvmSystem } from "../../vmm/kvm/system.js";
import { KVM_EXIT_IO, KVM_EXIT_MMIO, KVM_EXIT_SHUTDOWN, kvm_regs, kvm_run } from "../../vmm/sys/kvm-abi.js";
import { measureGuestKernelMips } from "../../vmm/doctor/speed-probe.js";
import { ThreadAlarm } from "../../vmm/sys/thread-alarm.js";
import { viewMemory } from "../../vmm/sys/memory.js";
import { CoalescedRing } from "../../vmm/vcpu/coalesced-ring.js";
import { explainExit } from "../../vmm/vcpu/explain-exit.js";
import { dispatchExit } from "../../vmm/vcpu/loop.js";
import { skip } from "../helpers/skip.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { RAM_BYTES, tinyGuest, type TinyGuest } from "../helpers/tiny-guest.js";

const PORT = 0x300;

/** A bus with one port that records what arrives and answers reads with a count. */
function recorder(): { pio: Bus; mmio: Bus; log: string[] } {
  const log: string[] = [];
  let next = 0x41;
  const device = (name: string) => ({
    name,
    read: (offset: number, size: number) => {
      log.push(`${name} read ${String(offset)}/${String(size)}`);
      return next++;
    },
    write: (offset: number, size: number, value: number) => {
      log.push(`${name} write ${String(offset)}/${String(size)} ${value.toString(16)}`);
    },
  });
  const pio = new Bus("pio");
  const mmio = new Bus("mmio");
  pio.attach(PORT, 16, device("pio"));
  mmio.attach(RAM_BYTES, 4096, device("mmio"));
  return { pio, mmio, log };
}

describe("kvm: vcpu", function () {
  this.timeout(30_000);
  let guest: TinyGuest | undefined;

  before(function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
  });
  afterEach(() => {
    guest?.close();
    guest = undefined;
  });

  function start(...args: Parameters<typeof tinyGuest>): TinyGuest {
    guest = tinyGuest(...args);
    return guest;
  }

  it("OUT and IN reach the bus, and what IN brings reaches the guest", () => {
    // out dx, al; in al, dx; out dx, eax
    const { vcpu } = start([0xee, 0xec, 0xef], { rdx: PORT, rax: 0x7a });
    const { pio, mmio, log } = recorder();
    for (let i = 0; i < 3; i++) {
      assert.equal(vcpu.enter(), true);
      assert.equal(vcpu.run.exitReason, KVM_EXIT_IO);
      assert.equal(dispatchExit(vcpu.run, pio, mmio), "handled");
    }
    assert.deepEqual(log, ["pio write 0/1 7a", "pio read 0/1", "pio write 0/4 41"]);
  });

  it("REP OUTSB sends every byte of the string, in order, to one port", () => {
    // rep outsb; out dx, al
    const { vcpu, memory } = start([0xf3, 0x6e, 0xee], { rdx: PORT, rsi: 0x18000, rcx: 5, rax: 0xff });
    memory.slice(0x18000, 5).set(Buffer.from("hello"));
    const { pio, mmio, log } = recorder();
    while (log.length < 6) {
      assert.ok(vcpu.enter());
      dispatchExit(vcpu.run, pio, mmio);
    }
    const bytes = log.map((line) => String.fromCharCode(Number.parseInt(line.split(" ")[3] ?? "", 16)));
    assert.equal(bytes.join(""), "helloÿ");
  });

  it("a store and a load outside RAM are MMIO", () => {
    // mov [rdi], eax; mov eax, [rdi+8]; out dx, eax
    const { vcpu } = start([0x89, 0x07, 0x8b, 0x47, 0x08, 0xef], { rdi: RAM_BYTES, rax: 0x1234, rdx: PORT });
    const { pio, mmio, log } = recorder();
    for (const reason of [KVM_EXIT_MMIO, KVM_EXIT_MMIO, KVM_EXIT_IO]) {
      assert.ok(vcpu.enter());
      assert.equal(vcpu.run.exitReason, reason);
      dispatchExit(vcpu.run, pio, mmio);
    }
    assert.deepEqual(log, ["mmio write 0/4 1234", "mmio read 8/4", "pio write 0/4 41"]);
  });

  it("writes to a coalesced port come without an exit each, in order, before the next exit", () => {
    // loop: out dx, al; inc eax; dec ecx; jnz loop; inc edx; out dx, al
    const code = [0xee, 0xff, 0xc0, 0xff, 0xc9, 0x75, 0xf9, 0xff, 0xc2, 0xee];
    const { vcpu } = start(code, { rdx: PORT, rcx: 100, rax: 0 }, (vm) => vm.coalescePortWrites(PORT, 1));
    const { pio, mmio, log } = recorder();
    const ring = new CoalescedRing(vcpu.run, new Int32Array(new SharedArrayBuffer(4)), 0, pio);
    let exits = 0;
    while (log.at(-1)?.startsWith("pio write 1/") !== true) {
      assert.ok(vcpu.enter());
      exits++;
      ring.drain();
      dispatchExit(vcpu.run, pio, mmio);
    }
    assert.ok(exits < 10, `${String(exits)} exits for 101 writes`);
    const expected = Array.from({ length: 100 }, (_, i) => `pio write 0/1 ${i.toString(16)}`);
    assert.deepEqual(log, [...expected, "pio write 1/1 64"]);
  });

  it("immediate_exit and a signal break KVM_RUN; the guest goes on afterwards", () => {
    // loop: inc rax; jmp loop
    const { vcpu } = start([0x48, 0xff, 0xc0, 0xeb, 0xfb]);
    vcpu.run.immediateExit = 1;
    assert.equal(vcpu.enter(), false);
    vcpu.run.immediateExit = 0;
    const rax = (): bigint => vcpu.getRegs().getBigUint64(kvm_regs.rax, true);
    const counts = [0, 1].map(() => {
      const started = performance.now();
      const alarm = new ThreadAlarm();
      alarm.set(20);
      assert.equal(vcpu.enter(), false);
      alarm.close();
      assert.ok(performance.now() - started < 2000);
      return rax();
    });
    assert.ok((counts[0] ?? 0n) > 0n && (counts[1] ?? 0n) > (counts[0] ?? 0n));
  });

  it("a fault without an interrupt table is a triple fault", () => {
    const { vcpu } = start([0x0f, 0x0b]); // ud2
    assert.ok(vcpu.enter());
    assert.equal(vcpu.run.exitReason, KVM_EXIT_SHUTDOWN);
  });

  it("an exit that nobody knows is an error with the registers, not a loop", () => {
    const { vcpu } = start([0xee], { rdx: PORT, rbx: 0xabcdef });
    assert.ok(vcpu.enter());
    new DataView(viewMemory(vcpu.run.address, vcpu.run.length)).setUint32(kvm_run.exit_reason, 77, true);
    const { message } = explainExit(vcpu, 0);
    assert.match(message, /vCPU 0 stopped with KVM_EXIT_\(77\)/);
    assert.match(message, /rbx=0xabcdef/);
    assert.match(message, /rip=0x/);
  });

  it("a refused request names itself, the errno and the cure", () => {
    const { vm, system } = start([0x90]);
    assert.throws(
      () => vm.setMemoryRegion(1, { gpa: 0x123, size: 4096, hva: 0x1000 }),
      (error) =>
        error instanceof KvmIoctlError &&
        error.message === "KVM_SET_USER_MEMORY_REGION failed with EINVAL (22)" &&
        error.cure?.includes("--memory") === true,
    );
    assert.throws(
      () => vm.createVcpu(0, system.vcpuMmapSize()),
      (error) => error instanceof KvmIoctlError && error.errnoName === "EEXIST" && error.request === "KVM_CREATE_VCPU",
    );
  });

  it("a missing device, and one that is not KVM, are told apart", () => {
    assert.throws(
      () => KvmSystem.open("/dev/no-such-kvm"),
      (error) => error instanceof HostError && /does not exist/.test(error.message) && error.cure !== undefined,
    );
    assert.throws(
      () => KvmSystem.open("/dev/null"),
      (error) => error instanceof KvmIoctlError && error.request === "KVM_GET_API_VERSION",
    );
  });

  it("the speed probe gives a speed", () => {
    const system = KvmSystem.open();
    try {
      const mips = measureGuestKernelMips(system);
      assert.ok(mips > 0.1 && mips < 1e6, String(mips));
    } finally {
      system.close();
    }
  });
});
