// Configuration space, base address registers, MSI-X and virtio's structures under accesses of any size in any order, with
// two devices that lie over each other at times; what KVM is told of doorbells and messages; then a proper driver.
import assert from "node:assert/strict";
import type { AccessSize } from "../../../devices/contracts.js";
import { PciConfigPorts } from "../../../devices/pci/config-ports.js";
import { PCI_BASE_ADDRESS_0, PCI_COMMAND } from "../../../devices/pci/constants.js";
import {
  VIRTIO_CONFIG_S_DRIVER_OK,
  VIRTIO_F_VERSION_1,
  VIRTIO_RING_F_EVENT_IDX,
  VIRTIO_RING_F_INDIRECT_DESC,
} from "../../../devices/virtio/constants.js";
import { featureSet } from "../../../devices/virtio/features.js";
import type { MsiMessage } from "../../../devices/pci/msix.js";
import { NOTIFY_MULTIPLIER, NOTIFY_OFFSET } from "../../../devices/virtio/pci-transport.js";
import { VIRTIO_PCI_BAR_LENGTH, VirtioPciFunction } from "../../../devices/virtio/pci-function.js";
import { IO_APIC_GPA, LOCAL_APIC_GPA, PCI_ECAM_GPA } from "../../../vmm/memory/layout.js";
import { DriverQueue } from "../../helpers/driver-queue.js";
import { ECHO_FEATURE, EchoDevice } from "../../helpers/echo-device.js";
import { FakeLoop } from "../../helpers/fake-loop.js";
import { PciDoorbells } from "../../../vmm/virtio/pci-doorbells.js";
import { PciInterrupts } from "../../../vmm/virtio/pci-interrupts.js";
import { HIGH_WINDOW, pciMachine, WINDOW } from "../../helpers/pci-machine.js";
import { MmioOverPci, PciDriver } from "../../helpers/pci-driver.js";
import { VirtioDriver } from "../../helpers/virtio-driver.js";
import { disturb, publishChain } from "../hostile-driver.js";
import { HostileMemory, type RamLayout } from "../hostile-memory.js";
import { runOperations } from "../operations.js";
import type { Random } from "../random.js";
import type { FuzzTarget } from "../target.js";

const RAM = 0x8000;
const QUEUE_GPA = 0x4000;
/** Far more than a turn's worth of chains can take. */
const LIMITS = { count: 80, maxAccesses: 2000 };
const SIZES: readonly AccessSize[] = [1, 2, 4];
const PORTS = 8;

/** Stand for eventfds: of queue `queue` of device `device`. */
const fdOf = (device: number, queue: number): number => 100 * device + queue;

/** KVM's ioeventfds: an address that is taken, or one that is not there, would be an error that ends the VM. */
class FakeDoorkeeper {
  readonly #fds = new Map<number, number>();

