// An image in memory, and hand-made kernels of each format.
import type { GuestMemory } from "../../devices/contracts.js";
import type { ImageSource } from "../../vmm/x86/image-source.js";

export class BytesImage implements ImageSource {
  readonly path = "test.img";
  readonly size: number;
  readonly #bytes: Uint8Array;
  readonly #memory: GuestMemory;

  constructor(bytes: Uint8Array, memory: GuestMemory) {
    this.#bytes = bytes;
    this.size = bytes.length;
    this.#memory = memory;
  }

  read(offset: number, length: number): Uint8Array {
    return this.#bytes.slice(offset, offset + length);
  }

  readInto(offset: number, gpa: number, length: number): void {
    this.#memory.slice(gpa, length).set(this.#bytes.subarray(offset, offset + length));
  }
}

export interface TestSegment {
  readonly gpa: number;
  readonly bytes: Uint8Array;
  readonly memorySize?: number;
  /** Overrides of the header's own idea. */
  readonly offset?: number;
}

const EHDR = 64;
const PHDR = 56;

/** An ELF64 executable; `pvhEntry` adds the note. */
export function elf(entry: number, segments: readonly TestSegment[], pvhEntry?: number): Uint8Array {
  const note = pvhEntry === undefined ? new Uint8Array() : pvhNote(pvhEntry);
  const headers = segments.length + (pvhEntry === undefined ? 0 : 1);
  let at = EHDR + headers * PHDR;
  const size = at + note.length + segments.reduce((sum, { bytes }) => sum + bytes.length, 0);
  const image = new Uint8Array(size);
  const data = new DataView(image.buffer);
  image.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1]);
  data.setUint16(16, 2, true); // ET_EXEC
  data.setUint16(18, 62, true); // EM_X86_64
  data.setUint32(20, 1, true);
  data.setBigUint64(24, BigInt(entry), true);
  data.setBigUint64(32, BigInt(EHDR), true); // e_phoff
  data.setUint16(52, EHDR, true);
  data.setUint16(54, PHDR, true);
  data.setUint16(56, headers, true);
  const header = (index: number, type: number, offset: number, gpa: number, file: number, memory: number): void => {
    const h = EHDR + index * PHDR;
    data.setUint32(h, type, true);
    data.setBigUint64(h + 8, BigInt(offset), true);
    data.setBigUint64(h + 16, BigInt(gpa), true);
    data.setBigUint64(h + 24, BigInt(gpa), true);
    data.setBigUint64(h + 32, BigInt(file), true);
    data.setBigUint64(h + 40, BigInt(memory), true);
  };
  segments.forEach(({ gpa, bytes, memorySize, offset }, i) => {
    header(i, 1, offset ?? at, gpa, bytes.length, memorySize ?? bytes.length);
    image.set(bytes, at);
    at += bytes.length;
  });
  if (pvhEntry !== undefined) {
    header(segments.length, 4, at, 0, note.length, note.length);
    image.set(note, at);
  }
  return image;
}

function pvhNote(entry: number): Uint8Array {
  const note = new Uint8Array(24);
  const data = new DataView(note.buffer);
  data.setUint32(0, 4, true); // namesz
  data.setUint32(4, 8, true); // descsz
  data.setUint32(8, 18, true); // XEN_ELFNOTE_PHYS32_ENTRY
  note.set([0x58, 0x65, 0x6e, 0], 12);
  data.setBigUint64(16, BigInt(entry), true);
  return note;
}

export interface TestBzImage {
  readonly version?: number;
  readonly xloadflags?: number;
  readonly prefAddress?: number;
  readonly initSize?: number;
  readonly kernel?: Uint8Array;
  /** Claim in syssize, in 16-byte paragraphs. */
  readonly syssize?: number;
}

/** A bzImage with two setup sectors. */
export function bzImage(options: TestBzImage = {}): Uint8Array {
  const kernel = options.kernel ?? new Uint8Array(0x1000).fill(0x90);
  const image = new Uint8Array(3 * 512 + kernel.length);
  const data = new DataView(image.buffer);
  data.setUint8(0x1f1, 2); // setup_sects
  data.setUint32(0x1f4, options.syssize ?? kernel.length / 16, true);
  data.setUint16(0x1fe, 0xaa55, true);
  data.setUint8(0x200, 0xeb);
  data.setUint8(0x201, 0x6a); // header ends at 0x26c
  data.setUint32(0x202, 0x53726448, true);
  data.setUint16(0x206, options.version ?? 0x20f, true);
  data.setUint8(0x211, 1);
  data.setUint32(0x22c, 0x7fff_ffff, true);
  data.setUint32(0x230, 0x20_0000, true); // kernel_alignment
  data.setUint16(0x236, options.xloadflags ?? 1, true);
  data.setUint32(0x238, 2047, true);
  data.setBigUint64(0x258, BigInt(options.prefAddress ?? 0x100_0000), true);
  data.setUint32(0x260, options.initSize ?? 0x2000, true);
  image.set(kernel, 3 * 512);
  return image;
}
