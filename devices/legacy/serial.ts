// 16550A UART: transmitter, receiver with FIFO, line break, interrupts, loop-back.
// Source: National Semiconductor PC16550D data sheet. Left out on purpose: baud rate (bytes move
// at once), modem-status interrupts (the lines never change), framing and parity errors.
import type { AccessSize, BusDevice, InterruptLine, SharedWords } from "../contracts.js";
import { lock, unlock } from "../lock.js";
import {
  BREAK,
  DLL,
  DLM,
  FCR,
  IER,
  IER_BITS,
  LCR,
  LOCK,
  MCR,
  MCR_BITS,
  PIN,
  POLLING_READS,
  RX,
  RX_CAPACITY,
  RX_HEAD,
  RX_HIDDEN,
  RX_REFUSED,
  RX_TAIL,
  SCR,
  THRE_PENDING,
} from "./serial-words.js";

// Register offsets; 0 and 1 are the divisor latch while LCR.DLAB is set.
export const UART_RX = 0;
export const UART_TX = 0;
export const UART_DLL = 0;
export const UART_DLM = 1;
export const UART_IER = 1;
export const UART_IIR = 2;
export const UART_FCR = 2;
export const UART_LCR = 3;
export const UART_MCR = 4;
export const UART_LSR = 5;
export const UART_MSR = 6;
export const UART_SCR = 7;

export const UART_IER_RDI = 0x01;
export const UART_IER_THRI = 0x02;
export const UART_IER_RLSI = 0x04;

export const UART_IIR_NO_INT = 0x01;
export const UART_IIR_THRI = 0x02;
export const UART_IIR_RDI = 0x04;
export const UART_IIR_RLSI = 0x06;
const IIR_FIFO_ENABLED = 0xc0;

export const UART_FCR_ENABLE_FIFO = 0x01;
export const UART_FCR_CLEAR_RCVR = 0x02;

export const UART_LCR_DLAB = 0x80;
export const UART_MCR_LOOP = 0x10;

export const UART_LSR_DR = 0x01;
export const UART_LSR_BI = 0x10;
export const UART_LSR_THRE = 0x20;
export const UART_LSR_TEMT = 0x40;

/** Carrier, data set ready, clear to send. */
const MSR_CONNECTED = 0xb0;

/** The far end of the line. */
export interface SerialLine {
  /** Takes a byte from the guest; called under the port's lock, must not block. */
  transmit(byte: number): void;
  /** There is room again for input that `receive` did not take. */
  roomAvailable(): void;
}

export class Serial implements BusDevice {
  readonly name = "serial0";
  readonly #words: SharedWords;
  readonly #interrupt: InterruptLine;
  readonly #line: SerialLine;

  /** `words` are SERIAL_WORDS words, zero at reset, shared by every thread's object of this port. */
  constructor(words: SharedWords, interrupt: InterruptLine, line: SerialLine) {
    this.#words = words;
    this.#interrupt = interrupt;
    this.#line = line;
  }

