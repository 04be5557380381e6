// Kernels of a few instructions that give a virtio device all the work that its queue holds, again and again: what a guest can ask of a
// monitor at most. Where kernel code is emulated, Linux's drivers ask for a hundredth of that.
import {
  VIRTIO_MMIO_DRIVER_FEATURES,
  VIRTIO_MMIO_DRIVER_FEATURES_SEL,
  VIRTIO_MMIO_QUEUE_AVAIL_LOW,
  VIRTIO_MMIO_QUEUE_DESC_LOW,
  VIRTIO_MMIO_QUEUE_NOTIFY,
  VIRTIO_MMIO_QUEUE_NUM,
  VIRTIO_MMIO_QUEUE_READY,
  VIRTIO_MMIO_QUEUE_SEL,
  VIRTIO_MMIO_QUEUE_USED_LOW,
  VIRTIO_MMIO_STATUS,
} from "../../devices/virtio/constants.js";
import type { TestSegment } from "./bytes-image.js";
import { writeRegister } from "./mini-driver.js";
import { asm, miniKernelWith, type MiniKernel } from "./mini-kernel.js";

const RINGS = 17 * 2 ** 20;
const HEADERS = RINGS + 0x4000;
const BUFFER = 20 * 2 ** 20;
const BUFFER_BYTES = 2 ** 20;
/** What each device has room for. */
const QUEUE_SIZE = 128;
const DESCRIPTOR_BYTES = 16;
const NEXT = 1;
const WRITE = 2;
/** virtio 1.2 §5.2.6: of a request, type and sector; §5.1.6: of a frame; §5.10.6: of a packet. */
const BLK_T_OUT = 1;
const BLK_HEADER_BYTES = 16;
const SECTOR_BYTES = 512;
const NET_HEADER_BYTES = 12;
const VSOCK_HEADER_BYTES = 44;
const VSOCK_OP_REQUEST = 1;
const HOST_CID = 2n;

interface Part {
  readonly gpa: number;
  readonly length: number;
  readonly flags: number;
}

/** A queue of the only device, and where its rings are: a page each. */
interface Rings {
  readonly queue: number;
  readonly gpa: number;
}

const AVAILABLE_OFFSET = 0x1000;
const USED_OFFSET = 0x2000;

const u16 = (value: number): number[] => [value & 0xff, value >> 8];
const u32 = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff);

/** Descriptors of the chains, and an available ring with all of them, again and again. */
function rings({ gpa }: Rings, chains: readonly (readonly Part[])[]): TestSegment {
  const bytes = new Uint8Array(USED_OFFSET);
  const data = new DataView(bytes.buffer);
  let index = 0;
  const heads = chains.map((chain) => {
    const head = index;
    chain.forEach((part, at) => {
      const isLast = at === chain.length - 1;
      const offset = DESCRIPTOR_BYTES * index++;
      data.setBigUint64(offset, BigInt(part.gpa), true);
      data.setUint32(offset + 8, part.length, true);
      data.setUint16(offset + 12, part.flags | (isLast ? 0 : NEXT), true);
      data.setUint16(offset + 14, isLast ? 0 : index, true);
    });
    return head;
  });
  for (let slot = 0; slot < QUEUE_SIZE; slot++) {
    data.setUint16(AVAILABLE_OFFSET + 4 + 2 * slot, heads[slot % heads.length] ?? 0, true);
  }
  return { gpa, bytes };
}

function setUp({ queue, gpa }: Rings): number[] {
  return [
    ...writeRegister(VIRTIO_MMIO_QUEUE_SEL, queue),
    ...writeRegister(VIRTIO_MMIO_QUEUE_NUM, QUEUE_SIZE),
    ...writeRegister(VIRTIO_MMIO_QUEUE_DESC_LOW, gpa),
    ...writeRegister(VIRTIO_MMIO_QUEUE_AVAIL_LOW, gpa + AVAILABLE_OFFSET),
    ...writeRegister(VIRTIO_MMIO_QUEUE_USED_LOW, gpa + USED_OFFSET),
    ...writeRegister(VIRTIO_MMIO_QUEUE_READY, 1),
  ];
}