  connectIoeventfd(fd: number, gpa: number): void {
    assert.ok(!this.#fds.has(gpa), `a doorbell at 0x${gpa.toString(16)} twice`);
    this.#fds.set(gpa, fd);
  }

  disconnectIoeventfd(fd: number, gpa: number): void {
    assert.equal(this.#fds.get(gpa), fd, `no doorbell at 0x${gpa.toString(16)}`);
    this.#fds.delete(gpa);
  }

  of(fd: number): number[] {
    return [...this.#fds].flatMap(([gpa, one]) => (one === fd ? [gpa] : []));
  }
}

/** What the host's kernel has for the queues of these functions; `check` after each access of the guest. */
function attachKernel(functions: readonly VirtioPciFunction[]) {
  const keeper = new FakeDoorkeeper();
  const doorbells = new PciDoorbells(keeper);
  const sends = new Map<number, MsiMessage | undefined>();
  const interrupts = new PciInterrupts({
    connect: (fd) => ({
      set: (message: MsiMessage | undefined) => void sends.set(fd, message),
      close: () => undefined,
    }),
  });
  const placed = functions.map((): number | undefined => undefined);
  functions.forEach((fn, device) => {
    const told = fn.barPlaced;
    fn.barPlaced = (index, gpa) => {
      told?.(index, gpa);
      placed[device] = gpa;
      doorbells.placed(device, gpa);
    };
    fn.transport.device.queueMaxSizes.forEach((_, queue) => {
      doorbells.connectTo(device, queue, fdOf(device, queue));
      interrupts.connect(device, queue, fdOf(device, queue), (index) => fn.queueMessage(index));
    });
  });
  const used = new Set<number>();
  return {
    messagesChanged: (device: number): void => {
      interrupts.messagesChanged(device, (index) => functions[device]?.queueMessage(index));
    },
    check: (): void => {
      functions.forEach((fn, device) => {
        if (fn.transport.isLive && !used.has(device)) {
          used.add(device);
          doorbells.used(device);
        }
        fn.transport.device.queueMaxSizes.forEach((_, queue) => {
          const fd = fdOf(device, queue);
          const gpa = placed[device];
          const expected =
            gpa === undefined || !used.has(device) ? [] : [gpa + NOTIFY_OFFSET + NOTIFY_MULTIPLIER * queue];
          assert.deepEqual(keeper.of(fd), expected, "a doorbell is not where its device is");
          assert.deepEqual(sends.get(fd), fn.queueMessage(queue), "an eventfd sends what the guest has not set up");
        });
      });
    },
  };
}

function assertRead(value: number): void {
  assert.ok(Number.isInteger(value) && value >= 0 && value < 2 ** 32, String(value));
}

export const pciTarget: FuzzTarget = {
  name: "pci",
  run(random: Random, layout: RamLayout) {
    const memory = new HostileMemory(RAM, random, layout);
    const m = pciMachine(new EchoDevice(), new FakeLoop(), memory, memory.heapGpa);
    const { bus, pci, driver, registers, loop } = m;
    const second = new VirtioPciFunction({
      device: new EchoDevice(),
      memory,
      loop,
      address: WINDOW.gpa + VIRTIO_PCI_BAR_LENGTH,
      send: () => undefined,
      report: () => undefined,
      messagesChanged: () => {
        kernel.messagesChanged(1);
      },
    });
    const kernel = attachKernel([m.function, second]);
    m.messagesChanged = () => {
      kernel.messagesChanged(0);
    };
    bus.attach(2, second);
    // The first has been told of its place already.
    pci.move(WINDOW.gpa + 2 * VIRTIO_PCI_BAR_LENGTH);
    const ports = new PciConfigPorts(new Int32Array(new SharedArrayBuffer(4)), bus.ecam);
    const queue = new DriverQueue(memory, QUEUE_GPA, 2 ** random.below(6), random.oneIn(2));
    memory.changeOneIn = random.pick([0, 0, 5, 50]);

    /** Mostly one of the two functions. */
    const anyConfig = (): number =>
      random.oneIn(8)
        ? random.below(2 ** 20)
        : ((1 + random.below(2)) << 15) + random.below(random.oneIn(8) ? 4096 : 256);
    const anyAddress = (): number =>
      random.pick([
        () => WINDOW.gpa + VIRTIO_PCI_BAR_LENGTH * random.below(4),
        () => WINDOW.gpa + 0x1000 * random.below(0x100),
        () => random.pick([PCI_ECAM_GPA, IO_APIC_GPA, LOCAL_APIC_GPA, WINDOW.gpa - VIRTIO_PCI_BAR_LENGTH]),
        () => WINDOW.gpa + WINDOW.length - VIRTIO_PCI_BAR_LENGTH,
        () => HIGH_WINDOW.gpa + VIRTIO_PCI_BAR_LENGTH * random.below(4),
        () => memory.at(0),
        () => random.value() + random.value() * 2 ** 32,
      ])();
    const operations: readonly (() => void)[] = [
      () => bus.ecam.write(anyConfig(), random.pick(SIZES), random.value()),
      () => {
        assertRead(bus.ecam.read(anyConfig(), random.pick(SIZES)));
      },
      () =>
        ports.write(
          0,
          4,
          random.oneIn(4) ? random.value() : 0x8000_0000 + 0x800 * random.below(4) + 4 * random.below(64),
        ),
      () => ports.write(random.below(PORTS), random.pick(SIZES), random.value()),
      () => {
        assertRead(ports.read(random.below(PORTS), random.pick(SIZES)));
      },
      () => pci.writeConfig(PCI_COMMAND, 2, random.oneIn(2) ? 6 : random.value()),
      () => pci.writeConfig(PCI_BASE_ADDRESS_0 + 4 * random.below(6), 4, random.value()),
      () => {
        pci.move(anyAddress());
      },
      () => {
        bus.ecam.write((2 << 15) + PCI_BASE_ADDRESS_0, 4, anyAddress() % 2 ** 32);
      },
      () => {
        // Over the first.
        new PciDriver(bus, 2).move(random.oneIn(3) ? anyAddress() : pci.address);
      },
      () => void new PciDriver(bus, 2).enableMsix(random.value()),
      () => {
        const other = new VirtioDriver(new MmioOverPci(new PciDriver(bus, 2)), memory, memory.heapGpa);
        if (random.oneIn(4)) other.reset();
        else if (other.negotiate([])) other.addStatus(VIRTIO_CONFIG_S_DRIVER_OK);
      },
      () => {
        const window = random.pick(bus.windows);
        window.device.write(random.below(0x1_8000), random.pick(SIZES), random.value());
      },
      () => {
        const window = random.pick(bus.windows);
        assertRead(window.device.read(random.below(0x1_8000), random.pick(SIZES)));
      },
      () => registers.writeCommon(random.below(64), random.pick(SIZES), random.value()),
      () => registers.setVectors(random.below(4)),
      () => void pci.enableMsix(random.value()),
      () => pci.writeVector(random.below(4), [random.value()], random.below(4)),
      () => driver.addStatus(2 ** random.below(8)),
      () => driver.writeFeatures(featureSet(VIRTIO_F_VERSION_1, random.below(64))),
      () => {
        if (driver.negotiate([ECHO_FEATURE, VIRTIO_RING_F_INDIRECT_DESC])) driver.announceQueue(random.below(3), queue);
        driver.addStatus(VIRTIO_CONFIG_S_DRIVER_OK);
      },
      () => publishChain(random, memory, queue),
      () => disturb(random, memory, queue),
      () => driver.notify(random.below(3)),
      () => void loop.turn(),
    ];
    runOperations(random, memory, operations, LIMITS, () => {
      kernel.check();
      const gpa = m.placed.at(-1);
      if (gpa === undefined) return;
      const isIn = [WINDOW, HIGH_WINDOW].some(
        (window) => gpa >= window.gpa && gpa + VIRTIO_PCI_BAR_LENGTH <= window.gpa + window.length,
      );
      assert.ok(isIn && gpa % VIRTIO_PCI_BAR_LENGTH === 0, `said to be at 0x${gpa.toString(16)}`);
    });

    memory.changeOneIn = 0;
    bus.ecam.write((2 << 15) + PCI_COMMAND, 2, 0);
    pci.move(WINDOW.gpa);
    driver.reset();
    pci.enableMsix();
    const [clean] = driver.start({ features: [VIRTIO_RING_F_EVENT_IDX] });
    assert.ok(clean !== undefined, "no queue after reset");
    registers.setVectors(2);
    m.sent.length = 0;
    memory.writeU32(memory.end - 16, 0x600d_cafe);
    const head = clean.add([
      { gpa: memory.end - 16, length: 4 },
      { gpa: memory.end - 8, length: 8, writable: true },
    ]);
    driver.notify(0);
    loop.settle();
    assert.deepEqual(clean.collect(), [{ id: head, length: 4 }], "does not work after reset");
    assert.equal(memory.readU32(memory.end - 8), 0x600d_cafe);
    assert.deepEqual(m.sent, [{ addressLow: 0xfee0_0000, addressHigh: 0, data: 0x21 }]);
  },
};
