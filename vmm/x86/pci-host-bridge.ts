// Where the PCI host bridge's ranges lie: what the tables say of it, and what the machine answers.
import {
  PCI_ECAM_GPA,
  PCI_ECAM_LENGTH,
  PCI_HIGH_WINDOW_LENGTH,
  PCI_WINDOW_GPA,
  PCI_WINDOW_LENGTH,
  pciHighWindowGpa,
} from "../memory/layout.js";

interface AddressRange {
  readonly gpa: number;
  /** `bytes` */
  readonly length: number;
}

export interface PciHostBridge {
  /** Configuration space of bus 0. */
  readonly ecam: AddressRange;
  /** Below 4 GiB. */
  readonly window: AddressRange;
  /** Above RAM. */
  readonly highWindow: AddressRange;
}

export function pciHostBridge(memorySize: number): PciHostBridge {
  return {
    ecam: { gpa: PCI_ECAM_GPA, length: PCI_ECAM_LENGTH },
    window: { gpa: PCI_WINDOW_GPA, length: PCI_WINDOW_LENGTH },
    highWindow: { gpa: pciHighWindowGpa(memorySize), length: PCI_HIGH_WINDOW_LENGTH },
  };
}

/** Its ranges in the order in which the machine numbers them. */
export function pciRanges({ ecam, window, highWindow }: PciHostBridge): readonly AddressRange[] {
  return [ecam, window, highWindow];
}
