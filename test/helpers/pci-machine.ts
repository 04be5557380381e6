// The machine around one virtio device on a PCI bus: memory, the bus, what MSI-X sends, a loop, the driver.
import type { GuestMemory } from "../../devices/contracts.js";
import { hostBridge } from "../../devices/pci/host-bridge.js";
import type { MsiMessage } from "../../devices/pci/msix.js";
import type { VirtioDevice } from "../../devices/virtio/device.js";
import { VirtioPciFunction } from "../../devices/virtio/pci-function.js";
import { PciRootBus } from "../../vmm/pci/root-bus.js";
import { FakeLoop } from "./fake-loop.js";
import { FakeMemory } from "./fake-memory.js";
import { MmioOverPci, PciDriver } from "./pci-driver.js";
import { VirtioDriver } from "./virtio-driver.js";
import { MACHINE_MEMORY_SIZE } from "./virtio-machine.js";

export const WINDOW = { gpa: 0xc800_0000, length: 0x10_0000 };
export const HIGH_WINDOW = { gpa: 0x2_0000_0000, length: 0x1_0000_0000 };
export const DEVICE_NUMBER = 1;

export interface PciMachine<Memory extends GuestMemory = FakeMemory> {
  readonly memory: Memory;
  readonly loop: FakeLoop;
  readonly bus: PciRootBus;
  readonly function: VirtioPciFunction;
  readonly pci: PciDriver;
  readonly registers: MmioOverPci;
  readonly driver: VirtioDriver;
  /** What was sent. */
  readonly sent: MsiMessage[];
  /** Where the range was said to be reached alone, each time. */
  readonly placed: (number | undefined)[];
  /** What was reported. */
  readonly log: string[];
  /** What a queue sends may be something else. */
  messagesChanged: () => void;
}

export function pciMachine(device: VirtioDevice): PciMachine;
export function pciMachine<Memory extends GuestMemory>(
  device: VirtioDevice,
  loop: FakeLoop,
  memory: Memory,
  heapGpa?: number,
): PciMachine<Memory>;
export function pciMachine(
  device: VirtioDevice,
  loop = new FakeLoop(),
  memory: GuestMemory = new FakeMemory(MACHINE_MEMORY_SIZE),
  heapGpa?: number,
): PciMachine<GuestMemory> {
  const log: string[] = [];
  const sent: MsiMessage[] = [];
  const placed: (number | undefined)[] = [];
  const bus = new PciRootBus([WINDOW, HIGH_WINDOW]);
  bus.attach(0, hostBridge());
  const fn = new VirtioPciFunction({
    device,
    memory,
    loop,
    address: WINDOW.gpa,
    send: (message) => sent.push(message),
    report: (line) => log.push(line),
    messagesChanged: () => {
      machine.messagesChanged();
    },
  });
  fn.barPlaced = (_, gpa) => placed.push(gpa);
  bus.attach(DEVICE_NUMBER, fn);
  const pci = new PciDriver(bus, DEVICE_NUMBER);
  const registers = new MmioOverPci(pci);
  const driver = new VirtioDriver(registers, memory, heapGpa);
  const messagesChanged = (): void => undefined;
  const machine = { memory, loop, bus, function: fn, pci, registers, driver, sent, placed, log, messagesChanged };
  return machine;
}
