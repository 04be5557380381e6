// Needs: a /dev/kvm of any kind. Virtio devices on the PCI bus through the whole monitor, driven by a few instructions.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { PCI_COMMAND, PCI_MSIX_FLAGS, PCI_MSIX_FLAGS_ENABLE } from "../../devices/pci/constants.js";
import {
  VIRTIO_PCI_COMMON_GF,
  VIRTIO_PCI_COMMON_GFSELECT,
  VIRTIO_PCI_COMMON_Q_AVAILLO,
  VIRTIO_PCI_COMMON_Q_DESCLO,
  VIRTIO_PCI_COMMON_Q_ENABLE,
  VIRTIO_PCI_COMMON_Q_MSIX,
  VIRTIO_PCI_COMMON_Q_SIZE,
  VIRTIO_PCI_COMMON_Q_USEDLO,
  VIRTIO_PCI_COMMON_STATUS,
} from "../../devices/virtio/pci-constants.js";
import { DEVICE_OFFSET, NOTIFY_OFFSET, STRUCTURES_LENGTH } from "../../devices/virtio/pci-transport.js";
import {
  createSnapshot,
  createVm,
  openSnapshot,
  type StartOptions,
  type VmConfig,
  type VmExit,
} from "../../vmm/index.js";
import { LOCAL_APIC_GPA, PCI_CONFIG_PORT, PCI_ECAM_GPA, PCI_WINDOW_GPA } from "../../vmm/memory/layout.js";
import { collectOutput } from "../helpers/collected-output.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import {
  MINI_AVAILABLE_GPA,
  MINI_DESCRIPTORS_GPA,
  MINI_USED_GPA,
  readRequests,
  waitForDisk,
} from "../helpers/mini-driver.js";
import { asm, miniKernelWith } from "../helpers/mini-kernel.js";
import { skip } from "../helpers/skip.js";

const TEXT = "The first sector of the disk";
/** The disk is device 1 of the bus. */
const FUNCTION = PCI_ECAM_GPA + (1 << 15);
/** MSI-X is the first capability, its table the first thing behind the structures. */
const MSIX = 0x40;
const VECTOR = 0x41;
const MOVED = PCI_WINDOW_GPA + 0x10_0000;

/** Where the disk's range lies, for the instructions that drive it. */
function drive(bar: number): number[] {
  const common = (field: number, size: 1 | 2 | 4, value: number): number[] => asm.store(bar + field, size, value);
  const table = bar + STRUCTURES_LENGTH;
  return [
    ...[0xfee0_0000, 0, VECTOR, 0].flatMap((word, at) => asm.store(table + 16 + 4 * at, 4, word)),
    ...asm.store(FUNCTION + MSIX + PCI_MSIX_FLAGS, 2, PCI_MSIX_FLAGS_ENABLE),
    ...[0, 1, 3].flatMap((status) => common(VIRTIO_PCI_COMMON_STATUS, 1, status)),
    ...common(VIRTIO_PCI_COMMON_GFSELECT, 4, 1),
    ...common(VIRTIO_PCI_COMMON_GF, 4, 1), // VERSION_1 is bit 32
    ...common(VIRTIO_PCI_COMMON_STATUS, 1, 11),
    ...common(VIRTIO_PCI_COMMON_Q_SIZE, 2, 4),
    ...common(VIRTIO_PCI_COMMON_Q_DESCLO, 4, MINI_DESCRIPTORS_GPA),
    ...common(VIRTIO_PCI_COMMON_Q_AVAILLO, 4, MINI_AVAILABLE_GPA),
    ...common(VIRTIO_PCI_COMMON_Q_USEDLO, 4, MINI_USED_GPA),
    ...common(VIRTIO_PCI_COMMON_Q_MSIX, 2, 1),
    ...common(VIRTIO_PCI_COMMON_Q_ENABLE, 2, 1),
    ...common(VIRTIO_PCI_COMMON_STATUS, 1, 15),
  ];
}

