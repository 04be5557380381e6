// What a guest is shown of a device of the host: read once from the device's configuration space, which is not believed more than
// it must be. Hidden are I/O ranges, the expansion ROM and all extended capabilities: SR-IOV would make
// functions on a bus that is not the guest's. PCI Local Bus 3.0 §6, PCI Express Base 5.0 §7.5.3.
import {
  PCI_BASE_ADDRESS_0,
  PCI_BASE_ADDRESS_MEM_PREFETCH,
  PCI_BASE_ADDRESS_MEM_TYPE_64,
  PCI_BASE_ADDRESS_MEM_TYPE_MASK,
  PCI_BASE_ADDRESS_SPACE_IO,
  PCI_CAP_ID_EXP,
  PCI_CAP_ID_MSI,
  PCI_CAP_ID_MSIX,
  PCI_CAP_ID_PM,
  PCI_CAP_ID_VNDR,
  PCI_CAP_MSIX_SIZEOF,
  PCI_CAPABILITY_LIST,
  PCI_CFG_SPACE_SIZE,
  PCI_DEVICE_ID,
  PCI_EXP_DEVCAP,
  PCI_EXP_DEVCAP2,
  PCI_EXP_DEVCTL,
  PCI_EXP_DEVCTL_BCR_FLR,
  PCI_EXP_DEVCTL2,
  PCI_EXP_FLAGS,
  PCI_EXP_FLAGS_VERS,
  PCI_EXP_SIZEOF_V1,
  PCI_EXP_SIZEOF_V2,
  PCI_EXP_TYPE_RC_END,
  PCI_HEADER_TYPE,
  PCI_HEADER_TYPE_MASK,
  PCI_HEADER_TYPE_NORMAL,
  PCI_INTERRUPT_PIN,
  PCI_MSI_ADDRESS_HI,
  PCI_MSI_ADDRESS_LO,
  PCI_MSI_DATA_32,
  PCI_MSI_DATA_64,
  PCI_MSI_FLAGS,
  PCI_MSI_FLAGS_64BIT,
  PCI_MSI_FLAGS_ENABLE,
  PCI_MSI_FLAGS_QMASK,
  PCI_MSI_FLAGS_QSIZE,
  PCI_MSI_SIZEOF_32,
  PCI_MSI_SIZEOF_64,
  PCI_MSIX_ENTRY_SIZE,
  PCI_MSIX_FLAGS,
  PCI_MSIX_FLAGS_QSIZE,
  PCI_MSIX_PBA,
  PCI_MSIX_TABLE,
  PCI_MSIX_TABLE_BIR,
  PCI_PM_CTRL,
  PCI_PM_CTRL_NO_SOFT_RESET,
  PCI_PM_CTRL_STATE_MASK,
  PCI_PM_SIZEOF,
  PCI_REVISION_ID,
  PCI_STATUS,
  PCI_STATUS_CAP_LIST,
  PCI_STD_HEADER_SIZEOF,
  PCI_STD_NUM_BARS,
  PCI_SUBSYSTEM_ID,
  PCI_SUBSYSTEM_VENDOR_ID,
  PCI_VENDOR_ID,
} from "./constants.js";
import type { Capability } from "./function.js";

/** A guest maps whole pages: two ranges in one page would lie over each other. */
const MIN_BAR_LENGTH = 0x1000;
/** Its length stands in its third byte. */
const MIN_VENDOR_LENGTH = 4;
/** 32 vectors (PCI Local Bus 3.0 §6.8.1.3). */
const MAX_MSI_EXPONENT = 5;
/** As many as there is room for. */
const MAX_CAPABILITIES = (PCI_CFG_SPACE_SIZE - PCI_STD_HEADER_SIZEOF) / 4;

export interface AssignedBar {
  readonly index: number;
  /** `bytes`, a power of two */
  readonly length: number;
  readonly is64Bit: boolean;
  readonly isPrefetchable: boolean;
}

export interface MsixPlace {
  /** Of the capability. */
  readonly at: number;
  readonly vectors: number;
  readonly bar: number;
  readonly tableOffset: number;
  readonly pbaBar: number;
  readonly pbaOffset: number;
}

