// Kernels of a few instructions that wait in HLT with interrupts on, and answer when one comes: what an idle guest is to
// the monitor.
import { miniKernelWith, type MiniKernel } from "./mini-kernel.js";

export type { MiniKernel };

const IDT_GPA = 17 * 2 ** 20;
const GATE_BYTES = 16;
const IDT_BYTES = 256 * GATE_BYTES;
const POINTER_GPA = IDT_GPA + 0x1000;
const HANDLERS_GPA = IDT_GPA + 0x2000;
const HANDLER_BYTES = 0x100;
/** CS of the Linux boot protocol. */
const CODE_SELECTOR = 0x10;
const INTERRUPT_GATE = 0x8e;
const LAPIC = 0xfee0_0000;

const u32 = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >>> shift) & 0xff);
/** mov edx, port; mov al, value; out dx, al */
const out = (port: number, value: number): number[] => [0xba, ...u32(port), 0xb0, value, 0xee];
/** mov ebx, address; mov dword [rbx], value */
const store = (address: number, value: number): number[] => [0xbb, ...u32(address), 0xc7, 0x03, ...u32(value)];
/** push rax, rbx, rdx, around the code; iretq */
const handler = (...code: number[][]): number[] => [0x50, 0x53, 0x52, ...code.flat(), 0x5a, 0x5b, 0x58, 0x48, 0xcf];
const endOfPicInterrupt = out(0x20, 0x20);
const endOfApicInterrupt = store(LAPIC + 0xb0, 0);
const print = (text: string): number[] => [...Buffer.from(text)].flatMap((byte) => out(0x3f8, byte));

/** L: mov edx, LSR; in al, dx; test al, 1; jz out; mov edx, RBR; in al, dx; inc al; out dx, al; jmp L */
const answerInput = [
  ...[0xba, ...u32(0x3fd), 0xec, 0xa8, 0x01, 0x74, 0x0b, 0xba, ...u32(0x3f8), 0xec, 0xfe, 0xc0, 0xee, 0xeb, 0xeb],
];

/** Both 8259A, with vectors from 0x20 on; all lines of the first masked but `lines`. */
const pic = (lines: number): number[] => [
  ...[out(0x20, 0x11), out(0x21, 0x20), out(0x21, 4), out(0x21, 1), out(0x21, ~lines & 0xff)].flat(),
];
/** sti; L: hlt; jmp L */
const wait = [0xfb, 0xf4, 0xeb, 0xfd];
/** lidt [pointer] */
const loadIdt = [0x0f, 0x01, 0x1c, 0x25, ...u32(POINTER_GPA)];

function kernel(handlers: Readonly<Record<number, number[]>>, code: number[]): MiniKernel {
  const idt = new DataView(new ArrayBuffer(IDT_BYTES));
  const handlerSegments = Object.entries(handlers).map(([vector, bytes], i) => {
    const gpa = HANDLERS_GPA + i * HANDLER_BYTES;
    const at = Number(vector) * GATE_BYTES;
    idt.setUint16(at, gpa & 0xffff, true);
    idt.setUint16(at + 2, CODE_SELECTOR, true);
    idt.setUint8(at + 5, INTERRUPT_GATE);
    idt.setUint16(at + 6, gpa >>> 16, true);
    return { gpa, bytes: Uint8Array.from(bytes) };
  });
  const pointer = new DataView(new ArrayBuffer(10));
  pointer.setUint16(0, IDT_BYTES - 1, true);
  pointer.setUint32(2, IDT_GPA, true);
  const tables = [
    { gpa: IDT_GPA, bytes: new Uint8Array(idt.buffer) },
    { gpa: POINTER_GPA, bytes: new Uint8Array(pointer.buffer) },
  ];
  return miniKernelWith([...tables, ...handlerSegments], [loadIdt, code, wait]);
}

/** Says "!" and then answers each byte of input with the next one: "b" to "a". */
export function answeringKernel(): MiniKernel {
  return kernel({ 0x24: handler(answerInput, endOfPicInterrupt) }, [
    ...pic(1 << 4),
    ...out(0x3f9, 1),
    ...out(0x3fc, 0x0b),
    ...print("!"),
  ]);
}

export type TimerKind = "one-shot" | "periodic" | "deadline" | "pit" | "pit-one-shot";

/** Says "." every `periodMs`, by the timer. */
export function tickingKernel(kind: TimerKind, periodMs: number): MiniKernel {
  if (kind === "pit" || kind === "pit-one-shot") {
    const count = Math.round(periodMs * 1193.182);
    const load = [...out(0x43, kind === "pit" ? 0x34 : 0x30), ...out(0x40, count & 0xff), ...out(0x40, count >> 8)];
    const again = kind === "pit" ? [] : load;
    return kernel({ 0x20: handler(print("."), again, endOfPicInterrupt) }, [...pic(1), ...load]);
  }
  const vector = 0x40;
  const mode = { "one-shot": 0, periodic: 1, deadline: 2 }[kind] << 17;
  // rdtsc; shl rdx, 32; or rax, rdx; add rax, period of a counter of 2 GHz; mov rdx, rax; shr rdx, 32; mov ecx, 0x6e0; wrmsr
  const deadline = [
    ...[0x51, 0x0f, 0x31, 0x48, 0xc1, 0xe2, 0x20, 0x48, 0x09, 0xd0, 0x48, 0x05, ...u32(periodMs * 2e6)],
    ...[0x48, 0x89, 0xc2, 0x48, 0xc1, 0xea, 0x20, 0xb9, ...u32(0x6e0), 0x0f, 0x30, 0x59],
  ];
  const arm = kind === "deadline" ? deadline : store(LAPIC + 0x380, periodMs * 1e6);
  const again = kind === "periodic" ? [] : arm;
  const setUp = [...store(LAPIC + 0xf0, 0x1ff), ...store(LAPIC + 0x3e0, 0xb), ...store(LAPIC + 0x320, mode | vector)];
  return kernel({ [vector]: handler(print("."), again, endOfApicInterrupt) }, [...pic(0), ...setUp, ...arm]);
}
