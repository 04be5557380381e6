// A program of the classic BPF as seccomp(2) takes it, and what it looks at. linux/filter.h, linux/bpf_common.h, linux/seccomp.h,
// linux/audit.h.

/** struct sock_filter, `bytes`. */
export const SIZEOF_SOCK_FILTER = 8;
/** Of a conditional jump, `instructions`. */
export const MAX_JUMP = 255;

// Whole instructions.
export const LOAD_WORD = 0x20;
export const AND = 0x54;
export const JUMP = 0x05;
export const JUMP_IF_EQUAL = 0x15;
export const JUMP_IF_GREATER = 0x25;
export const JUMP_IF_GREATER_OR_EQUAL = 0x35;
export const RETURN = 0x06;

/** Offsets in struct seccomp_data. */
export const SECCOMP_DATA = { nr: 0, arch: 4, args: 16 } as const;
export const AUDIT_ARCH_X86_64 = 0xc000_003e;

export interface SockFilter {
  readonly code: number;
  readonly k: number;
  /** Instructions to leave out if what a jump asks for is so, and if not. */
  readonly ifSo: number;
  readonly ifNot: number;
}

/** Jumps are MAX_JUMP at most. */
export function encodeProgram(program: readonly SockFilter[]): Uint8Array {
  const view = new DataView(new ArrayBuffer(SIZEOF_SOCK_FILTER * program.length));
  for (const [at, { code, k, ifSo, ifNot }] of program.entries()) {
    const from = SIZEOF_SOCK_FILTER * at;
    view.setUint16(from, code, true);
    view.setUint8(from + 2, ifSo);
    view.setUint8(from + 3, ifNot);
    view.setUint32(from + 4, k, true);
  }
  return new Uint8Array(view.buffer);
}

export function decodeProgram(bytes: Uint8Array): SockFilter[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  return Array.from({ length: bytes.length / SIZEOF_SOCK_FILTER }, (_, at) => {
    const from = SIZEOF_SOCK_FILTER * at;
    return {
      code: view.getUint16(from, true),
      ifSo: view.getUint8(from + 2),
      ifNot: view.getUint8(from + 3),
      k: view.getUint32(from + 4, true),
    };
  });
}
