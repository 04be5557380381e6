// Needs: a /dev/kvm of any kind. Interrupts by eventfds and messages, as they arrive at a local APIC.
import assert from "node:assert/strict";
import { KvmSystem } from "../../vmm/kvm/system.js";
import type { VcpuFd } from "../../vmm/kvm/vcpu-fd.js";
import type { VmFd } from "../../vmm/kvm/vm-fd.js";
import { MsiRoutes } from "../../vmm/pci/msi-routes.js";
import { closeDescriptor } from "../../vmm/sys/descriptors.js";
import { eventfd, signalEventfd } from "../../vmm/sys/events.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { skip } from "../helpers/skip.js";

const SPURIOUS = 0xf0;
const REQUESTS = 0x200;
const WAIT_MS = 5000;

const toFirst = (data: number) => ({ addressLow: 0xfee0_0000, addressHigh: 0, data });

describe("kvm: msi routes", function () {
  this.timeout(30_000);
  let system: KvmSystem | undefined;
  let vm: VmFd;
  let vcpu: VcpuFd;
  let routes: MsiRoutes;
  const fds: number[] = [];

  before(function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
  });
  beforeEach(() => {
    system = KvmSystem.open();
    vm = system.createVm();
    vm.createIrqchip();
    vcpu = vm.createVcpu(0, system.vcpuMmapSize());
    const lapic = vcpu.getLapic();
    lapic.setUint32(SPURIOUS, 0x1ff, true);
    vcpu.setLapic(lapic);
    routes = new MsiRoutes(vm);
  });
  afterEach(() => {
    for (const fd of fds.splice(0)) closeDescriptor(fd);
    vcpu.close();
    vm.close();
    system?.close();
  });

  function event(): number {
    const fd = eventfd();
    fds.push(fd);
    return fd;
  }

  /** Vectors that wait at the local APIC. */
  function waiting(): number[] {
    const lapic = vcpu.getLapic();
    return Array.from({ length: 256 }, (_, vector) => vector).filter(
      (vector) => ((lapic.getUint32(REQUESTS + 0x10 * (vector >> 5), true) >>> (vector & 31)) & 1) !== 0,
    );
  }

  /** An eventfd's interrupt may come from a thread of the kernel. */
  async function assertWaiting(expected: readonly number[]): Promise<void> {
    const end = performance.now() + WAIT_MS;
    while (waiting().length < expected.length && performance.now() < end) {
      await new Promise((resolve) => setTimeout(resolve, 1));
    }
    assert.deepEqual(waiting(), expected);
  }

  it("each eventfd sends its own message, and lines go on as before", async () => {
    const [first, second] = [event(), event()];
    routes.connect(first).set(toFirst(0x41));
    routes.connect(second).set(toFirst(0x52));
    signalEventfd(second);
    await assertWaiting([0x52]);
    signalEventfd(first);
    await assertWaiting([0x41, 0x52]);
    // The 8259A wakes nobody here, but takes the line: without its routes this would be an error.
    vm.pulseIrqLine(4);
  });

  it("what is signalled while a route is masked comes when it is not", async () => {
    const fd = event();
    const route = routes.connect(fd);
    signalEventfd(fd);
    await new Promise((resolve) => setTimeout(resolve, 20));
    await assertWaiting([]);
    route.set(toFirst(0x43));
    await assertWaiting([0x43]);
    route.set(undefined);
    signalEventfd(fd);
    await new Promise((resolve) => setTimeout(resolve, 20));
    route.set(toFirst(0x44));
    await assertWaiting([0x43, 0x44]);
  });

  it("a route that is closed gives its number to the next; messages to nowhere are lost", async () => {
    const fd = event();
    for (let times = 0; times < 3000; times++) routes.connect(fd).close();
    const route = routes.connect(fd);
    route.set({ addressLow: 0xffff_fffc, addressHigh: 0xffff_ffff, data: 0xffff_ffff });
    signalEventfd(fd);
    route.set(toFirst(0x45));
    signalEventfd(fd);
    await assertWaiting([0x45]);
  });

  it("a message without an eventfd", async () => {
    vm.signalMsi(0xfee0_0000, 0, 0x46);
    await assertWaiting([0x46]);
    // To a processor that is not there.
    vm.signalMsi(0xfee0_0000 + (77 << 12), 0, 0x47);
    await assertWaiting([0x46]);
  });
});
