// Plays what a guest's PCI code does: reads capabilities, sizes and moves base address registers, sets MSI-X up. And shows a
// virtio device on the bus as virtio-mmio registers, so that whatever drives those drives it. virtio 1.2 §4.1.3, §4.1.4.
import type { AccessSize, BusDevice } from "../../devices/contracts.js";
import {
  PCI_BASE_ADDRESS_0,
  PCI_CAPABILITY_LIST,
  PCI_CAP_ID_MSIX,
  PCI_CAP_ID_VNDR,
  PCI_COMMAND,
  PCI_COMMAND_MASTER,
  PCI_COMMAND_MEMORY,
  PCI_MSIX_ENTRY_SIZE,
  PCI_MSIX_FLAGS,
  PCI_MSIX_FLAGS_ENABLE,
  PCI_MSIX_TABLE,
} from "../../devices/pci/constants.js";
import {
  VIRTIO_MMIO_CONFIG,
  VIRTIO_MMIO_CONFIG_GENERATION,
  VIRTIO_MMIO_DEVICE_FEATURES,
  VIRTIO_MMIO_DEVICE_FEATURES_SEL,
  VIRTIO_MMIO_DRIVER_FEATURES,
  VIRTIO_MMIO_DRIVER_FEATURES_SEL,
  VIRTIO_MMIO_INTERRUPT_STATUS,
  VIRTIO_MMIO_MAGIC,
  VIRTIO_MMIO_MAGIC_VALUE,
  VIRTIO_MMIO_QUEUE_AVAIL_HIGH,
  VIRTIO_MMIO_QUEUE_AVAIL_LOW,
  VIRTIO_MMIO_QUEUE_DESC_HIGH,
  VIRTIO_MMIO_QUEUE_DESC_LOW,
  VIRTIO_MMIO_QUEUE_NOTIFY,
  VIRTIO_MMIO_QUEUE_NUM,
  VIRTIO_MMIO_QUEUE_NUM_MAX,
  VIRTIO_MMIO_QUEUE_READY,
  VIRTIO_MMIO_QUEUE_SEL,
  VIRTIO_MMIO_QUEUE_USED_HIGH,
  VIRTIO_MMIO_QUEUE_USED_LOW,
  VIRTIO_MMIO_STATUS,
  VIRTIO_MMIO_VERSION,
  VIRTIO_MMIO_VERSION_MODERN,
} from "../../devices/virtio/constants.js";
import {
  VIRTIO_PCI_CAP_COMMON_CFG,
  VIRTIO_PCI_CAP_DEVICE_CFG,
  VIRTIO_PCI_CAP_ISR_CFG,
  VIRTIO_PCI_CAP_NOTIFY_CFG,
  VIRTIO_PCI_COMMON_CFGGENERATION,
  VIRTIO_PCI_COMMON_DF,
  VIRTIO_PCI_COMMON_DFSELECT,
  VIRTIO_PCI_COMMON_GF,
  VIRTIO_PCI_COMMON_GFSELECT,
  VIRTIO_PCI_COMMON_MSIX,
  VIRTIO_PCI_COMMON_Q_AVAILHI,
  VIRTIO_PCI_COMMON_Q_AVAILLO,
  VIRTIO_PCI_COMMON_Q_DESCHI,
  VIRTIO_PCI_COMMON_Q_DESCLO,
  VIRTIO_PCI_COMMON_Q_ENABLE,
  VIRTIO_PCI_COMMON_Q_MSIX,
  VIRTIO_PCI_COMMON_Q_NOFF,
  VIRTIO_PCI_COMMON_Q_SELECT,
  VIRTIO_PCI_COMMON_Q_SIZE,
  VIRTIO_PCI_COMMON_Q_USEDHI,
  VIRTIO_PCI_COMMON_Q_USEDLO,
  VIRTIO_PCI_COMMON_STATUS,
} from "../../devices/virtio/pci-constants.js";
import type { PciRootBus } from "../../vmm/pci/root-bus.js";

/** A function as the guest's PCI code sees it. */
export class PciDriver {
  readonly #bus: PciRootBus;
  readonly #base: number;

  constructor(bus: PciRootBus, device: number) {
    this.#bus = bus;
    this.#base = device << 15;
  }

  readConfig(offset: number, size: AccessSize): number {
    return this.#bus.ecam.read(this.#base + offset, size);
  }

  writeConfig(offset: number, size: AccessSize, value: number): void {
    this.#bus.ecam.write(this.#base + offset, size, value);
  }

