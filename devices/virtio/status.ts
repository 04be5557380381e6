// Which device status a driver may write after which: the initialization sequence of
// virtio 1.2 §3.1.1 as a table. Reset (0) and FAILED are always open and not listed.
import {
  VIRTIO_CONFIG_S_ACKNOWLEDGE,
  VIRTIO_CONFIG_S_DRIVER,
  VIRTIO_CONFIG_S_DRIVER_OK,
  VIRTIO_CONFIG_S_FAILED,
  VIRTIO_CONFIG_S_FEATURES_OK,
} from "./constants.js";

const ACKNOWLEDGED = VIRTIO_CONFIG_S_ACKNOWLEDGE;
/** The driver knows the device: features are being negotiated. */
export const STATUS_DRIVER = ACKNOWLEDGED | VIRTIO_CONFIG_S_DRIVER;
/** Features are settled: queues are being set up. */
export const STATUS_FEATURES_OK = STATUS_DRIVER | VIRTIO_CONFIG_S_FEATURES_OK;
/** The device is live. */
export const STATUS_DRIVER_OK = STATUS_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK;

const TRANSITIONS: readonly (readonly [from: number, to: number])[] = [
  [0, ACKNOWLEDGED],
  // Firmware such as SeaBIOS takes the first two steps in one.
  [0, STATUS_DRIVER],
  [ACKNOWLEDGED, STATUS_DRIVER],
  [STATUS_DRIVER, STATUS_FEATURES_OK],
  [STATUS_FEATURES_OK, STATUS_DRIVER_OK],
];

/** True for the bits that a driver can have come to; `status` is what it has written, DEVICE_NEEDS_RESET not counted. */
export function isReachable(status: number): boolean {
  const steps = [0, ACKNOWLEDGED, STATUS_DRIVER, STATUS_FEATURES_OK, STATUS_DRIVER_OK];
  return steps.includes(status & ~VIRTIO_CONFIG_S_FAILED) && status >= 0 && status <= 0xff;
}

/** True if a driver may go from one status to the other, DEVICE_NEEDS_RESET not counted. */
export function isLegalTransition(from: number, to: number): boolean {
  if (to === (from | VIRTIO_CONFIG_S_FAILED)) return true;
  return TRANSITIONS.some(([before, after]) => from === before && to === after);
}
