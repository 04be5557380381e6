// A typed window on the mapping that a vCPU shares with the kernel: struct kvm_run, then a
// page of port data, then the VM's ring of coalesced writes. KVM api.rst §5.
// Nothing here allocates per exit.
import type { AccessSize } from "../../devices/contracts.js";
import { KVM_EXIT_IO_OUT, kvm_run } from "../sys/kvm-abi.js";
import { viewMemory } from "../sys/memory.js";

export class KvmRun {
  /** Host address of the mapping. */
  readonly address: number;
  readonly length: number;
  readonly #bytes: Uint8Array;
  readonly #words: Uint32Array;
  readonly #data: DataView;

  constructor(address: number, length: number) {
    this.address = address;
    this.length = length;
    // SAFETY: VcpuFd unmaps only after every thread that runs or kicks the vCPU has stopped.
    const buffer = viewMemory(address, length);
    this.#bytes = new Uint8Array(buffer);
    this.#words = new Uint32Array(buffer);
    this.#data = new DataView(buffer);
  }

  get exitReason(): number {
    return this.#words[kvm_run.exit_reason >> 2] ?? 0;
  }

  /** Nonzero makes the next or current KVM_RUN return EINTR. */
  set immediateExit(value: 0 | 1) {
    Atomics.store(this.#bytes, kvm_run.immediate_exit, value);
  }

  // KVM_EXIT_IO: `ioCount` items of `ioSize` bytes lie packed at `ioDataOffset`, for one port.

  get isIoOut(): boolean {
    return this.#bytes[kvm_run.io] === KVM_EXIT_IO_OUT;
  }

  get ioSize(): AccessSize {
    return this.#bytes[kvm_run.io_size] as AccessSize;
  }

  get ioPort(): number {
    return this.#data.getUint16(kvm_run.io_port, true);
  }

  get ioCount(): number {
    return this.#words[kvm_run.io_count >> 2] ?? 0;
  }

  /** Offset of the data in this mapping; 64 bits in the structure, always inside the mapping. */
  get ioDataOffset(): number {
    return this.#words[kvm_run.io_data_offset >> 2] ?? 0;
  }

  // KVM_EXIT_MMIO

  get isMmioWrite(): boolean {
    return this.#bytes[kvm_run.mmio_is_write] !== 0;
  }

  get mmioAddress(): number {
    const low = this.#words[kvm_run.mmio >> 2] ?? 0;
    const high = this.#words[(kvm_run.mmio >> 2) + 1] ?? 0;
    return high * 2 ** 32 + low;
  }

  get mmioLength(): number {
    return this.#words[kvm_run.mmio_len >> 2] ?? 0;
  }

  /** Unsigned little-endian value of 1, 2 or 4 bytes in the mapping. */
  load(offset: number, size: AccessSize): number {
    if (size === 1) return this.#bytes[offset] ?? 0;
    return size === 2 ? this.#data.getUint16(offset, true) : this.#data.getUint32(offset, true);
  }

  store(offset: number, size: AccessSize, value: number): void {
    if (size === 1) this.#bytes[offset] = value;
    else if (size === 2) this.#data.setUint16(offset, value, true);
    else this.#data.setUint32(offset, value, true);
  }

  /** 64-bit field, for the rare exits. */
  loadU64(offset: number): bigint {
    return this.#data.getBigUint64(offset, true);
  }

  storeU64(offset: number, value: bigint): void {
    this.#data.setBigUint64(offset, value, true);
  }

  loadU32(offset: number): number {
    return this.#data.getUint32(offset, true);
  }

  /** `length` bytes from `offset`, copied. */
  copy(offset: number, length: number): Uint8Array {
    return this.#bytes.slice(offset, offset + length);
  }

  /** Words of one page of the mapping: the ring of coalesced writes. */
  pageWords(page: number): Uint32Array {
    return new Uint32Array(this.#bytes.buffer, page * 4096, 1024);
  }
}
