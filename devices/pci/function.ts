// A function on a PCI bus: what the bus asks of any (PciFunction), and one that is emulated, made of a header, base
// address registers, capabilities and MSI-X. PCI Local Bus 3.0 §6.
import type { AccessSize, BusDevice } from "../contracts.js";
import type { State, StateReader } from "../state.js";
import { ConfigBytes } from "./config-bytes.js";
import {
  PCI_BASE_ADDRESS_0,
  PCI_BASE_ADDRESS_MEM_PREFETCH,
  PCI_BASE_ADDRESS_MEM_TYPE_64,
  PCI_CAPABILITY_LIST,
  PCI_CAP_ID_MSIX,
  PCI_CAP_MSIX_SIZEOF,
  PCI_CFG_SPACE_SIZE,
  PCI_COMMAND,
  PCI_COMMAND_INTX_DISABLE,
  PCI_COMMAND_MASTER,
  PCI_COMMAND_MEMORY,
  PCI_DEVICE_ID,
  PCI_INTERRUPT_LINE,
  PCI_MSIX_FLAGS,
  PCI_MSIX_FLAGS_ENABLE,
  PCI_MSIX_FLAGS_MASKALL,
  PCI_REVISION_ID,
  PCI_STATUS,
  PCI_STATUS_CAP_LIST,
  PCI_STD_HEADER_SIZEOF,
  PCI_SUBSYSTEM_ID,
  PCI_SUBSYSTEM_VENDOR_ID,
  PCI_VENDOR_ID,
} from "./constants.js";
import type { Msix } from "./msix.js";

/** Where the guest has put a base address register's range. */
export interface DecodedBar {
  /** Of its first register, 0 to 5. */
  readonly index: number;
  readonly address: number;
  /** `bytes` */
  readonly length: number;
}

/** What the bus, and nobody else, asks of a function. */
export interface PciFunction {
  readonly name: string;
  /** `offset` below 4096. */
  readConfig(offset: number, size: AccessSize): number;
  writeConfig(offset: number, size: AccessSize, value: number): void;
  /** The ranges that it answers now. Wherever the guest likes: the bus decides whether an access gets there. */
  decoded(): readonly DecodedBar[];
  /** `offset` from the range's start. */
  readBar(index: number, offset: number, size: AccessSize): number;
  writeBar(index: number, offset: number, size: AccessSize, value: number): void;
  /** Set by the bus: `decoded` answers something else than before. */
  decodeChanged: (() => void) | undefined;
  /**
   * The guest meets the range at `gpa` and nothing else there, or, undefined, nowhere by itself: whoever has memory slots
   * or doorbells in it puts them there, or takes them away.
   */
  barPlaced?(index: number, gpa: number | undefined): void;
}

export interface BarOptions {
  /** 64-bit ones take the next register as well. */
  readonly index: number;
  /** A power of two, from 4 KiB. */
  readonly length: number;
  readonly is64Bit: boolean;
  readonly isPrefetchable?: boolean;
  /** Where it lies at first. */
  readonly address: number;
  readonly region: BusDevice;
}

export interface Capability {
  readonly id: number;
  /** All behind id and next pointer. */
  readonly body: Uint8Array;
  /** Bits that the guest may write, each from the capability's start. */
  readonly writable?: readonly { readonly offset: number; readonly size: AccessSize; readonly bits: number }[];
  /** Where it lies; by default behind the one before. */
  readonly at?: number;
}

export interface FunctionOptions {
  readonly name: string;
  readonly vendorId: number;
  readonly deviceId: number;
  readonly revision: number;
  /** Base class, subclass, interface: 24 bits. */
  readonly classCode: number;
  readonly subsystemVendorId?: number;
  readonly subsystemId?: number;
  readonly bars?: readonly BarOptions[];
  readonly capabilities?: readonly Capability[];
  readonly msix?: {
    readonly msix: Msix;
    readonly bar: number;
    readonly tableOffset: number;
    readonly pbaOffset: number;
    /** By default that of the table. */
    readonly pbaBar?: number;
    /** Where the capability lies; by default first of all. */
    readonly at?: number;
  };
}

export class EmulatedFunction implements PciFunction {
  readonly name: string;
  decodeChanged: (() => void) | undefined;
  barPlaced: ((index: number, gpa: number | undefined) => void) | undefined;
  /** Its registers, for capabilities that are more than bytes. */
  protected readonly config = new ConfigBytes();
  readonly #bars: readonly BarOptions[];
  readonly #msix: Msix | undefined;
  #msixAt = 0;
  /** Where the last capability begins. */
  protected lastCapability = 0;
  #decoded: readonly DecodedBar[] = [];

