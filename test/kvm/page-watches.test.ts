// Needs: a /dev/kvm of any kind. Which pages of a guest's memory change is known, whoever writes them.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createVm, type Machine } from "../../vmm/index.js";
import { PAGE_SIZE, SERIAL0_PORT } from "../../vmm/memory/layout.js";
import { viewMemory } from "../../vmm/sys/memory.js";
import { collectOutput } from "../helpers/collected-output.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { readDisk, readRequests, startDisk } from "../helpers/mini-driver.js";
import { asm, miniKernelWith } from "../helpers/mini-kernel.js";
import { skip } from "../helpers/skip.js";

const TEXT = "What was read";
/** mini-driver.ts: status and rings, and what is read. */
const RINGS_PAGE = (17 * 2 ** 20) / PAGE_SIZE;
const BUFFER_PAGE = RINGS_PAGE + 1;
/** mov ecx, count; mov edx, port; mov al, '.'; back: out dx, al; dec ecx; jnz back */
const dots = (count: number): number[] => [
  ...[0xb9, count & 0xff, count >> 8, 0, 0, 0xba, SERIAL0_PORT & 0xff, SERIAL0_PORT >> 8, 0, 0],
  ...[0xb0, 0x2e, 0xee, 0xff, 0xc9, 0x75, 0xfb],
];

async function memoryOf(vm: Machine): Promise<Buffer> {
  return vm.whileOpen(({ memory }) =>
    Promise.resolve(Buffer.from(new Uint8Array(viewMemory(memory.hostAddress, memory.size)))),
  );
}

function pagesIn(bits: Uint32Array): number[] {
  return Array.from({ length: bits.length * 32 }, (_, page) => page).filter(
    (page) => (((bits[page >>> 5] ?? 0) >>> (page & 31)) & 1) !== 0,
  );
}

function differentPages(a: Buffer, b: Buffer): number[] {
  return Array.from({ length: a.length / PAGE_SIZE }, (_, page) => page).filter((page) => {
    const [start, end] = [page * PAGE_SIZE, (page + 1) * PAGE_SIZE];
    return !a.subarray(start, end).equals(b.subarray(start, end));
  });
}

describe("kvm: pages that change", function () {
  this.timeout(60_000);
  let folder: string;
  let image: string;

  before(function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-watch-"));
    image = join(folder, "disk.img");
    writeFileSync(image, TEXT.padEnd(64 * 1024, "."));
  });
  after(() => {
    rmSync(folder, { recursive: true });
  });

  for (const threads of ["main-first", "threads"] as const) {
    it(`${threads}: every page that guest or devices write is known, and few others; to each watch what is new to it`, async () => {
      const code = [startDisk(), dots(2000), readDisk(TEXT.length), asm.countInMemory()];
      const kernel = miniKernelWith(readRequests(), code);
      const output = collectOutput();
      const vm = createVm({ kernel: kernel.path, memoryMib: 32, disks: [{ path: image }] }, output.host);
      const run = vm.start({ threads });
      try {
        await output.until(10);
        await vm.pause();
        const before = await memoryOf(vm);
        const first = vm.watchPages();
        vm.resume();
        await output.until(2000 + TEXT.length + 300);
        await vm.pause();
        const after = await memoryOf(vm);
        assert.equal(
          output
            .bytes()
            .subarray(2000, 2000 + TEXT.length)
            .toString(),
          TEXT,
        );
        const second = vm.watchPages();
        const changed = pagesIn(first.changed());
        const different = differentPages(before, after);
        assert.ok(different.includes(RINGS_PAGE) && different.includes(BUFFER_PAGE) && different.length > 250);
        assert.deepEqual(
          different.filter((page) => !changed.includes(page)),
          [],
        );
        // Page tables and the like.
        assert.ok(changed.length < different.length + 20, `${String(changed.length)} ${String(different.length)}`);
        assert.deepEqual(pagesIn(first.take()), changed);
        assert.deepEqual([pagesIn(first.changed()), pagesIn(second.changed())], [[], []]);
        vm.resume();
        await output.until(output.bytes().length + 10);
        await vm.pause();
        const later = differentPages(after, await memoryOf(vm));
        assert.ok(later.length > 0);
        for (const watch of [first, second]) {
          const known = pagesIn(watch.take());
          assert.deepEqual(
            later.filter((page) => !known.includes(page)),
            [],
          );
        }
        second.close();
        first.close();
        assert.throws(() => first.changed());
        // One that is open to the end.
        const last = vm.watchPages();
        assert.deepEqual(pagesIn(last.take()), []);
        vm.resume();
      } finally {
        vm.stop();
        await run;
        await vm.close();
        kernel.remove();
      }
      assert.throws(() => vm.watchPages());
    });
  }
});