function readTheDisk(bar: number, length: number): number[] {
  return [...asm.store(bar + NOTIFY_OFFSET, 2, 0), ...waitForDisk(length)];
}

/** Interrupts that wait at the local APIC, of the vectors around VECTOR: bit 1 is VECTOR. One may be behind the used buffer. */
const WAITING_GPA = LOCAL_APIC_GPA + 0x200 + 0x10 * (VECTOR >> 5);
const printWaiting = (): number[][] => [asm.waitForWord(WAITING_GPA, 200_000), asm.printWord(WAITING_GPA)];
const enableApic = (): number[] => asm.store(LOCAL_APIC_GPA + 0xf0, 4, 0x1ff);

describe("kvm: pci", function () {
  this.timeout(60_000);
  let folder: string | undefined;
  let image: string;

  before(function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    image = join(folder, "disk.img");
    writeFileSync(image, TEXT.padEnd(64 * 1024, "."));
  });
  after(() => {
    if (folder !== undefined) rmSync(folder, { recursive: true });
  });

  async function run(
    code: number[][],
    threads: StartOptions["threads"],
    config: Partial<VmConfig> = {},
  ): Promise<{ exit: VmExit; output: Buffer; log: string[] }> {
    const kernel = miniKernelWith(readRequests(), code);
    const chunks: Buffer[] = [];
    const log: string[] = [];
    const vm = createVm(
      { kernel: kernel.path, memoryMib: 32, disks: [{ path: image }], pci: true, ...config },
      {
        output: (bytes, done) => {
          chunks.push(Buffer.from(bytes));
          setImmediate(done);
        },
        log: (line) => log.push(line),
      },
    );
    try {
      return { exit: await vm.start({ threads }), output: Buffer.concat(chunks), log };
    } finally {
      await vm.close();
      kernel.remove();
    }
  }

  for (const threads of ["main-first", "threads"] as const) {
    it(`${threads}: configuration space answers through the ports and as memory, wherever the vCPU runs`, async () => {
      const { exit, output } = await run(
        [
          ...[0x8000_0000, 0x8000_0800, 0x8000_1000].flatMap((address) => [
            asm.outWord(PCI_CONFIG_PORT, address),
            asm.printPortWord(PCI_CONFIG_PORT + 4),
          ]),
          asm.printWord(FUNCTION),
          asm.printWord(PCI_WINDOW_GPA + DEVICE_OFFSET),
          asm.powerOff(3),
          asm.haltForEver(),
        ],
        threads,
      );
      assert.deepEqual([exit.outcome, exit.exitStatus], ["poweroff", 3]);
      const words = Array.from({ length: output.length / 4 }, (_, at) => output.readUInt32LE(4 * at).toString(16));
      // The host bridge, the disk, nobody; the disk again; its 128 sectors.
      assert.deepEqual(words, ["81b36", "10421af4", "ffffffff", "10421af4", "80"]);
    });

    it(`${threads}: a request goes to the file and back, and its interrupt to the local APIC`, async () => {
      const code = [
        enableApic(),
        drive(PCI_WINDOW_GPA),
        readTheDisk(PCI_WINDOW_GPA, TEXT.length),
        ...printWaiting(),
        asm.powerOff(0),
        asm.haltForEver(),
      ];
      const { exit, output, log } = await run(code, threads);
      assert.equal(output.subarray(0, TEXT.length).toString("latin1"), TEXT);
      assert.equal(output.readUInt32LE(TEXT.length), 1 << (VECTOR & 31));
      const { reads, readBytes, notifications, interrupts, failures } = exit.devices["vda"] ?? {};
      assert.deepEqual([reads, readBytes, notifications, interrupts, failures], [1, 512, 1, 1, 0]);
      assert.deepEqual(log, []);
    });

    it(`${threads}: a device that the guest moves, before and while it is used, works where it is then`, async () => {
      const move = (to: number): number[][] => [
        asm.store(FUNCTION + PCI_COMMAND, 2, 0),
        asm.store(FUNCTION + 0x10, 4, to),
        asm.store(FUNCTION + PCI_COMMAND, 2, 6),
      ];
      const code = [
        ...move(MOVED + 0x8000),
        drive(MOVED + 0x8000),
        ...move(MOVED),
        readTheDisk(MOVED, 4),
        asm.printWord(PCI_WINDOW_GPA),
        asm.powerOff(0),
        asm.haltForEver(),
      ];
      const { output, exit } = await run(code, threads);
      assert.equal(output.toString("latin1"), `${TEXT.slice(0, 4)}\xff\xff\xff\xff`);
      assert.equal(exit.devices["vda"]?.["notifications"], 1);
    });
  }

  it("a guest that is saved goes on with its device where it has put it, vectors and doorbells included", async () => {
    const code = [
      enableApic(),
      asm.store(FUNCTION + 0x10, 4, MOVED),
      drive(MOVED),
      asm.outWord(PCI_CONFIG_PORT, 0x8000_0810),
      asm.print("!"),
      asm.waitForInput(),
      readTheDisk(MOVED, TEXT.length),
      ...printWaiting(),
      asm.printPortWord(PCI_CONFIG_PORT + 4),
      asm.powerOff(0),
      asm.haltForEver(),
    ];
    const kernel = miniKernelWith(readRequests(), code);
    const saved = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    const config = { kernel: kernel.path, memoryMib: 32, disks: [{ path: image }], pci: true };
    try {
      const output = collectOutput();
      const vm = createVm(config, output.host);
      const ran = vm.start({ threads: "threads" });
      await output.until(1);
      await createSnapshot(vm, saved, { resume: false });
      vm.stop();
      await ran;
      await vm.close();
      for (const threads of ["main-first", "threads"] as const) {
        const snapshot = openSnapshot(saved);
        const later = collectOutput();
        const again = snapshot.restore(later.host);
        const end = again.start({ threads });
        again.input(Buffer.from("x"));
        assert.equal((await end).outcome, "poweroff");
        await again.close();
        snapshot.close();
        const bytes = later.bytes();
        assert.equal(bytes.subarray(0, TEXT.length).toString("latin1"), TEXT);
        assert.equal(bytes.readUInt32LE(TEXT.length), 1 << (VECTOR & 31));
        assert.equal(bytes.readUInt32LE(TEXT.length + 4), MOVED + 4, "the ports' address, and the range's");
      }
    } finally {
      rmSync(saved, { recursive: true });
      kernel.remove();
    }
  });

  it("messages that no processor can take are lost, and nothing else happens", async () => {
    const wrong = [
      [0x1000, 0, 0x41],
      [0xfee0_0000, 0xffff_ffff, 0xffff_ffff],
      [0xfeef_f000, 0, 0x0000],
    ];
    for (const message of wrong) {
      const table = PCI_WINDOW_GPA + STRUCTURES_LENGTH + 16;
      const code = [
        drive(PCI_WINDOW_GPA),
        ...message.map((word, at) => asm.store(table + 4 * at, 4, word)),
        readTheDisk(PCI_WINDOW_GPA, 4),
        asm.powerOff(0),
        asm.haltForEver(),
      ];
      const { output, exit, log } = await run(code, "threads");
      assert.deepEqual([output.toString("latin1"), exit.outcome, log], [TEXT.slice(0, 4), "poweroff", []]);
    }
  });

  it("a bus without devices has a host bridge", async () => {
    const code = [asm.printWord(PCI_ECAM_GPA), asm.printWord(FUNCTION), asm.powerOff(0), asm.haltForEver()];
    const { output } = await run(code, "main-first", { disks: [] });
    assert.equal(output.toString("hex"), "361b0800ffffffff");
  });
});
