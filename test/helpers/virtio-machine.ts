// The machine around one virtio device: memory, an interrupt line, a loop, the driver.
import type { GuestMemory } from "../../devices/contracts.js";
import type { VirtioDevice } from "../../devices/virtio/device.js";
import { MmioTransport, VIRTIO_MMIO_REGISTER_WORDS } from "../../devices/virtio/mmio-transport.js";
import { FakeLoop } from "./fake-loop.js";
import { FakeMemory } from "./fake-memory.js";
import { VirtioDriver } from "./virtio-driver.js";

export interface VirtioMachine<Memory extends GuestMemory = FakeMemory> {
  readonly memory: Memory;
  readonly loop: FakeLoop;
  readonly transport: MmioTransport;
  readonly driver: VirtioDriver;
  /** The window as a guest reads it. */
  readonly registers: Int32Array;
  /** How often the interrupt line has fired. */
  interrupts: number;
  /** What was reported. */
  readonly log: string[];
}

export const MACHINE_MEMORY_SIZE = 0x40_0000;

/** `memory` and `loop` are those that the device was made with, if it was made with any; `heapGpa` is the driver's. */
export function virtioMachine(device: VirtioDevice, loop?: FakeLoop): VirtioMachine;
export function virtioMachine<Memory extends GuestMemory>(
  device: VirtioDevice,
  loop: FakeLoop,
  memory: Memory,
  heapGpa?: number,
): VirtioMachine<Memory>;
export function virtioMachine(
  device: VirtioDevice,
  loop = new FakeLoop(),
  memory: GuestMemory = new FakeMemory(MACHINE_MEMORY_SIZE),
  heapGpa?: number,
): VirtioMachine<GuestMemory> {
  const log: string[] = [];
  const registers = new Int32Array(VIRTIO_MMIO_REGISTER_WORDS);
  const transport = new MmioTransport({
    device,
    memory,
    interrupt: { trigger: () => machine.interrupts++ },
    registers,
    loop,
    report: (line) => log.push(line),
  });
  const driver = new VirtioDriver(transport, memory, heapGpa);
  const machine = { memory, loop, transport, driver, registers, interrupts: 0, log };
  return machine;
}
