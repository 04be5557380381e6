// A device saved in one machine and restored into another over the same guest memory: what a driver has begun with the
// first, it goes on with at the second.
import type { GuestMemory } from "../../devices/contracts.js";
import { StateReader } from "../../devices/state.js";
import type { VirtioDevice } from "../../devices/virtio/device.js";
import type { FakeLoop } from "./fake-loop.js";
import { virtioMachine, type VirtioMachine } from "./virtio-machine.js";

export interface SavedDevice {
  readonly transport: unknown;
  readonly device: unknown;
}

/** Makes the device quiet and saves it, as a file would hold it; `meanwhile` lets finish what it waits for. */
export async function saveQuiet<Memory extends GuestMemory>(
  { transport, loop }: Pick<VirtioMachine<Memory>, "transport" | "loop">,
  meanwhile: () => void = () => undefined,
): Promise<SavedDevice> {
  const quiet = transport.quiesce();
  meanwhile();
  loop.settle();
  await quiet;
  return saved({ transport });
}

/** The state of a device that is quiet. */
export function saved({ transport }: Pick<VirtioMachine, "transport">): SavedDevice {
  return JSON.parse(JSON.stringify({ transport: transport.save(), device: transport.device.save() })) as SavedDevice;
}

export function restoreSaved({ transport }: Pick<VirtioMachine, "transport">, state: unknown): void {
  const reader = new StateReader(state, "state");
  reader.only(["transport", "device"]);
  transport.restore(reader.at("transport"), reader.at("device"));
}

/** A machine with `device` in the state; it is served again. */
export function restoredMachine<Memory extends GuestMemory>(
  state: SavedDevice,
  device: VirtioDevice,
  loop: FakeLoop,
  memory: Memory,
): VirtioMachine<Memory> {
  const machine = virtioMachine(device, loop, memory);
  restoreSaved(machine, state);
  machine.transport.unquiesce();
  return machine;
}