  constructor(options: FunctionOptions) {
    const { config } = this;
    this.name = options.name;
    this.#bars = options.bars ?? [];
    this.#msix = options.msix?.msix;
    config.setU16(PCI_VENDOR_ID, options.vendorId);
    config.setU16(PCI_DEVICE_ID, options.deviceId);
    config.setU32(PCI_REVISION_ID, options.classCode * 0x100 + options.revision);
    config.setU16(PCI_SUBSYSTEM_VENDOR_ID, options.subsystemVendorId ?? 0);
    config.setU16(PCI_SUBSYSTEM_ID, options.subsystemId ?? 0);
    if (this.#bars.length > 0) {
      config.allow(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER | PCI_COMMAND_INTX_DISABLE);
      // Software keeps an interrupt's number there; nothing looks at it.
      config.allow(PCI_INTERRUPT_LINE, 1, 0xff);
    }
    for (const bar of this.#bars) this.#addBar(bar);
    this.#addCapabilities(options);
    // As a firmware leaves it.
    if (this.#bars.length > 0) config.setU16(PCI_COMMAND, PCI_COMMAND_MEMORY);
    this.#decoded = this.#decode();
  }

  readConfig(offset: number, size: AccessSize): number {
    return this.config.read(offset, size);
  }

  writeConfig(offset: number, size: AccessSize, value: number): void {
    this.config.write(offset, size, value);
    this.#lookAtDecoding();
    if (this.#msix !== undefined) this.#msix.flags = this.#msixFlags;
  }

  decoded(): readonly DecodedBar[] {
    return this.#decoded;
  }

  readBar(index: number, offset: number, size: AccessSize): number {
    return this.#bar(index)?.region.read(offset, size) ?? 0;
  }

  writeBar(index: number, offset: number, size: AccessSize, value: number): void {
    this.#bar(index)?.region.write(offset, size, value);
  }

  save(): State {
    return { config: this.config.save(), msix: this.#msix?.save() ?? null };
  }

  /** Of what `save` has answered, its own two fields. Throws StateError for what no guest could have brought about. */
  protected restoreFunction(state: StateReader): void {
    this.config.restore(state.at("config"));
    const msix = state.at("msix");
    if (this.#msix !== undefined) this.#msix.restore(msix, this.#msixFlags);
    else if (!msix.isNull) throw msix.wrong("null, as for a function without MSI-X");
    this.#lookAtDecoding();
  }

  #bar(index: number): BarOptions | undefined {
    return this.#bars.find((bar) => bar.index === index);
  }

  get #msixFlags(): number {
    return this.config.readU16(this.#msixAt + PCI_MSIX_FLAGS);
  }

  /** A guest that writes all ones reads the size: lower bits are none (§6.2.5.1). */
  #addBar({ index, length, is64Bit, isPrefetchable = false, address }: BarOptions): void {
    const at = PCI_BASE_ADDRESS_0 + 4 * index;
    const type = (is64Bit ? PCI_BASE_ADDRESS_MEM_TYPE_64 : 0) | (isPrefetchable ? PCI_BASE_ADDRESS_MEM_PREFETCH : 0);
    const bits = 2 ** 64 - length;
    this.config.setU32(at, (address % 2 ** 32) + type);
    this.config.allow(at, 4, Math.max(0, 2 ** 32 - length));
    if (!is64Bit) return;
    this.config.setU32(at + 4, Math.floor(address / 2 ** 32));
    this.config.allow(at + 4, 4, length > 2 ** 32 ? Math.floor(bits / 2 ** 32) : 0xffff_ffff);
  }

  #addCapabilities({ capabilities = [], msix }: FunctionOptions): void {
    const all: Capability[] = [...capabilities];
    if (msix !== undefined) all.unshift(msixCapability(msix));
    let link = PCI_CAPABILITY_LIST;
    let at = PCI_STD_HEADER_SIZEOF;
    for (const { id, body, writable = [], at: given } of all) {
      at = given ?? at;
      if (id === PCI_CAP_ID_MSIX) this.#msixAt = at;
      this.lastCapability = at;
      this.config.set(link, [at]);
      this.config.set(at, [id, 0, ...body]);
      for (const { offset, size, bits } of writable) this.config.allow(at + offset, size, bits);
      link = at + 1;
      // Each begins at a multiple of four (§6.7).
      at = (at + 2 + body.length + 3) & ~3;
    }
    if (at > PCI_CFG_SPACE_SIZE) throw new RangeError(`${this.name}: capabilities end at 0x${at.toString(16)}`);
    if (all.length > 0) this.config.setU16(PCI_STATUS, PCI_STATUS_CAP_LIST);
  }

  #lookAtDecoding(): void {
    const now = this.#decode();
    const isSame =
      now.length === this.#decoded.length && now.every(({ address }, at) => address === this.#decoded[at]?.address);
    if (isSame) return;
    this.#decoded = now;
    this.decodeChanged?.();
  }

  #decode(): DecodedBar[] {
    if ((this.config.readU16(PCI_COMMAND) & PCI_COMMAND_MEMORY) === 0) return [];
    return this.#bars.map(({ index, length, is64Bit }) => {
      const at = PCI_BASE_ADDRESS_0 + 4 * index;
      const low = (this.config.readU32(at) & ~0xf) >>> 0;
      return { index, length, address: low + (is64Bit ? this.config.readU32(at + 4) * 2 ** 32 : 0) };
    });
  }
}

function msixCapability({
  msix,
  bar,
  tableOffset,
  pbaOffset,
  pbaBar = bar,
  at,
}: NonNullable<FunctionOptions["msix"]>): Capability {
  const body = new DataView(new ArrayBuffer(PCI_CAP_MSIX_SIZEOF - 2));
  body.setUint16(0, msix.vectors - 1, true);
  // Offsets are multiples of eight; below them stands which range.
  body.setUint32(2, tableOffset + bar, true);
  body.setUint32(6, pbaOffset + pbaBar, true);
  const bits = PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL;
  return {
    id: PCI_CAP_ID_MSIX,
    body: new Uint8Array(body.buffer),
    writable: [{ offset: PCI_MSIX_FLAGS, size: 2, bits }],
    ...(at !== undefined && { at }),
  };
}