export interface MsiPlace {
  /** Of the capability. */
  readonly at: number;
  /** 1, 2, 4, 8, 16 or 32. */
  readonly vectors: number;
}

export interface AssignedLayout {
  readonly vendorId: number;
  readonly deviceId: number;
  readonly revision: number;
  readonly classCode: number;
  readonly subsystemVendorId: number;
  readonly subsystemId: number;
  readonly bars: readonly AssignedBar[];
  /** Without MSI-X. */
  readonly capabilities: readonly Capability[];
  readonly msix: MsixPlace | undefined;
  readonly msi: MsiPlace | undefined;
  /** It has an interrupt line (INTx), and the host's kernel hands it over. */
  readonly hasLine: boolean;
  /** Vendor-specific capabilities: registers that are the device's own. */
  readonly through: readonly { readonly offset: number; readonly length: number }[];
  /** Of PCI Express; 0 without. */
  readonly expressAt: number;
}

/** A device that cannot be shown; its message completes "the device …". */
export class AssignedLayoutError extends Error {}

/** What the host's kernel hands over of a device. */
export interface AssignedParts {
  /** `bytes` of the region of each base address register, 0 for one that is not there. */
  readonly barSizes: readonly number[];
  /** Its interrupt line. */
  readonly hasLine: boolean;
  /** At most. */
  readonly msiVectors: number;
  readonly msixVectors: number;
}

/** `config`: 256 bytes of configuration space. Throws AssignedLayoutError. */
export function assignedLayout(config: Uint8Array, parts: AssignedParts): AssignedLayout {
  const view = new DataView(config.buffer, config.byteOffset, PCI_CFG_SPACE_SIZE);
  const header = view.getUint8(PCI_HEADER_TYPE) & PCI_HEADER_TYPE_MASK;
  if (header !== PCI_HEADER_TYPE_NORMAL) throw new AssignedLayoutError(`has a header of type ${String(header)}, not 0`);
  const bars = readBars(view, parts.barSizes);
  const found = readCapabilities(view);
  const msix = parts.msixVectors === 0 ? undefined : found.find(({ id }) => id === PCI_CAP_ID_MSIX);
  const maxMsi = parts.msiVectors;
  const shown = found.flatMap((one) => show(view, one, maxMsi) ?? []);
  const msi = shown.find(({ id }) => id === PCI_CAP_ID_MSI);
  return {
    vendorId: view.getUint16(PCI_VENDOR_ID, true),
    deviceId: view.getUint16(PCI_DEVICE_ID, true),
    revision: view.getUint8(PCI_REVISION_ID),
    classCode: view.getUint32(PCI_REVISION_ID, true) >>> 8,
    subsystemVendorId: view.getUint16(PCI_SUBSYSTEM_VENDOR_ID, true),
    subsystemId: view.getUint16(PCI_SUBSYSTEM_ID, true),
    bars,
    capabilities: shown,
    msix: msix === undefined ? undefined : readMsix(view, msix, bars),
    msi: msi?.at === undefined ? undefined : { at: msi.at, vectors: msiVectors(view, msi.at, maxMsi) },
    hasLine: parts.hasLine && view.getUint8(PCI_INTERRUPT_PIN) !== 0,
    through: shown
      .filter(({ id }) => id === PCI_CAP_ID_VNDR)
      .map(({ at = 0, body }) => ({ offset: at + 2, length: body.length })),
    expressAt: shown.find(({ id }) => id === PCI_CAP_ID_EXP)?.at ?? 0,
  };
}

function readBars(view: DataView, sizes: readonly number[]): AssignedBar[] {
  const bars: AssignedBar[] = [];
  for (let index = 0; index < PCI_STD_NUM_BARS; index++) {
    const register = view.getUint32(PCI_BASE_ADDRESS_0 + 4 * index, true);
    const size = sizes[index] ?? 0;
    if (size === 0 || (register & PCI_BASE_ADDRESS_SPACE_IO) !== 0) continue;
    const is64Bit = (register & PCI_BASE_ADDRESS_MEM_TYPE_MASK) === PCI_BASE_ADDRESS_MEM_TYPE_64;
    const length = Math.max(MIN_BAR_LENGTH, 2 ** Math.ceil(Math.log2(size)));
    if (!is64Bit && length > 2 ** 31) throw new AssignedLayoutError(`has ${String(size)} bytes in a range of 32 bits`);
    bars.push({ index, length, is64Bit, isPrefetchable: (register & PCI_BASE_ADDRESS_MEM_PREFETCH) !== 0 });
    if (is64Bit) index++;
  }
  if (bars.at(-1)?.index === PCI_STD_NUM_BARS - 1 && bars.at(-1)?.is64Bit === true)
    throw new AssignedLayoutError("has a range of 64 bits in its last register");
  return bars;
}

