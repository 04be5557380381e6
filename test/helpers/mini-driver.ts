// A driver of a virtio disk in a few instructions: one request that lies ready in memory, the
// registers written in order, a loop that waits for the used ring. For kernels of mini-kernel.ts.
import {
  VIRTIO_MMIO_DRIVER_FEATURES,
  VIRTIO_MMIO_DRIVER_FEATURES_SEL,
  VIRTIO_MMIO_INTERRUPT_ACK,
  VIRTIO_MMIO_QUEUE_AVAIL_HIGH,
  VIRTIO_MMIO_QUEUE_AVAIL_LOW,
  VIRTIO_MMIO_QUEUE_DESC_HIGH,
  VIRTIO_MMIO_QUEUE_DESC_LOW,
  VIRTIO_MMIO_QUEUE_NOTIFY,
  VIRTIO_MMIO_QUEUE_NUM,
  VIRTIO_MMIO_QUEUE_READY,
  VIRTIO_MMIO_QUEUE_SEL,
  VIRTIO_MMIO_QUEUE_USED_LOW,
  VIRTIO_MMIO_STATUS,
} from "../../devices/virtio/constants.js";
import { SERIAL0_PORT, VIRTIO_MMIO_GPA } from "../../vmm/memory/layout.js";
import type { TestSegment } from "./bytes-image.js";
import { asm } from "./mini-kernel.js";

const DATA = 17 * 2 ** 20;
const USED = DATA + 0x200;
const BUFFER = DATA + 0x1000;
const SECTOR = 512;
const QUEUE_SIZE = 4;
const NEXT = 1;
const WRITE = 2;

/** Where all lies that the instructions do not touch: they reach the first 4 GiB only. */
export interface MiniRings {
  /** Descriptors, available ring and status byte, a page. */
  readonly gpa: number;
  /** A request's 16 bytes of header. */
  readonly headerGpa: number;
}

const LOW_RINGS: MiniRings = { gpa: DATA, headerGpa: DATA + 0x300 };
const AVAILABLE_OFFSET = 0x100;
const STATUS_OFFSET = 0x310;
export const MINI_DESCRIPTORS_GPA = LOW_RINGS.gpa;
export const MINI_AVAILABLE_GPA = LOW_RINGS.gpa + AVAILABLE_OFFSET;
export const MINI_USED_GPA = USED;

const u32 = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff);

export function writeRegister(offset: number, value: number): number[] {
  return asm.store(VIRTIO_MMIO_GPA + offset, 4, value);
}

/** Prints `count` bytes from `gpa`, each read on its own: mov eax, gpa; mov al, [rax]; mov edx, port; out dx, al */
function printBytes(gpa: number, count: number): number[] {
  return Array.from({ length: count }, (_, i) => [
    ...[0xb8, ...u32(gpa + i), 0x8a, 0x00],
    ...[0xba, ...u32(SERIAL0_PORT), 0xee],
  ]).flat();
}

/** Prints a register's bytes. */
export function printRegister(offset: number): number[] {
  return asm.printWord(VIRTIO_MMIO_GPA + offset);
}

/** A request to read sector 0, `count` times over, ready in the rings. */
export function readRequests(count = 1, { gpa, headerGpa } = LOW_RINGS): TestSegment[] {
  const bytes = new Uint8Array(0x400);
  const data = new DataView(bytes.buffer);
  const descriptor = (index: number, address: number, length: number, flags: number): void => {
    data.setBigUint64(16 * index, BigInt(address), true);
    data.setUint32(16 * index + 8, length, true);
    data.setUint16(16 * index + 12, flags, true);
    data.setUint16(16 * index + 14, index + 1, true);
  };
  descriptor(0, headerGpa, 16, NEXT);
  descriptor(1, BUFFER, SECTOR, NEXT | WRITE);
  descriptor(2, gpa + STATUS_OFFSET, 1, WRITE);
  data.setUint16(AVAILABLE_OFFSET + 2, count, true); // idx; every head is 0
  data.setUint8(STATUS_OFFSET, 0xff);
  // The header, type and sector 0, is what memory holds that nobody has written to.
  return [{ gpa, bytes }];
}

/** Brings the disk up, as far as DRIVER_OK. */
export function startDisk({ gpa } = LOW_RINGS): number[] {
  const address = (low: number, high: number, value: number): number[] => [
    ...writeRegister(low, value % 2 ** 32),
    ...writeRegister(high, Math.floor(value / 2 ** 32)),
  ];
  return [
    ...[0, 1, 3].flatMap((status) => writeRegister(VIRTIO_MMIO_STATUS, status)),
    ...writeRegister(VIRTIO_MMIO_DRIVER_FEATURES_SEL, 1),
    ...writeRegister(VIRTIO_MMIO_DRIVER_FEATURES, 1), // VERSION_1 is bit 32
    ...writeRegister(VIRTIO_MMIO_STATUS, 11),
    ...writeRegister(VIRTIO_MMIO_QUEUE_SEL, 0),
    ...writeRegister(VIRTIO_MMIO_QUEUE_NUM, QUEUE_SIZE),
    ...address(VIRTIO_MMIO_QUEUE_DESC_LOW, VIRTIO_MMIO_QUEUE_DESC_HIGH, gpa),
    ...address(VIRTIO_MMIO_QUEUE_AVAIL_LOW, VIRTIO_MMIO_QUEUE_AVAIL_HIGH, gpa + AVAILABLE_OFFSET),
    ...writeRegister(VIRTIO_MMIO_QUEUE_USED_LOW, USED),
    ...writeRegister(VIRTIO_MMIO_QUEUE_READY, 1),
    ...writeRegister(VIRTIO_MMIO_STATUS, 15),
  ];
}

/** Notifies, waits until `requests` are used, prints the first `length` bytes that came. */
export function readDisk(length: number, requests = 1): number[] {
  return [
    ...writeRegister(VIRTIO_MMIO_QUEUE_NOTIFY, 0),
    ...waitForDisk(length, requests),
    ...writeRegister(VIRTIO_MMIO_INTERRUPT_ACK, 1),
  ];
}

/** Waits until `requests` are used, prints the first `length` bytes that came. */
export function waitForDisk(length: number, requests = 1): number[] {
  return [
    // mov eax, used; back: pause; cmp word [rax+2], requests; jne back
    ...[0xb8, ...u32(USED), 0xf3, 0x90, 0x66, 0x83, 0x78, 0x02, requests, 0x75, 0xf7],
    ...printBytes(BUFFER, length),
  ];
}
