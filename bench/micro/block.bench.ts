// The block device alone: a driver in this process writes the ring, the file is in the page cache,
// no guest runs. What is measured is queue, device and system call, on one core.
//   node build/bench/micro/block.bench.js [--rounds N] [--folder FOLDER]
// The last line of standard output is JSON: median and spread of every row, `bytes` of heap a request.
import { closeSync, existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT } from "../../devices/virtio/block/constants.js";
import { BlockDevice } from "../../devices/virtio/block/device.js";
import { VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC } from "../../devices/virtio/constants.js";
import { MmioTransport, VIRTIO_MMIO_REGISTER_WORDS } from "../../devices/virtio/mmio-transport.js";
import { Segments } from "../../devices/virtio/segments.js";
import { VirtioDriver } from "../../test/helpers/virtio-driver.js";
import { openDiskFile } from "../../vmm/virtio/backends/disk-file.js";
import { FileDisk } from "../../vmm/virtio/backends/file-disk.js";
import { MappedGuestMemory } from "../../vmm/memory/guest-memory.js";
import { GIB, KIB, MIB } from "../../vmm/memory/layout.js";
import { measure } from "./measure.js";

const DISK_SIZE = 256 * MIB;
/** `bytes` moved between two looks at the heap: 10,000 requests of 4 KiB. */
const HEAP_CHUNK_BYTES = 10_000 * 4 * KIB;

interface Row {
  readonly name: string;
  readonly type: number;
  /** `bytes` of a request, and of each of its segments. */
  readonly length: number;
  readonly segmentLength: number;
  /** Requests that are made available before a notification. */
  readonly depth: number;
}

const ROWS: readonly Row[] = [
  { name: "read_4k", type: VIRTIO_BLK_T_IN, length: 4 * KIB, segmentLength: 4 * KIB, depth: 32 },
  { name: "read_4k_depth_1", type: VIRTIO_BLK_T_IN, length: 4 * KIB, segmentLength: 4 * KIB, depth: 1 },
  { name: "write_4k", type: VIRTIO_BLK_T_OUT, length: 4 * KIB, segmentLength: 4 * KIB, depth: 32 },
  { name: "read_64k", type: VIRTIO_BLK_T_IN, length: 64 * KIB, segmentLength: 4 * KIB, depth: 8 },
  { name: "read_1m", type: VIRTIO_BLK_T_IN, length: MIB, segmentLength: 64 * KIB, depth: 4 },
  { name: "write_1m", type: VIRTIO_BLK_T_OUT, length: MIB, segmentLength: 64 * KIB, depth: 4 },
];

interface Machine {
  readonly memory: MappedGuestMemory;
  readonly driver: VirtioDriver;
  readonly transport: MmioTransport;
  readonly disk: FileDisk;
}

function machine(path: string): Machine {
  const memory = MappedGuestMemory.map(64 * MIB);
  const file = openDiskFile({ path, isReadonly: false, blockSize: 512 });
  const loop = {
    now: () => performance.now(),
    defer: (task: () => void) => deferred.push(task),
    after: () => () => undefined,
  };
  const disk = new FileDisk(file, memory);
  const device = new BlockDevice({
    name: "block0",
    backend: disk,
    id: "bench",
    blockSize: 512,
    cache: "writeback",
    loop,
    report: (line) => console.error(line),
  });
  const transport = new MmioTransport({
    device,
    memory,
    interrupt: { trigger: () => undefined },
    registers: new Int32Array(VIRTIO_MMIO_REGISTER_WORDS),
    loop,
    report: (line) => console.error(line),
  });
  process.once("exit", () => closeSync(file.fd));
  return { memory, transport, disk, driver: new VirtioDriver(transport, memory, MIB) };
}

/** Turns that the device has asked for. */
const deferred: (() => void)[] = [];

