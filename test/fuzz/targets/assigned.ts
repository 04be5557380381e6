// A device of the host in configuration space and registers, under accesses of any size in any order, made from any bytes: nothing of
// it throws, its memory always answers, and its ranges are said to be only where the bus has room for them.
import assert from "node:assert/strict";
import type { AccessSize } from "../../../devices/contracts.js";
import { assignedLayout, AssignedLayoutError, type AssignedParts } from "../../../devices/pci/assigned-layout.js";
import { PCI_BASE_ADDRESS_0, PCI_COMMAND } from "../../../devices/pci/constants.js";
import { PciRootBus } from "../../../vmm/pci/root-bus.js";
import { assignedRig, EXAMPLE_PARTS, exampleConfig, MSI_AT, MSIX_AT } from "../../helpers/assigned-device.js";
import { HIGH_WINDOW, WINDOW } from "../../helpers/pci-machine.js";
import { HostileMemory, type RamLayout } from "../hostile-memory.js";
import { runOperations } from "../operations.js";
import type { Random } from "../random.js";
import type { FuzzTarget } from "../target.js";

const RAM = 0x4000;
const LIMITS = { count: 200, maxAccesses: 100 };
const SIZES: readonly AccessSize[] = [1, 2, 4];
const WINDOWS = [WINDOW, HIGH_WINDOW];

function anyParts(random: Random): AssignedParts {
  return {
    barSizes: EXAMPLE_PARTS.barSizes.map(() => random.pick([0, 1, 2 ** random.below(40)])),
    hasLine: random.oneIn(2),
    msiVectors: random.below(40),
    msixVectors: random.below(4),
  };
}

export const assignedTarget: FuzzTarget = {
  name: "assigned",
  run(random: Random, ram: RamLayout) {
    const config = exampleConfig();
    for (let changes = random.below(8); changes > 0; changes--) config[random.below(256)] = random.below(256);
    const parts = random.oneIn(2) ? EXAMPLE_PARTS : anyParts(random);
    try {
      assignedLayout(config, parts);
    } catch (error) {
      if (!(error instanceof AssignedLayoutError)) throw error;
      return;
    }
    const { function: fn, host, msix, msi, layout } = assignedRig(config, parts);
    const bus = new PciRootBus(WINDOWS);
    const placed = new Map<number, number>();
    fn.barPlaced = (index, gpa) => {
      if (gpa === undefined) placed.delete(index);
      else placed.set(index, gpa);
    };
    bus.attach(1, fn);
    // Its memory answers; without a line that the host hands over, it never has one.
    const commands = layout.hasLine ? [0x002, 0x006, 0x402, 0x406] : [0x402, 0x406];
    const at = 1 << 15;
    const anyOffset = (): number =>
      random.oneIn(4)
        ? random.below(4096)
        : random.pick([MSI_AT, MSIX_AT, layout.expressAt, PCI_COMMAND]) + random.below(16);
    const anyAddress = (): number => random.pick(WINDOWS).gpa + 0x1000 * random.below(0x100);
    const operations: readonly (() => void)[] = [
      () => bus.ecam.write(at + anyOffset(), random.pick(SIZES), random.value()),
      () => {
        const value = bus.ecam.read(at + anyOffset(), random.pick(SIZES));
        assert.ok(Number.isInteger(value) && value >= 0 && value < 2 ** 32, String(value));
      },
      () => bus.ecam.write(at + PCI_COMMAND, 2, random.oneIn(2) ? 6 : random.value()),
      () => bus.ecam.write(at + PCI_BASE_ADDRESS_0 + 4 * random.below(6), 4, random.value()),
      () => bus.ecam.write(at + PCI_BASE_ADDRESS_0, 4, anyAddress() % 2 ** 32),
      () => random.pick(bus.windows).device.write(random.below(0x8_0000), random.pick(SIZES), random.value()),
      () => void random.pick(bus.windows).device.read(random.below(0x8_0000), random.pick(SIZES)),
      () => msix?.signal(random.below(msix.vectors + 1)),
      () => bus.ecam.write(at + MSI_AT, 4, random.oneIn(2) ? 0x0001_0000 : random.value()),
      () => msi?.signal(random.below(33)),
    ];
    runOperations(random, new HostileMemory(RAM, random, ram), operations, LIMITS, () => {
      for (const line of host.log.splice(0)) {
        const [, value] = /^config 4 2 = (\w+)$/.exec(line) ?? [];
        if (value !== undefined) assert.ok(commands.includes(parseInt(value, 16)), line);
      }
      for (const [index, gpa] of placed) {
        const length = layout.bars.find((bar) => bar.index === index)?.length ?? 0;
        const isIn = WINDOWS.some((one) => gpa >= one.gpa && gpa + length <= one.gpa + one.length);
        assert.ok(isIn && gpa % length === 0, `${String(index)} is said to be at 0x${gpa.toString(16)}`);
      }
    });
  },
};