  /** Offsets of all capabilities with that id. */
  capabilities(id: number): number[] {
    const found: number[] = [];
    for (let at = this.readConfig(PCI_CAPABILITY_LIST, 1), left = 48; at !== 0 && left > 0; left--) {
      if (this.readConfig(at, 1) === id) found.push(at);
      at = this.readConfig(at + 1, 1);
    }
    return found;
  }

  /** The 64-bit register's address. */
  get address(): number {
    return (
      ((this.readConfig(PCI_BASE_ADDRESS_0, 4) & ~0xf) >>> 0) + this.readConfig(PCI_BASE_ADDRESS_0 + 4, 4) * 2 ** 32
    );
  }

  /** As systems do it: off, all ones, what stays zero is the size, back, on. */
  sizeOf(): number {
    const command = this.readConfig(PCI_COMMAND, 2);
    this.writeConfig(PCI_COMMAND, 2, command & ~PCI_COMMAND_MEMORY);
    const before = this.readConfig(PCI_BASE_ADDRESS_0, 4);
    this.writeConfig(PCI_BASE_ADDRESS_0, 4, 0xffff_ffff);
    const size = (~(this.readConfig(PCI_BASE_ADDRESS_0, 4) & ~0xf) + 1) >>> 0;
    this.writeConfig(PCI_BASE_ADDRESS_0, 4, before);
    this.writeConfig(PCI_COMMAND, 2, command);
    return size;
  }

  move(address: number): void {
    this.writeConfig(PCI_COMMAND, 2, 0);
    this.writeConfig(PCI_BASE_ADDRESS_0, 4, address % 2 ** 32);
    this.writeConfig(PCI_BASE_ADDRESS_0 + 4, 4, Math.floor(address / 2 ** 32));
    this.writeConfig(PCI_COMMAND, 2, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
  }

  read(gpa: number, size: AccessSize): number {
    const window = this.#window(gpa);
    return window?.device.read(gpa - window.gpa, size) ?? 0xffff_ffff;
  }

  write(gpa: number, size: AccessSize, value: number): void {
    const window = this.#window(gpa);
    window?.device.write(gpa - window.gpa, size, value);
  }

  /** Each vector sends its number plus `base`; all unmasked. */
  enableMsix(base = 0x20): number {
    const [at = 0] = this.capabilities(PCI_CAP_ID_MSIX);
    const vectors = (this.readConfig(at + PCI_MSIX_FLAGS, 2) & 0x7ff) + 1;
    for (let vector = 0; vector < vectors; vector++) {
      this.writeVector(vector, [0xfee0_0000, 0, base + vector, 0]);
    }
    this.writeConfig(at + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE);
    return vectors;
  }

  /** Words of a table entry from its start. */
  writeVector(vector: number, words: readonly number[], first = 0): void {
    const [at = 0] = this.capabilities(PCI_CAP_ID_MSIX);
    const table = this.address + (this.readConfig(at + PCI_MSIX_TABLE, 4) & ~7);
    words.forEach((word, index) => {
      this.write(table + PCI_MSIX_ENTRY_SIZE * vector + 4 * (first + index), 4, word);
    });
  }

  /** Where a structure of virtio lies. */
  structure(type: number): { readonly gpa: number; readonly length: number; readonly multiplier: number } {
    const at = this.capabilities(PCI_CAP_ID_VNDR).find((one) => this.readConfig(one + 3, 1) === type);
    if (at === undefined) throw new Error(`No structure of type ${String(type)}`);
    return {
      gpa: this.address + this.readConfig(at + 8, 4),
      length: this.readConfig(at + 12, 4),
      multiplier: this.readConfig(at + 16, 4),
    };
  }

  #window(gpa: number) {
    return this.#bus.windows.find((window) => gpa >= window.gpa && gpa < window.gpa + window.length);
  }
}

