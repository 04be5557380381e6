// The host bridge, device 0 of the root bus: nothing but a header, by which systems know that there is a bus.
import { EmulatedFunction } from "./function.js";

/** A generic PCI Express host bridge, for which nobody has a driver. */
const VENDOR_ID = 0x1b36;
const DEVICE_ID = 0x0008;
const CLASS_HOST_BRIDGE = 0x06_00_00;

export function hostBridge(): EmulatedFunction {
  return new EmulatedFunction({
    name: "host-bridge",
    vendorId: VENDOR_ID,
    deviceId: DEVICE_ID,
    revision: 0,
    classCode: CLASS_HOST_BRIDGE,
  });
}
