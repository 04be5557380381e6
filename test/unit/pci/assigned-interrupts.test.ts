// Needs: nothing. Which of a device's three ways to interrupt is on, what the host and KVM are told, and a guest that rests.
import assert from "node:assert/strict";
import { PCI_MSIX_FLAGS_ENABLE } from "../../../devices/pci/constants.js";
import type { GsiRoute } from "../../../vmm/kvm/vm-fd.js";
import { MsiRoutes } from "../../../vmm/pci/msi-routes.js";
import { DeviceLoss } from "../../../vmm/pci/vfio/device-loss.js";
import { AssignedInterrupts } from "../../../vmm/pci/vfio/interrupts.js";
import type { VectorSource } from "../../../vmm/pci/vfio/vectors.js";
import { signalEventfd } from "../../../vmm/sys/events.js";
import { VFIO_PCI_ERR_IRQ_INDEX, VFIO_PCI_REQ_IRQ_INDEX } from "../../../vmm/sys/vfio-abi.js";

const GSI = 17;
const MSI_AT = 0x58;
const TURN_MS = 20;

function rig({ refuses = "" } = {}) {
  const log: string[] = [];
  const raised: number[] = [];
  const reports: string[] = [];
  let line = -1;
  const note = (text: string): void => {
    if (refuses !== "" && text.startsWith(refuses)) throw new Error(`no ${refuses}`);
    log.push(text);
  };
  const vectors = (kind: string): VectorSource => ({
    enableVectors: (count) => {
      note(`${kind} on ${String(count)}`);
    },
    connectVector: (vector) => {
      note(`${kind} vector ${String(vector)}`);
    },
    disableVectors: () => {
      note(`${kind} off`);
    },
  });
  const vm = {
    signalMsi: () => undefined,
    connectIrqfd: () => log.push("irqfd"),
    connectResamplingIrqfd: (_raised: number, _acknowledged: number, gsi: number) =>
      log.push(`line irqfd ${String(gsi)}`),
    disconnectIrqfd: (_fd: number, gsi: number) => log.push(gsi === GSI ? "no line irqfd" : "no irqfd"),
    trySetGsiRouting: (_: readonly GsiRoute[]) => true,
  };
  const interrupts = new AssignedInterrupts({
    source: {
      msix: vectors("msix"),
      msi: vectors("msi"),
      line: {
        enableLine: (fd) => {
          note("line on");
          line = fd;
        },
        unmaskLine: () => {
          note("line unmasked");
        },
        disableLine: () => {
          note("line off");
        },
      },
    },
    layout: {
      msix: { at: 0x70, vectors: 2, bar: 0, tableOffset: 0, pbaBar: 0, pbaOffset: 0x800 },
      msi: { at: MSI_AT, vectors: 2 },
      hasLine: true,
    },
    gsi: GSI,
    vm,
    routes: new MsiRoutes(vm as unknown as ConstructorParameters<typeof MsiRoutes>[0]),
    interruptRaised: () => raised.push(1),
    guard: (task) => {
      task();
    },
    report: (text) => reports.push(text),
  });
  const programMsi = (flags: number): void => {
    const registers = new DataView(new ArrayBuffer(256));
    registers.setUint16(MSI_AT + 2, flags, true);
    registers.setUint32(MSI_AT + 4, 0xfee0_0000, true);
    interrupts.msi?.look(
      { readU16: (at) => registers.getUint16(at, true), readU32: (at) => registers.getUint32(at, true) },
      MSI_AT,
    );
  };
  return { interrupts, log, raised, reports, programMsi, signalLine: () => signalEventfd(line) };
}

const turn = async (): Promise<void> => new Promise((resolve) => setTimeout(resolve, TURN_MS));