/** All chains are available once more, and it waits until they are used. */
function round({ queue, gpa }: Rings, chains: number): number[] {
  const index = gpa + AVAILABLE_OFFSET + 2;
  return [
    // mov eax, index; add word [rax], chains
    ...[0xb8, ...u32(index), 0x66, 0x81, 0x00, ...u16(chains)],
    ...writeRegister(VIRTIO_MMIO_QUEUE_NOTIFY, queue),
    // mov eax, index; mov cx, [rax]; mov eax, used index; back: pause; cmp [rax], cx; jne back
    ...[0xb8, ...u32(index), 0x66, 0x8b, 0x08, 0xb8, ...u32(gpa + USED_OFFSET + 2)],
    ...[0xf3, 0x90, 0x66, 0x39, 0x08, 0x75, 0xf9],
  ];
}

function flood(headers: Uint8Array, queue: number, chains: readonly (readonly Part[])[]): MiniKernel {
  const one = { queue, gpa: RINGS };
  // As many rounds as fill the ring, so that its slots and the chains stay in step.
  if (QUEUE_SIZE % chains.length !== 0) throw new RangeError(`${String(chains.length)} chains`);
  const again = round(one, chains.length);
  return miniKernelWith(
    [rings(one, chains), { gpa: HEADERS, bytes: headers }],
    [
      asm.print("up\n"),
      [0, 1, 3].flatMap((status) => writeRegister(VIRTIO_MMIO_STATUS, status)),
      // VERSION_1 is bit 32.
      writeRegister(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1),
      writeRegister(VIRTIO_MMIO_DRIVER_FEATURES, 1),
      writeRegister(VIRTIO_MMIO_STATUS, 11),
      setUp(one),
      writeRegister(VIRTIO_MMIO_STATUS, 15),
      // jmp back
      [...again, 0xe9, ...u32(-(again.length + 5))],
    ],
  );
}

/** Writes a MiB at a time to the first 32 MiB of the disk. */
export function diskFlood(): MiniKernel {
  const chains = 32;
  const headers = new Uint8Array(chains * BLK_HEADER_BYTES + 1);
  const data = new DataView(headers.buffer);
  for (let chain = 0; chain < chains; chain++) {
    data.setUint32(chain * BLK_HEADER_BYTES, BLK_T_OUT, true);
    data.setBigUint64(chain * BLK_HEADER_BYTES + 8, BigInt((chain * BUFFER_BYTES) / SECTOR_BYTES), true);
  }
  return flood(
    headers,
    0,
    Array.from({ length: chains }, (_, chain) => [
      { gpa: HEADERS + chain * BLK_HEADER_BYTES, length: BLK_HEADER_BYTES, flags: 0 },
      { gpa: BUFFER, length: BUFFER_BYTES, flags: 0 },
      { gpa: HEADERS + chains * BLK_HEADER_BYTES, length: 1, flags: WRITE },
    ]),
  );
}

/** Sends frames of 1,400 bytes to everybody, of a type for experiments. */
export function packetFlood(): MiniKernel {
  const bytes = new Uint8Array(NET_HEADER_BYTES + 1400);
  bytes.set([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02, 0, 0, 0, 0, 1, 0x88, 0xb5], NET_HEADER_BYTES);
  return flood(
    bytes,
    1,
    Array.from({ length: QUEUE_SIZE }, () => [{ gpa: HEADERS, length: bytes.length, flags: 0 }]),
  );
}

/** Asks for connections to the host, each from another port. */
export function vsockFlood(): MiniKernel {
  const headers = new Uint8Array(QUEUE_SIZE * VSOCK_HEADER_BYTES);
  const data = new DataView(headers.buffer);
  for (let chain = 0; chain < QUEUE_SIZE; chain++) {
    const at = chain * VSOCK_HEADER_BYTES;
    data.setBigUint64(at, 3n, true);
    data.setBigUint64(at + 8, HOST_CID, true);
    data.setUint32(at + 16, 1000 + chain, true);
    data.setUint32(at + 20, 1234, true);
    data.setUint16(at + 28, 1, true);
    data.setUint16(at + 30, VSOCK_OP_REQUEST, true);
  }
  return flood(
    headers,
    1,
    Array.from({ length: QUEUE_SIZE }, (_, chain) => [
      { gpa: HEADERS + chain * VSOCK_HEADER_BYTES, length: VSOCK_HEADER_BYTES, flags: 0 },
    ]),
  );
}

/** Writes to the serial port. */
export function consoleFlood(): MiniKernel {
  return miniKernelWith([], [asm.print("up\n"), asm.flood(0x78)]);
}
