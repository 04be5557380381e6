// Messages over a Unix socket that carry descriptors, and answers that are waited for: sendmsg(2), recvmsg(2), unix(7) SCM_RIGHTS,
// poll(2).
import { EAGAIN, EINTR, systemCallError, uninterrupted } from "./errno.js";
import { koffi, lazy } from "./koffi.js";
import { mmapAnonymous, munmap, viewMemory } from "./memory.js";

const nativeSendmsg = lazy("sendmsg", "int64_t", ["int", "int64_t", "int"]);
const nativeRecvmsg = lazy("recvmsg", "int64_t", ["int", "int64_t", "int"]);
const nativeRecv = lazy("recv", "int64_t", ["int", "void *", "size_t", "int"]);
const nativePoll = lazy("poll", "int", ["void *", "size_t", "int"]);
const MSG_PEEK = 0x02;
const MSG_DONTWAIT = 0x40;
const MSG_NOSIGNAL = 0x4000;
const MSG_CMSG_CLOEXEC = 0x4000_0000;
const SOL_SOCKET = 1;
const SCM_RIGHTS = 1;
const POLLIN = 1;

// A page has all that sendmsg is pointed at: struct msghdr, struct iovec, struct cmsghdr with its descriptors, bytes.
const PAGE_BYTES = 4096;
const IOVEC = 64;
const CONTROL = 128;
const DATA = 512;
const CMSGHDR_BYTES = 16;
const msghdr = { iov: 16, iovlen: 24, control: 32, controllen: 40 } as const;
const cmsghdr = { len: 0, level: 8, type: 12 } as const;
export const MAX_MESSAGE_BYTES = PAGE_BYTES - DATA;
export const MAX_MESSAGE_DESCRIPTORS = 8;

/** Sends messages; `close` gives its memory back. */
export class MessageSender {
  readonly #address = mmapAnonymous(PAGE_BYTES);
  // SAFETY: the page that is mapped here; nothing is sent after `close`, which unmaps it.
  readonly #page = new DataView(viewMemory(this.#address, PAGE_BYTES));