interface Found {
  readonly id: number;
  readonly at: number;
  /** Where the next one begins. */
  readonly end: number;
}

/** In the order of their addresses; a list that leads in a circle ends. */
function readCapabilities(view: DataView): Found[] {
  if ((view.getUint16(PCI_STATUS, true) & PCI_STATUS_CAP_LIST) === 0) return [];
  const found = new Map<number, number>();
  let at = view.getUint8(PCI_CAPABILITY_LIST) & ~3;
  while (at >= PCI_STD_HEADER_SIZEOF && !found.has(at) && found.size < MAX_CAPABILITIES) {
    found.set(at, view.getUint8(at));
    at = view.getUint8(at + 1) & ~3;
  }
  const sorted = [...found].sort(([a], [b]) => a - b);
  return sorted.map(([at, id], index) => ({ at, id, end: sorted[index + 1]?.[0] ?? PCI_CFG_SPACE_SIZE }));
}

function readMsix(view: DataView, { at, end }: Found, bars: readonly AssignedBar[]): MsixPlace {
  if (at + PCI_CAP_MSIX_SIZEOF > end) throw new AssignedLayoutError("has an MSI-X capability that is cut off");
  const vectors = (view.getUint16(at + PCI_MSIX_FLAGS, true) & PCI_MSIX_FLAGS_QSIZE) + 1;
  const place = (offset: number, length: number): { bar: number; offset: number } => {
    const word = view.getUint32(at + offset, true);
    const found = { bar: word & PCI_MSIX_TABLE_BIR, offset: (word & ~PCI_MSIX_TABLE_BIR) >>> 0 };
    const bar = bars.find(({ index }) => index === found.bar);
    if (bar === undefined || found.offset + length > bar.length) {
      throw new AssignedLayoutError(`has its MSI-X table outside of its memory, at 0x${word.toString(16)}`);
    }
    return found;
  };
  const table = place(PCI_MSIX_TABLE, PCI_MSIX_ENTRY_SIZE * vectors);
  const pba = place(PCI_MSIX_PBA, pbaLength(vectors));
  return { at, vectors, bar: table.bar, tableOffset: table.offset, pbaBar: pba.bar, pbaOffset: pba.offset };
}

/** That the device has; of which the host may have fewer to give. */
function msiVectors(view: DataView, at: number, max: number): number {
  const exponent = (view.getUint16(at + PCI_MSI_FLAGS, true) & PCI_MSI_FLAGS_QMASK) >>> 1;
  return 2 ** Math.min(exponent, Math.floor(Math.log2(max)), MAX_MSI_EXPONENT);
}

/** Eight bytes for 64 vectors each. */
export function pbaLength(vectors: number): number {
  return 8 * Math.ceil(vectors / 64);
}