  read(offset: number, _size: AccessSize): number {
    lock(this.#words, LOCK);
    const hadRefused = this.#get(RX_REFUSED) !== 0;
    this.#countLooks(offset);
    const value = this.#readRegister(offset);
    const hasRoom = hadRefused && this.#get(RX_REFUSED) === 0;
    const rises = this.#updatePin();
    unlock(this.#words, LOCK);
    if (rises) this.#interrupt.trigger();
    if (hasRoom) this.#line.roomAvailable();
    return value;
  }

  write(offset: number, _size: AccessSize, value: number): void {
    lock(this.#words, LOCK);
    const hadRefused = this.#get(RX_REFUSED) !== 0;
    if (this.#get(RX_HIDDEN) !== 0) this.#set(RX_HIDDEN, POLLING_READS);
    this.#writeRegister(offset, value & 0xff);
    const hasRoom = hadRefused && this.#get(RX_REFUSED) === 0;
    const rises = this.#updatePin();
    unlock(this.#words, LOCK);
    if (rises) this.#interrupt.trigger();
    if (hasRoom) this.#line.roomAvailable();
  }

  /** Puts bytes into the receiver; returns how many fitted. After a refusal `roomAvailable` comes. */
  receive(bytes: Uint8Array): number {
    lock(this.#words, LOCK);
    let accepted = 0;
    while (accepted < bytes.length && this.#push(bytes[accepted] ?? 0)) accepted++;
    if (accepted < bytes.length) this.#set(RX_REFUSED, 1);
    this.#updatePin();
    // An edge for each piece, even if the pin is up already: while its handler runs, a driver may be given
    // more and more, until it gives up with the pin still up (Linux does after 512 passes). Then this edge
    // is what brings it back.
    const isUp = accepted > 0 && this.#get(PIN) === 1;
    unlock(this.#words, LOCK);
    if (isUp) this.#interrupt.trigger();
    return accepted;
  }

  /** A break condition; dropped if the receiver is full, like on a real line. */
  receiveBreak(): void {
    lock(this.#words, LOCK);
    this.#push(BREAK);
    const rises = this.#updatePin();
    unlock(this.#words, LOCK);
    if (rises) this.#interrupt.trigger();
  }

  /** After a restore: an edge that was on its way to the guest comes again. */
  signal(): void {
    if (this.#get(PIN) !== 0) this.#interrupt.trigger();
  }

  #readRegister(offset: number): number {
    const dlab = (this.#get(LCR) & UART_LCR_DLAB) !== 0;
    switch (offset) {
      case UART_RX:
        return dlab ? this.#get(DLL) : this.#pop();
      case UART_IER:
        return dlab ? this.#get(DLM) : this.#get(IER);
      case UART_IIR: {
        const fifo = (this.#get(FCR) & UART_FCR_ENABLE_FIFO) !== 0 ? IIR_FIFO_ENABLED : 0;
        const cause = this.#cause();
        // Reading the cause answers the transmitter's interrupt; the others end at their source.
        if (cause === UART_IIR_THRI) this.#set(THRE_PENDING, 0);
        return fifo | cause;
      }
      case UART_LCR:
        return this.#get(LCR);
      case UART_MCR:
        return this.#get(MCR);
      case UART_LSR:
        return this.#lineStatus() | this.#takeBreak();
      case UART_MSR:
        return this.#modemStatus();
      case UART_SCR:
        return this.#get(SCR);
      default:
        return 0;
    }
  }

  #writeRegister(offset: number, value: number): void {
    const dlab = (this.#get(LCR) & UART_LCR_DLAB) !== 0;
    switch (offset) {
      case UART_TX:
        if (dlab) this.#set(DLL, value);
        else this.#transmit(value);
        break;
      case UART_IER:
        if (dlab) {
          this.#set(DLM, value);
          break;
        }
        // Enabling the interrupt of an empty transmitter raises it.
        if ((value & ~this.#get(IER) & UART_IER_THRI) !== 0) this.#set(THRE_PENDING, 1);
        this.#set(IER, value & IER_BITS);
        if ((value & UART_IER_RDI) !== 0) this.#set(RX_HIDDEN, 0);
        break;
      case UART_FCR:
        this.#set(FCR, value);
        if ((value & UART_FCR_CLEAR_RCVR) !== 0) this.#clearReceiver();
        break;
      case UART_LCR:
        this.#set(LCR, value);
        break;
      case UART_MCR:
        this.#set(MCR, value & MCR_BITS);
        break;
      case UART_SCR:
        this.#set(SCR, value);
        break;
      default:
        // The status registers are read-only.
        break;
    }
  }

  #transmit(byte: number): void {
    if ((this.#get(MCR) & UART_MCR_LOOP) !== 0) this.#push(byte);
    else this.#line.transmit(byte);
    this.#set(THRE_PENDING, 1);
  }

  /**
   * A driver clears the receiver before it opens the port, with its interrupt off. What has come by then is
   * not noise here but the user's input, which has no other way: it is hidden, not lost.
   */
  #clearReceiver(): void {
    if ((this.#get(IER) & UART_IER_RDI) === 0 && (this.#get(MCR) & UART_MCR_LOOP) === 0) {
      this.#set(RX_HIDDEN, POLLING_READS);
      return;
    }
    this.#set(RX_TAIL, this.#get(RX_HEAD));
    this.#set(RX_REFUSED, 0);
  }

  /** A driver that only polls for input must see it. */
  #countLooks(offset: number): void {
    const left = this.#get(RX_HIDDEN);
    if (left !== 0) this.#set(RX_HIDDEN, offset === UART_LSR ? left - 1 : POLLING_READS);
  }

  #hasData(): boolean {
    return this.#get(RX_HIDDEN) === 0 && this.#get(RX_HEAD) !== this.#get(RX_TAIL);
  }

  #push(entry: number): boolean {
    const head = this.#get(RX_HEAD);
    if (((head - this.#get(RX_TAIL)) | 0) >= RX_CAPACITY) return false;
    this.#set(RX + ((head >>> 0) % RX_CAPACITY), entry);
    this.#set(RX_HEAD, (head + 1) | 0);
    return true;
  }

  #pop(): number {
    if (!this.#hasData()) return 0;
    const tail = this.#get(RX_TAIL);
    const pending = (this.#get(RX_HEAD) - tail) | 0;
    const entry = this.#get(RX + ((tail >>> 0) % RX_CAPACITY));
    this.#set(RX_TAIL, (tail + 1) | 0);
    // Half empty: late enough for one wake-up to bring many bytes, early enough not to run dry.
    if (pending - 1 <= RX_CAPACITY / 2) this.#set(RX_REFUSED, 0);
    return entry & 0xff;
  }

  #lineStatus(): number {
    return UART_LSR_THRE | UART_LSR_TEMT | (this.#hasData() ? UART_LSR_DR : 0);
  }

  /** LSR.BI while a break is the oldest entry; reading the register clears it, its 0 byte stays. */
  #takeBreak(): number {
    if (!this.#headIsBreak()) return 0;
    this.#set(RX + ((this.#get(RX_TAIL) >>> 0) % RX_CAPACITY), 0);
    return UART_LSR_BI;
  }

  #headIsBreak(): boolean {
    const tail = this.#get(RX_TAIL);
    return this.#hasData() && this.#get(RX + ((tail >>> 0) % RX_CAPACITY)) === BREAK;
  }

  #modemStatus(): number {
    const mcr = this.#get(MCR);
    if ((mcr & UART_MCR_LOOP) === 0) return MSR_CONNECTED;
    // Loop-back: RTS is seen as CTS, DTR as DSR, OUT1 as RI, OUT2 as DCD.
    return ((mcr & 0x0c) << 4) | ((mcr & 0x02) << 3) | ((mcr & 0x01) << 5);
  }

  /** The interrupt of the highest priority that is enabled and pending. */
  #cause(): number {
    const ier = this.#get(IER);
    if ((ier & UART_IER_RLSI) !== 0 && this.#headIsBreak()) return UART_IIR_RLSI;
    if ((ier & UART_IER_RDI) !== 0 && this.#hasData()) return UART_IIR_RDI;
    if ((ier & UART_IER_THRI) !== 0 && this.#get(THRE_PENDING) !== 0) return UART_IIR_THRI;
    return UART_IIR_NO_INT;
  }

  /**
   * True if the pin goes up: the interrupt controller wants an edge for each time. The caller gives it once
   * the lock is free, because it is a system call; an edge that comes late is one for nothing.
   */
  #updatePin(): boolean {
    const level = this.#cause() === UART_IIR_NO_INT ? 0 : 1;
    const rises = level === 1 && this.#get(PIN) === 0;
    this.#set(PIN, level);
    return rises;
  }

  // Plain accesses: the lock's atomics order them.

  #get(word: number): number {
    return this.#words[word] ?? 0;
  }

  #set(word: number, value: number): void {
    this.#words[word] = value;
  }
}
