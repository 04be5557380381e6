// A virtio device as a function on a PCI bus: its identity, the capabilities that say where the structures lie, MSI-X with
// a vector a queue and one for the configuration. virtio 1.2 §4.1.2, §4.1.4.
import type { AccessSize, BusDevice } from "../contracts.js";
import { PCI_CAP_ID_VNDR } from "../pci/constants.js";
import { EmulatedFunction, type Capability } from "../pci/function.js";
import { Msix, type MsiMessage } from "../pci/msix.js";
import {
  VIRTIO_ID_BALLOON,
  VIRTIO_ID_BLOCK,
  VIRTIO_ID_CONSOLE,
  VIRTIO_ID_FS,
  VIRTIO_ID_NET,
  VIRTIO_ID_VSOCK,
} from "./constants.js";
import {
  PCI_VENDOR_ID_REDHAT_QUMRANET,
  VIRTIO_PCI_CAP_BAR,
  VIRTIO_PCI_CAP_COMMON_CFG,
  VIRTIO_PCI_CAP_DEVICE_CFG,
  VIRTIO_PCI_CAP_ISR_CFG,
  VIRTIO_PCI_CAP_LENGTH,
  VIRTIO_PCI_CAP_NOTIFY_CFG,
  VIRTIO_PCI_CAP_OFFSET,
  VIRTIO_PCI_CAP_PCI_CFG,
  VIRTIO_PCI_CAP_SIZEOF,
  VIRTIO_PCI_CFG_DATA,
  VIRTIO_PCI_COMMON_LENGTH,
  VIRTIO_PCI_DEVICE_ID_BASE,
} from "./pci-constants.js";
import {
  COMMON_OFFSET,
  DEVICE_LENGTH,
  DEVICE_OFFSET,
  ISR_OFFSET,
  NOTIFY_MULTIPLIER,
  NOTIFY_OFFSET,
  PciTransport,
  STRUCTURES_LENGTH,
} from "./pci-transport.js";
import type { TransportOptions } from "./transport.js";
import type { State, StateReader } from "../state.js";

/** The range with everything in it. */
export const VIRTIO_PCI_BAR = 0;
export const VIRTIO_PCI_BAR_LENGTH = 0x8000;
const MSIX_TABLE_OFFSET = STRUCTURES_LENGTH;
const MSIX_PBA_OFFSET = STRUCTURES_LENGTH + 0x2000;

/** Non-transitional devices begin with this one (§4.1.2.1). */
const REVISION = 1;
/** "vm": drivers do not care. */
const SUBSYSTEM_ID = 0x766d;
const CLASS_OTHER = 0xff_00_00;
/** What lists of devices call them; drivers do not care. */
const CLASSES: Readonly<Record<number, number>> = {
  [VIRTIO_ID_NET]: 0x02_00_00,
  [VIRTIO_ID_BLOCK]: 0x01_80_00,
  [VIRTIO_ID_CONSOLE]: 0x07_80_00,
  [VIRTIO_ID_BALLOON]: 0x05_80_00,
  [VIRTIO_ID_VSOCK]: 0x02_80_00,
  [VIRTIO_ID_FS]: 0x01_80_00,
};

export interface VirtioPciOptions extends TransportOptions {
  /** Where its memory lies at first. */
  readonly address: number;
  /** Sends an interrupt now. */
  readonly send: (message: MsiMessage) => void;
  /** A driver uses the device, from now on. */
  readonly used?: () => void;
  /** What a queue sends, `queueMessage`, may be something else. */
  readonly messagesChanged?: () => void;
}

export class VirtioPciFunction extends EmulatedFunction {
  readonly transport: PciTransport;
  readonly msix: Msix;
  readonly #configWindowAt: number;

  constructor(options: VirtioPciOptions) {
    const { device, address, send, messagesChanged } = options;
    const queues = device.queueMaxSizes.length;
    const msix = new Msix({ vectors: queues + 1, send, ...(messagesChanged && { changed: messagesChanged }) });
    const transport = new PciTransport({
      ...options,
      msix,
      ...(messagesChanged && { vectorsChanged: messagesChanged }),
    });
    super({
      name: device.name,
      vendorId: PCI_VENDOR_ID_REDHAT_QUMRANET,
      deviceId: VIRTIO_PCI_DEVICE_ID_BASE + device.deviceType,
      revision: REVISION,
      classCode: CLASSES[device.deviceType] ?? CLASS_OTHER,
      subsystemVendorId: PCI_VENDOR_ID_REDHAT_QUMRANET,
      subsystemId: SUBSYSTEM_ID,
      bars: [
        {
          index: VIRTIO_PCI_BAR,
          length: VIRTIO_PCI_BAR_LENGTH,
          is64Bit: true,
          address,
          region: functionMemory(transport, msix),
        },
      ],
      capabilities: capabilities(queues),
      msix: { msix, bar: VIRTIO_PCI_BAR, tableOffset: MSIX_TABLE_OFFSET, pbaOffset: MSIX_PBA_OFFSET },
    });
    this.transport = transport;
    this.msix = msix;
    this.#configWindowAt = this.lastCapability;
  }

