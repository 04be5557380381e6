// What happens at a system call that the filter refuses: the kernel does not make it and sends SIGSYS to the thread (SECCOMP_RET_TRAP),
// whose handler writes one line and ends the process. The kernel sends that signal past every mask, and a handler that
// were taken away would end the process, too. Machine code, because no JavaScript can run between two instructions of a thread.
import { EXIT_JAIL, EXIT_SIGNAL_BASE } from "../host/exit-codes.js";
import { mmapExecutable, viewMemory } from "../sys/memory.js";
import { setHandler } from "../sys/signals.js";
import { isTerminal } from "../sys/files.js";
import { readTerminal } from "../sys/terminal.js";
import { SYSTEM_CALL_COUNT, SYSTEM_CALL_NAMES } from "./system-calls.js";

export const SIGSYS = 31;
const PAGE = 4096;

// The pages: code, texts, names.
const PREFIX = 0x200;
const BY = 0x280;
const MAIN = 0x300;
const TERMINAL = 0x340;
const BEFORE = 0x380;
const AFTER = 0x3c0;
const NAMES = 0x400;
const SIZE = Math.ceil((NAMES + SYSTEM_CALL_NAMES.length) / PAGE) * PAGE;
const SPACE = 0x20;

/** Room for what stands around a line of the log, `bytes`. */
const AROUND_BYTES = 0x40;

const PREFIX_TEXT = Buffer.from("vmlet: the jail has ended this VM: system call ");
const BY_TEXT = Buffer.from(", thread ");
const MAIN_TEXT = Buffer.from("main");
const TCSETS = 0x5402;

const u32 = (value: number): number[] => [0, 8, 16, 24].map((shift) => (value >> shift) & 0xff);

/** Where else the line goes than to standard error: an open file, and what stands around the line there, up to 64 bytes each. */
export interface RefusalLog {
  readonly fd: number;
  readonly before: string;
  readonly after: string;
}