describe("vfio: interrupts", () => {
  it("one way at a time: the line, MSI in its place, MSI-X in that one's, and back", () => {
    const { interrupts, log, programMsi } = rig();
    interrupts.letUseLine(true);
    assert.deepEqual(log.splice(0), ["line on", "line irqfd 17"]);
    programMsi(0x11);
    assert.deepEqual(log.splice(0), [
      "no line irqfd",
      "line off",
      "msi on 2",
      "msi vector 0",
      "irqfd",
      "msi vector 1",
      "irqfd",
    ]);
    assert.ok(interrupts.msix !== undefined);
    interrupts.msix.flags = PCI_MSIX_FLAGS_ENABLE;
    assert.deepEqual(log.splice(0), ["no irqfd", "no irqfd", "msi off", "msix on 2"]);
    interrupts.msix.table.write(0, 4, 0xfee0_0000);
    interrupts.msix.table.write(12, 4, 0);
    assert.deepEqual(log.splice(0), ["msix vector 0", "irqfd"]);
    interrupts.msix.flags = 0;
    assert.deepEqual(log.splice(0), [
      "no irqfd",
      "msix off",
      "msi on 2",
      "msi vector 0",
      "irqfd",
      "msi vector 1",
      "irqfd",
    ]);
    programMsi(0);
    assert.deepEqual(log.splice(0), ["no irqfd", "no irqfd", "msi off", "line on", "line irqfd 17"]);
    interrupts.letUseLine(false);
    interrupts.close();
    assert.deepEqual(log, ["no line irqfd", "line off"]);
  });

  it("a guest that rests: the line's signal stays in its eventfd until KVM has it again, and the guest is woken", async () => {
    const { interrupts, log, raised, signalLine } = rig();
    interrupts.letUseLine(true);
    log.length = 0;
    interrupts.relay(true);
    interrupts.relay(true);
    assert.deepEqual(log.splice(0), ["no line irqfd", "line unmasked"]);
    signalLine();
    await turn();
    assert.deepEqual([log.splice(0), raised.length], [["line irqfd 17"], 1]);
    interrupts.relay(false);
    assert.deepEqual(log.splice(0), ["line unmasked"]);
    interrupts.relay(true);
    interrupts.relay(false);
    assert.deepEqual(log.splice(0), ["no line irqfd", "line unmasked", "line irqfd 17", "line unmasked"]);
    interrupts.close();
  });

  it("a way that is turned on while the guest rests is watched, not connected", async () => {
    const { interrupts, log, signalLine, raised } = rig();
    interrupts.relay(true);
    interrupts.letUseLine(true);
    assert.deepEqual(log.splice(0), ["line on"]);
    signalLine();
    await turn();
    assert.deepEqual([log, raised.length], [["line irqfd 17"], 1]);
    interrupts.close();
  });

  for (const refuses of ["line on", "msi on", "msix on", "msix vector"]) {
    it(`what the host refuses, "${refuses}", is said once, and the other ways still work`, () => {
      const { interrupts, log, reports, programMsi } = rig({ refuses });
      for (let times = 0; times < 2; times++) {
        interrupts.letUseLine(true);
        programMsi(1);
        if (interrupts.msix !== undefined) {
          interrupts.msix.flags = PCI_MSIX_FLAGS_ENABLE;
          interrupts.msix.table.write(0, 4, 0xfee0_0000);
          interrupts.msix.table.write(12, 4, times);
          interrupts.msix.table.write(12, 4, 0);
          interrupts.msix.flags = 0;
        }
        programMsi(0);
        interrupts.letUseLine(false);
      }
      assert.deepEqual(reports, [`its interrupts do not work: no ${refuses}`]);
      assert.equal(log.filter((text) => text === "line on").length, refuses === "line on" ? 0 : 4);
      assert.equal(log.filter((text) => text === "msix on 2").length, refuses === "msix on" ? 0 : 2);
      interrupts.close();
    });
  }
});

describe("vfio: a device that the guest loses", () => {
  for (const [index, message] of [
    [
      VFIO_PCI_REQ_IRQ_INDEX,
      "Assigned device 0000:01:00.1: this host takes it back, and the guest cannot go on without it",
    ],
    [VFIO_PCI_ERR_IRQ_INDEX, "Assigned device 0000:01:00.1: it has failed, and the guest cannot go on without it"],
  ] as const) {
    it(`ends the VM: ${message}`, async () => {
      const fds = new Map<number, number>();
      const failures: unknown[] = [];
      const device = {
        address: "0000:01:00.1",
        interrupts: () => 1,
        connect: (kind: number, fd: number) => void fds.set(kind, fd),
      };
      const loss = new DeviceLoss(device, (task) => {
        assert.throws(task, (error) => failures.push(error) > 0);
      });
      signalEventfd(fds.get(index) ?? -1);
      await turn();
      loss.close();
      assert.deepEqual(
        failures.map((error) => (error as Error).message),
        [message],
      );
    });
  }

  it("a device whose kernel says nothing of it is not asked", () => {
    const device = { address: "0000:01:00.1", interrupts: () => 0, connect: () => assert.fail("connected") };
    new DeviceLoss(device, () => undefined).close();
  });
});