  /** What interrupts the driver for used buffers of a queue; undefined without a vector, or while that is masked. */
  queueMessage(queueIndex: number): MsiMessage | undefined {
    return this.msix.message(this.transport.vectorOf(queueIndex));
  }

  /** Through the window in configuration space a driver reaches the structures without their addresses (§4.1.4.9). */
  override readConfig(offset: number, size: AccessSize): number {
    const window = this.#windowAccess(offset, size);
    return window === undefined ? super.readConfig(offset, size) : this.readBar(VIRTIO_PCI_BAR, window, size);
  }

  override writeConfig(offset: number, size: AccessSize, value: number): void {
    const window = this.#windowAccess(offset, size);
    if (window === undefined) super.writeConfig(offset, size, value);
    else this.writeBar(VIRTIO_PCI_BAR, window, size, value);
  }

  override save(): State {
    return { ...super.save(), transport: this.transport.save() };
  }

  /** Both at once: the device goes on with the vectors of its function. */
  restoreWith(state: StateReader, deviceState: StateReader): void {
    state.only(["config", "msix", "transport"]);
    this.restoreFunction(state);
    this.transport.restore(state.at("transport"), deviceState);
  }

  /** Where in the memory an access to the window goes; undefined for an access elsewhere, or one that reaches nothing. */
  #windowAccess(offset: number, size: AccessSize): number | undefined {
    const at = this.#configWindowAt;
    if (offset !== at + VIRTIO_PCI_CFG_DATA) return undefined;
    const target = this.config.readU32(at + VIRTIO_PCI_CAP_OFFSET);
    const length = this.config.readU32(at + VIRTIO_PCI_CAP_LENGTH);
    const bar = this.config.read(at + VIRTIO_PCI_CAP_BAR, 1);
    const isRight = bar === VIRTIO_PCI_BAR && length === size && target % size === 0;
    return isRight && target + size <= VIRTIO_PCI_BAR_LENGTH ? target : undefined;
  }
}

function functionMemory(transport: PciTransport, { table, pba }: Msix): BusDevice {
  const part = (offset: number): readonly [BusDevice, number] =>
    offset >= MSIX_PBA_OFFSET
      ? [pba, offset - MSIX_PBA_OFFSET]
      : offset >= MSIX_TABLE_OFFSET
        ? [table, offset - MSIX_TABLE_OFFSET]
        : [transport, offset];
  return {
    name: transport.name,
    read: (offset, size) => {
      const [device, at] = part(offset);
      return device.read(at, size);
    },
    write: (offset, size, value) => {
      const [device, at] = part(offset);
      device.write(at, size, value);
    },
  };
}

function capabilities(queues: number): Capability[] {
  return [
    structure(VIRTIO_PCI_CAP_COMMON_CFG, COMMON_OFFSET, VIRTIO_PCI_COMMON_LENGTH),
    structure(VIRTIO_PCI_CAP_NOTIFY_CFG, NOTIFY_OFFSET, NOTIFY_MULTIPLIER * queues, NOTIFY_MULTIPLIER),
    structure(VIRTIO_PCI_CAP_ISR_CFG, ISR_OFFSET, 1),
    structure(VIRTIO_PCI_CAP_DEVICE_CFG, DEVICE_OFFSET, DEVICE_LENGTH),
    {
      ...structure(VIRTIO_PCI_CAP_PCI_CFG, 0, 0, 0),
      writable: [
        { offset: VIRTIO_PCI_CAP_BAR, size: 1, bits: 0xff },
        { offset: VIRTIO_PCI_CAP_OFFSET, size: 4, bits: 0xffff_ffff },
        { offset: VIRTIO_PCI_CAP_LENGTH, size: 4, bits: 0xffff_ffff },
      ],
    },
  ];
}

/** struct virtio_pci_cap, and behind it what some of them have: a multiplier, a window. */
function structure(type: number, offset: number, length: number, more?: number): Capability {
  const bytes = new DataView(new ArrayBuffer(VIRTIO_PCI_CAP_SIZEOF + (more === undefined ? 0 : 4)));
  bytes.setUint8(2, bytes.byteLength);
  bytes.setUint8(3, type);
  bytes.setUint8(VIRTIO_PCI_CAP_BAR, VIRTIO_PCI_BAR);
  bytes.setUint32(VIRTIO_PCI_CAP_OFFSET, offset, true);
  bytes.setUint32(VIRTIO_PCI_CAP_LENGTH, length, true);
  if (more !== undefined) bytes.setUint32(VIRTIO_PCI_CAP_SIZEOF, more, true);
  return { id: PCI_CAP_ID_VNDR, body: new Uint8Array(bytes.buffer, 2) };
}