const COMMON: Readonly<Record<number, readonly [offset: number, size: AccessSize]>> = {
  [VIRTIO_MMIO_DEVICE_FEATURES]: [VIRTIO_PCI_COMMON_DF, 4],
  [VIRTIO_MMIO_DEVICE_FEATURES_SEL]: [VIRTIO_PCI_COMMON_DFSELECT, 4],
  [VIRTIO_MMIO_DRIVER_FEATURES]: [VIRTIO_PCI_COMMON_GF, 4],
  [VIRTIO_MMIO_DRIVER_FEATURES_SEL]: [VIRTIO_PCI_COMMON_GFSELECT, 4],
  [VIRTIO_MMIO_QUEUE_SEL]: [VIRTIO_PCI_COMMON_Q_SELECT, 2],
  [VIRTIO_MMIO_QUEUE_NUM_MAX]: [VIRTIO_PCI_COMMON_Q_SIZE, 2],
  [VIRTIO_MMIO_QUEUE_NUM]: [VIRTIO_PCI_COMMON_Q_SIZE, 2],
  [VIRTIO_MMIO_QUEUE_READY]: [VIRTIO_PCI_COMMON_Q_ENABLE, 2],
  [VIRTIO_MMIO_STATUS]: [VIRTIO_PCI_COMMON_STATUS, 1],
  [VIRTIO_MMIO_CONFIG_GENERATION]: [VIRTIO_PCI_COMMON_CFGGENERATION, 1],
  [VIRTIO_MMIO_QUEUE_DESC_LOW]: [VIRTIO_PCI_COMMON_Q_DESCLO, 4],
  [VIRTIO_MMIO_QUEUE_DESC_HIGH]: [VIRTIO_PCI_COMMON_Q_DESCHI, 4],
  [VIRTIO_MMIO_QUEUE_AVAIL_LOW]: [VIRTIO_PCI_COMMON_Q_AVAILLO, 4],
  [VIRTIO_MMIO_QUEUE_AVAIL_HIGH]: [VIRTIO_PCI_COMMON_Q_AVAILHI, 4],
  [VIRTIO_MMIO_QUEUE_USED_LOW]: [VIRTIO_PCI_COMMON_Q_USEDLO, 4],
  [VIRTIO_MMIO_QUEUE_USED_HIGH]: [VIRTIO_PCI_COMMON_Q_USEDHI, 4],
};

/** The registers of virtio-mmio, each made of what stands for it over PCI. */
export class MmioOverPci implements BusDevice {
  readonly name = "pci";
  readonly pci: PciDriver;

  constructor(pci: PciDriver) {
    this.pci = pci;
  }

  read(offset: number, size: AccessSize): number {
    const { pci } = this;
    if (offset >= VIRTIO_MMIO_CONFIG) {
      return pci.read(pci.structure(VIRTIO_PCI_CAP_DEVICE_CFG).gpa + offset - VIRTIO_MMIO_CONFIG, size);
    }
    if (offset === VIRTIO_MMIO_MAGIC_VALUE) return VIRTIO_MMIO_MAGIC;
    if (offset === VIRTIO_MMIO_VERSION) return VIRTIO_MMIO_VERSION_MODERN;
    if (offset === VIRTIO_MMIO_INTERRUPT_STATUS) return pci.read(pci.structure(VIRTIO_PCI_CAP_ISR_CFG).gpa, 1);
    const field = COMMON[offset];
    return field === undefined ? 0 : this.readCommon(...field);
  }

  write(offset: number, size: AccessSize, value: number): void {
    const { pci } = this;
    if (offset >= VIRTIO_MMIO_CONFIG) {
      pci.write(pci.structure(VIRTIO_PCI_CAP_DEVICE_CFG).gpa + offset - VIRTIO_MMIO_CONFIG, size, value);
    } else if (offset === VIRTIO_MMIO_QUEUE_NOTIFY) {
      const { gpa, multiplier } = pci.structure(VIRTIO_PCI_CAP_NOTIFY_CFG);
      this.writeCommon(VIRTIO_PCI_COMMON_Q_SELECT, 2, value);
      pci.write(gpa + multiplier * this.readCommon(VIRTIO_PCI_COMMON_Q_NOFF, 2), 2, value & 0xffff);
    } else {
      const field = COMMON[offset];
      // A driver over PCI takes no queue back by itself.
      if (field !== undefined && !(offset === VIRTIO_MMIO_QUEUE_READY && value === 0))
        this.writeCommon(...field, value);
    }
  }

  /** Queue q has vector q + 1, the configuration vector 0. */
  setVectors(queues: number): void {
    this.writeCommon(VIRTIO_PCI_COMMON_MSIX, 2, 0);
    for (let queue = 0; queue < queues; queue++) {
      this.writeCommon(VIRTIO_PCI_COMMON_Q_SELECT, 2, queue);
      this.writeCommon(VIRTIO_PCI_COMMON_Q_MSIX, 2, queue + 1);
    }
  }

  readCommon(offset: number, size: AccessSize): number {
    return this.pci.read(this.pci.structure(VIRTIO_PCI_CAP_COMMON_CFG).gpa + offset, size);
  }

  writeCommon(offset: number, size: AccessSize, value: number): void {
    this.pci.write(this.pci.structure(VIRTIO_PCI_CAP_COMMON_CFG).gpa + offset, size, value);
  }
}
