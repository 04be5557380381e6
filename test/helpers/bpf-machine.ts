// The classic BPF that seccomp(2) runs, as far as our filters use it: what the kernel would answer to a system call.
const NR = 0;
const ARCH = 4;
const ARGS = 16;
export const AUDIT_ARCH_X86_64 = 0xc000_003e;

export interface SystemCall {
  readonly number: number;
  readonly arguments?: readonly bigint[];
  readonly architecture?: number;
}

/** The 32 bits that the program returns; throws for one that does not end or that the kernel would not take. */
export function runFilter(program: Uint8Array, call: SystemCall): number {
  const data = new DataView(new ArrayBuffer(64));
  data.setUint32(NR, call.number, true);
  data.setUint32(ARCH, call.architecture ?? AUDIT_ARCH_X86_64, true);
  for (const [at, value] of (call.arguments ?? []).entries())
    data.setBigUint64(ARGS + 8 * at, BigInt.asUintN(64, value), true);
  const code = new DataView(program.buffer, program.byteOffset, program.byteLength);
  let accumulator = 0;
  for (let at = 0; at < program.length / 8; at++) {
    const [operation, k] = [code.getUint16(8 * at, true), code.getUint32(8 * at + 4, true)];
    const jump = (isSo: boolean): void => {
      at += code.getUint8(8 * at + (isSo ? 2 : 3));
    };
    switch (operation) {
      case 0x20:
        accumulator = data.getUint32(k, true);
        break;
      case 0x54:
        accumulator = (accumulator & k) >>> 0;
        break;
      case 0x15:
        jump(accumulator === k);
        break;
      case 0x35:
        jump(accumulator >= k);
        break;
      case 0x06:
        return k;
      default:
        throw new Error(`Operation 0x${operation.toString(16)}`);
    }
  }
  throw new Error("The program does not return");
}