/** The capability where the device has it; undefined for one that is hidden, or runs into the next. */
function show(view: DataView, { id, at, end }: Found, maxMsi: number): Capability | undefined {
  const copy = (length: number): DataView<ArrayBuffer> =>
    new DataView(new Uint8Array(view.buffer, view.byteOffset + at, length).slice().buffer);
  const shown = (bytes: DataView<ArrayBuffer>, writable: Capability["writable"] = []): Capability => ({
    id,
    at,
    body: new Uint8Array(bytes.buffer).subarray(2),
    writable,
  });
  const room = end - at;
  switch (id) {
    case PCI_CAP_ID_PM: {
      if (room < PCI_PM_SIZEOF) return undefined;
      const bytes = copy(PCI_PM_SIZEOF);
      // A guest may think that it sleeps: the host's kernel lets nobody touch the memory of a device that does.
      bytes.setUint16(PCI_PM_CTRL, PCI_PM_CTRL_NO_SOFT_RESET, true);
      return shown(bytes, [{ offset: PCI_PM_CTRL, size: 2, bits: PCI_PM_CTRL_STATE_MASK }]);
    }
    case PCI_CAP_ID_MSI: {
      const has64Bits = (view.getUint16(at + PCI_MSI_FLAGS, true) & PCI_MSI_FLAGS_64BIT) !== 0;
      const length = has64Bits ? PCI_MSI_SIZEOF_64 : PCI_MSI_SIZEOF_32;
      return maxMsi === 0 || room < length ? undefined : showMsi(copy(length), msiVectors(view, at, maxMsi), shown);
    }
    case PCI_CAP_ID_EXP:
      return room < PCI_EXP_SIZEOF_V1 ? undefined : showExpress(copy(Math.min(room, PCI_EXP_SIZEOF_V2)), shown);
    case PCI_CAP_ID_VNDR:
      return shown(copy(Math.min(Math.max(view.getUint8(at + 2), MIN_VENDOR_LENGTH), room)));
    default:
      return undefined;
  }
}

/** Off, as after a reset, and without masks of vectors. */
function showMsi(
  bytes: DataView<ArrayBuffer>,
  vectors: number,
  shown: (bytes: DataView<ArrayBuffer>, writable: Capability["writable"]) => Capability,
): Capability {
  const has64Bits = bytes.byteLength === PCI_MSI_SIZEOF_64;
  bytes.setUint32(PCI_MSI_ADDRESS_LO, 0, true);
  bytes.setUint16(PCI_MSI_FLAGS, (has64Bits ? PCI_MSI_FLAGS_64BIT : 0) | (Math.log2(vectors) << 1), true);
  bytes.setUint16(PCI_MSI_DATA_32, 0, true);
  const common = [
    { offset: PCI_MSI_FLAGS, size: 2, bits: PCI_MSI_FLAGS_ENABLE | PCI_MSI_FLAGS_QSIZE },
    { offset: PCI_MSI_ADDRESS_LO, size: 4, bits: 0xffff_fffc },
  ] as const;
  if (!has64Bits) return shown(bytes, [...common, { offset: PCI_MSI_DATA_32, size: 2, bits: 0xffff }]);
  bytes.setUint32(PCI_MSI_ADDRESS_HI, 0, true);
  bytes.setUint16(PCI_MSI_DATA_64, 0, true);
  return shown(bytes, [
    ...common,
    { offset: PCI_MSI_ADDRESS_HI, size: 4, bits: 0xffff_ffff },
    { offset: PCI_MSI_DATA_64, size: 2, bits: 0xffff },
  ]);
}

/** On a root bus there is no link: it is an endpoint of the root complex. What drivers set there stays with the function. */
function showExpress(
  from: DataView,
  shown: (bytes: DataView<ArrayBuffer>, writable: Capability["writable"]) => Capability,
): Capability {
  const flags = from.getUint16(PCI_EXP_FLAGS, true);
  const hasSecond = (flags & PCI_EXP_FLAGS_VERS) > 1 && from.byteLength === PCI_EXP_SIZEOF_V2;
  const bytes = new DataView(new ArrayBuffer(hasSecond ? PCI_EXP_SIZEOF_V2 : PCI_EXP_SIZEOF_V1));
  bytes.setUint16(PCI_EXP_FLAGS, (hasSecond ? 2 : 1) | (PCI_EXP_TYPE_RC_END << 4), true);
  bytes.setUint32(PCI_EXP_DEVCAP, from.getUint32(PCI_EXP_DEVCAP, true), true);
  bytes.setUint16(PCI_EXP_DEVCTL, from.getUint16(PCI_EXP_DEVCTL, true), true);
  const control = { offset: PCI_EXP_DEVCTL, size: 2, bits: 0xffff & ~PCI_EXP_DEVCTL_BCR_FLR } as const;
  if (!hasSecond) return shown(bytes, [control]);
  bytes.setUint32(PCI_EXP_DEVCAP2, from.getUint32(PCI_EXP_DEVCAP2, true), true);
  return shown(bytes, [control, { offset: PCI_EXP_DEVCTL2, size: 2, bits: 0xffff }]);
}