  /** Sends all of it, without waiting. Throws SystemCallError: EAGAIN where the other end does not read. */
  send(socket: number, bytes: Uint8Array, descriptors: readonly number[] = []): void {
    if (bytes.length > MAX_MESSAGE_BYTES || descriptors.length > MAX_MESSAGE_DESCRIPTORS) {
      throw new RangeError(`A message of ${String(bytes.length)} bytes, ${String(descriptors.length)} descriptors`);
    }
    const page = this.#page;
    const hasDescriptors = descriptors.length > 0;
    new Uint8Array(page.buffer, DATA, bytes.length).set(bytes);
    page.setBigUint64(IOVEC, BigInt(this.#address + DATA), true);
    page.setBigUint64(IOVEC + 8, BigInt(bytes.length), true);
    page.setBigUint64(msghdr.iov, BigInt(this.#address + IOVEC), true);
    page.setBigUint64(msghdr.iovlen, 1n, true);
    const controlBytes = CMSGHDR_BYTES + 4 * descriptors.length;
    page.setBigUint64(msghdr.control, hasDescriptors ? BigInt(this.#address + CONTROL) : 0n, true);
    page.setBigUint64(msghdr.controllen, hasDescriptors ? BigInt(Math.ceil(controlBytes / 8) * 8) : 0n, true);
    page.setBigUint64(CONTROL + cmsghdr.len, BigInt(controlBytes), true);
    page.setInt32(CONTROL + cmsghdr.level, SOL_SOCKET, true);
    page.setInt32(CONTROL + cmsghdr.type, SCM_RIGHTS, true);
    descriptors.forEach((fd, index) => {
      page.setInt32(CONTROL + CMSGHDR_BYTES + 4 * index, fd, true);
    });
    // SAFETY: the page is ours, and read during the call only.
    const sent = uninterrupted(() => nativeSendmsg(socket, this.#address, MSG_DONTWAIT | MSG_NOSIGNAL));
    if (sent < 0) throw systemCallError("sendmsg");
    // A stream takes so few bytes whole, or none.
    if (sent !== bytes.length) throw systemCallError("sendmsg", EAGAIN);
  }

  close(): void {
    munmap(this.#address, PAGE_BYTES);
  }
}

export interface Message {
  /** Empty: the other end has closed. */
  readonly bytes: Uint8Array;
  /** They are the caller's to close. */
  readonly descriptors: readonly number[];
}

/**
 * At most so many bytes, as soon as there are some, and what comes with them. Undefined if there is nothing until `deadlineMs` of
 * performance.now(). Throws SystemCallError.
 */
export function receiveMessage(socket: number, maximum: number, deadlineMs: number): Message | undefined {
  if (maximum > MAX_MESSAGE_BYTES) throw new RangeError(`A message of ${String(maximum)} bytes`);
  if (!waitForInput(socket, deadlineMs)) return undefined;
  const address = mmapAnonymous(PAGE_BYTES);
  try {
    // SAFETY: the page that is mapped here.
    const page = new DataView(viewMemory(address, PAGE_BYTES));
    page.setBigUint64(IOVEC, BigInt(address + DATA), true);
    page.setBigUint64(IOVEC + 8, BigInt(maximum), true);
    page.setBigUint64(msghdr.iov, BigInt(address + IOVEC), true);
    page.setBigUint64(msghdr.iovlen, 1n, true);
    page.setBigUint64(msghdr.control, BigInt(address + CONTROL), true);
    page.setBigUint64(msghdr.controllen, BigInt(CMSGHDR_BYTES + 4 * MAX_MESSAGE_DESCRIPTORS), true);
    const flags = MSG_DONTWAIT | MSG_CMSG_CLOEXEC;
    // SAFETY: all that it points to is in the page, with these lengths.
    const count = uninterrupted(() => nativeRecvmsg(socket, address, flags));
    if (count < 0) throw systemCallError("recvmsg");
    const hasDescriptors =
      page.getBigUint64(msghdr.controllen, true) >= BigInt(CMSGHDR_BYTES) &&
      page.getInt32(CONTROL + cmsghdr.level, true) === SOL_SOCKET &&
      page.getInt32(CONTROL + cmsghdr.type, true) === SCM_RIGHTS;
    const controlBytes = hasDescriptors ? Number(page.getBigUint64(CONTROL + cmsghdr.len, true)) : CMSGHDR_BYTES;
    const descriptors = Array.from({ length: (controlBytes - CMSGHDR_BYTES) / 4 }, (_, index) =>
      page.getInt32(CONTROL + CMSGHDR_BYTES + 4 * index, true),
    );
    return { bytes: new Uint8Array(page.buffer, DATA, count).slice(), descriptors };
  } finally {
    munmap(address, PAGE_BYTES);
  }
}

/**
 * Fills `bytes` from a stream, waiting until `deadlineMs` of performance.now(). False if there were fewer until then, or
 * until the other end has closed.
 */
export function receiveAll(socket: number, bytes: Uint8Array, deadlineMs: number): boolean {
  const wanted = new Int32Array([socket, POLLIN]);
  for (let done = 0; done < bytes.length;) {
    const rest = bytes.subarray(done);
    // SAFETY: as many bytes as the view has, written during the call only.
    const count = nativeRecv(socket, rest, rest.length, MSG_DONTWAIT);
    if (count > 0) done += count;
    else if (count === 0) return false;
    else if (koffi.errno() === EAGAIN) {
      const leftMs = Math.ceil(deadlineMs - performance.now());
      if (leftMs <= 0) return false;
      // SAFETY: one struct pollfd, used during the call only. Whatever ends the wait, the loop looks again.
      nativePoll(wanted, 1, leftMs);
    } else if (koffi.errno() !== EINTR) return false;
  }
  return true;
}

/** Waits until there is something to be read; false if there is nothing at `deadlineMs` of performance.now(). */
export function waitForInput(fd: number, deadlineMs: number): boolean {
  const leftMs = Math.ceil(deadlineMs - performance.now());
  const wanted = new Int32Array([fd, POLLIN]);
  // SAFETY: one struct pollfd, used during the call only.
  return uninterrupted(() => nativePoll(wanted, 1, Math.max(leftMs, 0))) > 0;
}

const oneByte = new Uint8Array(1);

/** Whether there are bytes to be read, or the other end has closed. */
export function hasInput(socket: number): boolean {
  // SAFETY: one byte of a module-level buffer, written during the call only.
  const count = uninterrupted(() => nativeRecv(socket, oneByte, 1, MSG_DONTWAIT | MSG_PEEK));
  return count >= 0 || koffi.errno() !== EAGAIN;
}
