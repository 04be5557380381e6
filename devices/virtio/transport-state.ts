// The registers of a saved transport, checked: nothing is taken that no driver could have brought about.
import { hex64, StateError, type NumberLimits, type StateReader } from "../state.js";
import {
  VIRTIO_CONFIG_S_FEATURES_OK,
  VIRTIO_F_VERSION_1,
  VIRTIO_MMIO_INT_CONFIG,
  VIRTIO_MMIO_INT_VRING,
} from "./constants.js";
import { hasFeature } from "./features.js";
import { VIRTIO_MSI_NO_VECTOR, VIRTIO_PCI_ISR_CONFIG, VIRTIO_PCI_ISR_QUEUE } from "./pci-constants.js";
import type { QueueIndices } from "./queue.js";
import { isReachable, STATUS_DRIVER_OK } from "./status.js";

/** What all transports have. */
export interface TransportState {
  readonly status: number;
  readonly needsReset: boolean;
  readonly deviceFeaturesSel: number;
  readonly driverFeaturesSel: number;
  readonly driverFeatures: bigint;
  readonly queueSel: number;
  readonly configGeneration: number;
  /** What lies behind QueueSel, one a queue; queue-registers.ts checks them. */
  readonly queues: readonly StateReader[];
  /** The driver uses the device: each queue goes on from these. */
  readonly isLive: boolean;
  readonly rings: readonly QueueIndices[];
}

const U16: NumberLimits = { minimum: 0, maximum: 0xffff };
const U32: NumberLimits = { minimum: 0, maximum: 0xffff_ffff };
const INTERRUPT_STATUS: NumberLimits = { minimum: 0, maximum: VIRTIO_MMIO_INT_VRING | VIRTIO_MMIO_INT_CONFIG };

const FIELDS = [
  ...["status", "needsReset", "deviceFeaturesSel", "driverFeaturesSel", "driverFeatures", "queueSel"],
  ...["configGeneration", "queues", "rings"],
];

/** A virtio-mmio window's. */
export interface MmioState extends TransportState {
  readonly interruptStatus: number;
}

/** Of a device with so many queues that offers these features. */
export function readMmioState(state: StateReader, queues: number, offered: bigint): MmioState {
  state.only([...FIELDS, "interruptStatus"]);
  const interruptStatus = state.integer("interruptStatus", INTERRUPT_STATUS);
  return { ...readCommon(state, queues, offered), interruptStatus };
}

/** A PCI function's. */
export interface PciState extends TransportState {
  readonly isr: number;
  readonly configVector: number;
  /** One a queue. */
  readonly queueVectors: readonly number[];
}

/** As readMmioState, with so many vectors. */
export function readPciState(state: StateReader, queues: number, offered: bigint, vectors: number): PciState {
  state.only([...FIELDS, "isr", "configVector", "queueVectors"]);
  const readVector = (value: StateReader): number =>
    value.value === VIRTIO_MSI_NO_VECTOR ? VIRTIO_MSI_NO_VECTOR : value.asInteger({ minimum: 0, maximum: vectors - 1 });
  return {
    ...readCommon(state, queues, offered),
    isr: state.integer("isr", { minimum: 0, maximum: VIRTIO_PCI_ISR_QUEUE | VIRTIO_PCI_ISR_CONFIG }),
    configVector: readVector(state.at("configVector")),
    queueVectors: state.list("queueVectors", queues).map(readVector),
  };
}

function readCommon(state: StateReader, queues: number, offered: bigint): TransportState {
  const status = state.integer("status", { minimum: 0, maximum: 0xff });
  if (!isReachable(status)) throw state.at("status").wrong("a status that a driver can have come to");
  const needsReset = state.boolean("needsReset");
  const driverFeatures = state.hex64("driverFeatures");
  if ((status & VIRTIO_CONFIG_S_FEATURES_OK) !== 0) checkFeatures(state.at("driverFeatures"), driverFeatures, offered);
  const isLive = status === STATUS_DRIVER_OK && !needsReset;
  return {
    status,
    needsReset,
    deviceFeaturesSel: state.integer("deviceFeaturesSel", U32),
    driverFeaturesSel: state.integer("driverFeaturesSel", U32),
    driverFeatures,
    queueSel: state.integer("queueSel", U32),
    configGeneration: state.integer("configGeneration", U32),
    queues: state.list("queues", queues),
    isLive,
    rings: state.list("rings", isLive ? queues : 0).map(readIndices),
  };
}

/** What the driver has chosen must be there still: the device may have another host side now. */
function checkFeatures(state: StateReader, features: bigint, offered: bigint): void {
  const missing = features & ~offered;
  if (missing !== 0n) {
    throw new StateError(state.path, `${hex64(features)} has bits that this device does not offer: ${hex64(missing)}`);
  }
  if (!hasFeature(features, VIRTIO_F_VERSION_1)) throw state.wrong("a choice with VIRTIO_F_VERSION_1");
}

function readIndices(state: StateReader): QueueIndices {
  state.only(["nextAvailable", "nextUsed"]);
  return { nextAvailable: state.integer("nextAvailable", U16), nextUsed: state.integer("nextUsed", U16) };
}