/** A function that performs `count` requests of one kind, and allocates nothing itself. */
function workload({ memory, driver, transport }: Machine, row: Row): (count: number) => void {
  const [queue] = driver.start({ features: [VIRTIO_RING_F_EVENT_IDX, VIRTIO_RING_F_INDIRECT_DESC] });
  if (queue === undefined) throw new Error("The device has no queue");
  const headers: number[] = [];
  const heads: number[] = [];
  for (let slot = 0; slot < row.depth; slot++) {
    const header = driver.allocate(32);
    const data = driver.allocate(row.length, 4 * KIB);
    const segments = Array.from({ length: row.length / row.segmentLength }, (_, index) => ({
      gpa: data + index * row.segmentLength,
      length: row.segmentLength,
      writable: row.type === VIRTIO_BLK_T_IN,
    }));
    memory.slice(header, 32).fill(0);
    memory.writeU32(header, row.type);
    headers.push(header);
    const chain = [{ gpa: header, length: 16 }, ...segments, { gpa: header + 16, length: 1, writable: true }];
    heads.push(queue.write(chain));
  }
  const sectors = row.length / 512;
  const places = DISK_SIZE / row.length;
  let place = 0;
  return (count) => {
    for (let left = count; left > 0; left -= row.depth) {
      for (let slot = 0; slot < row.depth; slot++) {
        // A stride that is prime to the size: neither sequential nor drawn at random.
        place = (place + 7919) % places;
        memory.writeU32((headers[slot] ?? 0) + 8, place * sectors);
        queue.publish(heads[slot] ?? 0);
      }
      if (queue.wantsNotification()) transport.notify(0);
      for (let task = deferred.pop(); task !== undefined; task = deferred.pop()) task();
      for (let slot = 0; slot < row.depth; slot++) {
        if (!queue.takeUsed()) throw new Error("A request was not answered");
        if (memory.readU8((headers[slot] ?? 0) + 16) !== 0) throw new Error("A request failed");
      }
      queue.wantInterrupt(row.depth - 1);
    }
  };
}

interface Result {
  readonly requests_per_s: number;
  readonly gib_per_s: number;
  readonly requests_per_s_min: number;
  readonly requests_per_s_max: number;
  readonly heap_bytes_per_request: number;
}

function measureRow(run: (count: number) => void, row: Row, rounds: number): Result {
  const rates = measure(run, {
    rounds,
    batch: row.depth * Math.max(1, Math.round((2 * MIB) / (row.depth * row.length))),
    heapChunk: row.depth * Math.ceil(HEAP_CHUNK_BYTES / row.length / row.depth),
  });
  return {
    requests_per_s: Math.round(rates.median),
    gib_per_s: Number(((rates.median * row.length) / GIB).toFixed(2)),
    requests_per_s_min: Math.round(rates.min),
    requests_per_s_max: Math.round(rates.max),
    heap_bytes_per_request: Number(rates.heapBytes.toFixed(2)),
  };
}

/** The same bytes without device and ring: what the system call alone costs in this run. */
function backendAlone({ disk }: Machine, row: Row): (count: number) => void {
  const data = new Segments(row.length / row.segmentLength);
  for (let offset = 0; offset < row.length; offset += row.segmentLength) data.append(MIB + offset, row.segmentLength);
  const places = DISK_SIZE / row.length;
  let place = 0;
  return (count) => {
    for (let left = count; left > 0; left--) {
      place = (place + 7919) % places;
      const position = place * row.length;
      const error = row.type === VIRTIO_BLK_T_IN ? disk.read(position, data) : disk.write(position, data);
      if (error !== 0) throw new Error(disk.explain(error));
    }
  };
}

const { values } = parseArgs({ options: { rounds: { type: "string", default: "11" }, folder: { type: "string" } } });
// tmpfs where there is one: a file system's journal and write-back are not what is measured here.
const parent = values.folder ?? (existsSync("/dev/shm") ? "/dev/shm" : tmpdir());
const folder = mkdtempSync(join(parent, "vmlet-bench-"));
process.once("exit", () => rmSync(folder, { recursive: true }));
const path = join(folder, "disk");
writeFileSync(path, new Uint8Array(DISK_SIZE).fill(0x5a));

const rounds = Number(values.rounds);
const rig = machine(path);
const results: Record<string, Result> = {};
for (const row of ROWS) {
  for (const [prefix, make] of [
    ["blk", workload],
    ["backend", backendAlone],
  ] as const) {
    const name = `${prefix}_${row.name}`;
    const result = measureRow(make(rig, row), row, rounds);
    results[name] = result;
    console.error(`${name}: ${String(result.requests_per_s)} requests/s, ${String(result.gib_per_s)} GiB/s`);
  }
}
console.log(JSON.stringify({ bench: "block", node: process.version, rounds, results }));