/** `pid`: of this process, whose main thread has it as its id; exported for tests. */
export function refusalCode(pid: number, log?: RefusalLog): Uint8Array {
  const before = Buffer.byteLength(log?.before ?? "");
  const code: number[] = [];
  const emit = (...bytes: number[]): void => void code.push(...bytes);
  /** lea rsi, [target] */
  const address = (target: number): void => {
    emit(0x48, 0x8d, 0x35);
    emit(...u32(target - (code.length + 4)));
  };
  /** To [rdi], which moves on. */
  const copy = (target: number, length: number): void => {
    address(target);
    emit(0xb9, ...u32(length), 0xf3, 0xa4); // mov ecx, length; rep movsb
  };
  // void handler(int signal, siginfo_t *info, void *context): edi, rsi, rdx.
  emit(0x83, 0x7e, 0x08, 0x01); // cmp dword [rsi+8], SYS_SECCOMP
  emit(0x74, 0x0c); // je refused
  emit(0xb8, ...u32(231), 0xbf, ...u32(EXIT_SIGNAL_BASE + SIGSYS), 0x0f, 0x05); // exit_group: kill(1) has sent it
  emit(0x8b, 0x5e, 0x18); // refused: mov ebx, [rsi+24]: si_syscall
  emit(0xb8, ...u32(16), 0x31, 0xff, 0xbe, ...u32(TCSETS)); // mov eax, SYS_ioctl; xor edi, edi; mov esi, TCSETS
  emit(0x48, 0x8d, 0x15, ...u32(TERMINAL - (code.length + 7)), 0x0f, 0x05); // lea rdx, [terminal]; syscall
  emit(0x48, 0x81, 0xec, ...u32(512), 0x48, 0x89, 0xe7); // sub rsp, 512; mov rdi, rsp
  copy(BEFORE, before);
  copy(PREFIX, PREFIX_TEXT.length);
  emit(0xb8, ...u32(SYSTEM_CALL_COUNT), 0x39, 0xc3, 0x0f, 0x43, 0xd8); // mov eax, count; cmp ebx, eax; cmovae ebx, eax
  address(NAMES);
  emit(0x85, 0xdb, 0x74, 0x09); // S: test ebx, ebx; jz N
  emit(0xac, 0x3c, SPACE, 0x75, 0xfb, 0xff, 0xcb, 0xeb, 0xf3); // T: lodsb; cmp al, " "; jne T; dec ebx; jmp S
  emit(0xac, 0x3c, SPACE, 0x74, 0x03, 0xaa, 0xeb, 0xf8); // N: lodsb; cmp al, " "; je on; stosb; jmp N; on:
  copy(BY, BY_TEXT.length);
  emit(0xb8, ...u32(186), 0x0f, 0x05, 0x3d, ...u32(pid)); // mov eax, SYS_gettid; syscall; cmp eax, pid
  emit(0x74, 0x00); // je main
  const toMain = code.length;
  // The thread's name, of 15 bytes at most: prctl(PR_GET_NAME, rdi).
  emit(0x48, 0x89, 0xfe, 0x48, 0x89, 0xfb); // mov rsi, rdi; mov rbx, rdi
  emit(0xbf, ...u32(16), 0xb8, ...u32(157), 0x0f, 0x05); // mov edi, PR_GET_NAME; mov eax, SYS_prctl; syscall
  emit(0x48, 0x89, 0xdf); // mov rdi, rbx
  emit(0x80, 0x3f, 0x00, 0x74, 0x05, 0x48, 0xff, 0xc7, 0xeb, 0xf6); // L: cmp byte [rdi], 0; je out; inc rdi; jmp L
  emit(0xeb, 0x00); // out: jmp write
  const toWrite = code.length;
  code[toMain - 1] = code.length - toMain;
  copy(MAIN, MAIN_TEXT.length);
  code[toWrite - 1] = code.length - toWrite;
  emit(0xc6, 0x07, 0x0a, 0x48, 0x89, 0xfb); // write: mov byte [rdi], "\n"; mov rbx, rdi
  emit(0x48, 0x8d, 0xb4, 0x24, ...u32(before)); // lea rsi, [rsp+before]
  emit(0x48, 0x8d, 0x57, 0x01, 0x48, 0x29, 0xf2); // lea rdx, [rdi+1]; sub rdx, rsi
  emit(0xbf, ...u32(2), 0xb8, ...u32(1), 0x0f, 0x05); // mov edi, standard error; mov eax, SYS_write; syscall
  if (log !== undefined) {
    emit(0x48, 0x89, 0xdf); // mov rdi, rbx
    copy(AFTER, Buffer.byteLength(log.after));
    emit(0x48, 0x89, 0xfa, 0x48, 0x29, 0xe2, 0x48, 0x89, 0xe6); // mov rdx, rdi; sub rdx, rsp; mov rsi, rsp
    emit(0xbf, ...u32(log.fd), 0xb8, ...u32(1), 0x0f, 0x05); // mov edi, log; mov eax, SYS_write; syscall
  }
  emit(0xb8, ...u32(231), 0xbf, ...u32(EXIT_JAIL), 0x0f, 0x05); // mov eax, SYS_exit_group; mov edi, EXIT_JAIL; syscall
  if (code.length > PREFIX) throw new Error("The code is longer than its place");
  return Uint8Array.from(code);
}

let isThere = false;

/** From now on a refused call ends this process; where it has the terminal, as that is now. */
export function endAtRefusal(log?: RefusalLog): void {
  if (isThere) return;
  const { before = "", after = "" } = log ?? {};
  if ([before, after].some((text) => Buffer.byteLength(text) > AROUND_BYTES)) throw new Error("A text too long");
  const address = mmapExecutable(SIZE);
  const page = Buffer.from(viewMemory(address, SIZE));
  page.set(refusalCode(process.pid, log));
  page.set(PREFIX_TEXT, PREFIX);
  page.set(BY_TEXT, BY);
  page.set(MAIN_TEXT, MAIN);
  page.write(before, BEFORE);
  page.write(after, AFTER);
  const terminal = isTerminal(0) ? readTerminal(0) : undefined;
  if (terminal !== undefined) page.set(terminal, TERMINAL);
  page.write(SYSTEM_CALL_NAMES, NAMES, "latin1");
  setHandler(SIGSYS, address);
  isThere = true;
}
