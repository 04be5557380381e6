// Kernels of a few instructions, entered like Linux at startup_64, for tests of the whole
// monitor on whatever KVM there is: even a software KVM emulates these.
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { BOOT_TIMER_GPA, I8042_COMMAND_PORT, SERIAL0_PORT } from "../../vmm/memory/layout.js";
import { elf, type TestSegment } from "./bytes-image.js";

const LOAD_GPA = 16 * 2 ** 20;

/** Of `countInMemory`. */
export const COUNTER_GPA = 18 * 2 ** 20;
export const COUNTED_GPA = 20 * 2 ** 20;

const u32 = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff);

/** mov edx, port; 4 times out dx, al and shr eax, 8 */
function printEax(): number[] {
  const out = [0xee, 0xc1, 0xe8, 8];
  return [0xba, ...u32(SERIAL0_PORT), ...out, ...out, ...out, ...out];
}

/** Machine code by what it does; 64-bit mode. */
export const asm = {
  /** mov edx, port; mov al, value; out dx, al */
  out: (port: number, value: number): number[] => [0xba, ...u32(port), 0xb0, value, 0xee],
  print: (text: string): number[] => [...Buffer.from(text)].flatMap((byte) => asm.out(SERIAL0_PORT, byte)),
  /** mov eax, page; mov byte [rax], code */
  milestone: (code: number): number[] => [0xb8, ...u32(BOOT_TIMER_GPA), 0xc6, 0x00, code],
  /** mov eax, page; mov dword [rax+4], status; mov dword [rax+8], 1 */
  powerOff: (status: number): number[] => [
    ...[0xb8, ...u32(BOOT_TIMER_GPA)],
    ...[0xc7, 0x40, 0x04, ...u32(status)],
    ...[0xc7, 0x40, 0x08, ...u32(1)],
  ],
  /** mov edx, port; mov eax, value; out dx, eax */
  outWord: (port: number, value: number): number[] => [0xba, ...u32(port), 0xb8, ...u32(value), 0xef],
  /** mov eax, gpa; mov [rax], value */
  store: (gpa: number, size: 1 | 2 | 4, value: number): number[] => [
    ...[0xb8, ...u32(gpa)],
    ...(size === 1 ? [0xc6] : size === 2 ? [0x66, 0xc7] : [0xc7]),
    ...[0x00, ...u32(value).slice(0, size)],
  ],
  /** mov eax, gpa; mov eax, [rax]; its four bytes go to the transmitter */
  printWord: (gpa: number): number[] => [0xb8, ...u32(gpa), 0x8b, 0x00, ...printEax()],
  /** Reads the word until it is not 0, `looks` times at most. mov ecx, looks; back: mov eax, gpa; mov eax, [rax]; test; jnz out; dec ecx; jnz back */
  waitForWord: (gpa: number, looks: number): number[] => [
    ...[0xb9, ...u32(looks), 0xb8, ...u32(gpa), 0x8b, 0x00],
    ...[0x85, 0xc0, 0x75, 0x04, 0xff, 0xc9, 0x75, 0xf1],
  ],
  /** mov edx, port; in eax, dx; the same */
  printPortWord: (port: number): number[] => [0xba, ...u32(port), 0xed, ...printEax()],
  /** mov edx, LSR; back: in al, dx; test al, 1; jz back */
  waitForInput: (): number[] => [0xba, ...u32(SERIAL0_PORT + 5), 0xec, 0xa8, 0x01, 0x74, 0xfb],
  reset: (): number[] => asm.out(I8042_COMMAND_PORT, 0xfe),
  /** cli; hlt; jmp back */
  haltForEver: (): number[] => [0xfa, 0xf4, 0xeb, 0xfd],
  /** jmp to itself */
  spin: (): number[] => [0xeb, 0xfe],
  /** ud2: with an empty IDT, a triple fault */
  undefinedInstruction: (): number[] => [0x0f, 0x0b],
  /** mov eax, address; jmp rax */
  jump: (address: number): number[] => [0xb8, ...u32(address), 0xff, 0xe0],
  /** The transmitter, over and over. */
  flood: (byte: number): number[] => [0xba, ...u32(SERIAL0_PORT), 0xb0, byte, 0xee, 0xeb, 0xfd],
  /** Bytes that count up go to the transmitter, for ever: one that is lost shows. */
  count: (): number[] => [0xba, ...u32(SERIAL0_PORT), 0xb0, 0, 0xee, 0x04, 1, 0xeb, 0xfb],
  /**
   * Bytes that count up from 1: each is kept at COUNTER_GPA, written to a page of its own from COUNTED_GPA on, and goes to
   * the transmitter. For ever.
   */
  countInMemory: (): number[] => [
    ...[0xbb, ...u32(COUNTER_GPA), 0xba, ...u32(SERIAL0_PORT)], // mov ebx, counter; mov edx, port
    ...[0xfe, 0x03, 0x8a, 0x03], // inc byte [rbx]; mov al, [rbx]
    ...[0x0f, 0xb6, 0xf8, 0xc1, 0xe7, 0x0c], // movzx edi, al; shl edi, 12
    ...[0x81, 0xc7, ...u32(COUNTED_GPA), 0x88, 0x07], // add edi, pages; mov [rdi], al
    ...[0xee, 0xeb, 0xeb], // out dx, al; jmp to inc
  ],
};

export interface MiniKernel {
  readonly path: string;
  remove(): void;
}

export function miniKernel(...code: number[][]): MiniKernel {
  return miniKernelWith([], code);
}

/** `data`: what lies in memory besides the code, from 17 MiB on. */
export function miniKernelWith(data: readonly TestSegment[], code: readonly number[][]): MiniKernel {
  const folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
  const path = join(folder, "kernel");
  writeFileSync(path, elf(LOAD_GPA, [{ gpa: LOAD_GPA, bytes: Uint8Array.from(code.flat()) }, ...data]));
  return {
    path,
    remove: () => {
      rmSync(folder, { recursive: true });
    },
  };
}
