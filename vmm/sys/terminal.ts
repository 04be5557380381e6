// A terminal in raw mode, as job control wants it: only while this process is in the foreground, and as
// it was found whenever somebody else has it: after a stop, in the background, at the end. termios(3),
// "Job control". Not by Node's setRawMode, which stops a process in the background and remembers
// a state of the terminal that a shell may have changed since.
import { wasIgnored } from "../host/inherited-signals.js";
import { systemCallError } from "./errno.js";
import { lazy } from "./koffi.js";
import { processSeal } from "./process-seal.js";
import { catchSignals, setDefaultAction } from "./signals.js";

const SIGCONT = 18;
const SIGTSTP = 20;
const TCSANOW = 0;
/** How often a process in the background looks whether it has come to the front: `fg` may send no signal, `ms`. */
const LOOK_MS = 250;

// struct termios of glibc and musl on x86-64.
const SIZEOF_TERMIOS = 60;
const C_IFLAG = 0;
const C_OFLAG = 4;
const C_CFLAG = 8;
const C_LFLAG = 12;
const C_CC = 17;
const VTIME = 5;
const VMIN = 6;
const BRKINT = 0x002;
const INPCK = 0x010;
const ISTRIP = 0x020;
const ICRNL = 0x100;
const IXON = 0x400;
const OPOST = 0x1;
const ONLCR = 0x4;
const TIOCGWINSZ = 0x5413;
const CS8 = 0x30;
const ISIG = 0x1;
const ICANON = 0x2;
const ECHO = 0x8;
const IEXTEN = 0x8000;

const nativeTcgetattr = lazy("tcgetattr", "int", ["int", "void *"]);
const nativeTcsetattr = lazy("tcsetattr", "int", ["int", "int", "void *"]);
const nativeTcgetpgrp = lazy("tcgetpgrp", "int", ["int"]);
const nativeIoctl = lazy("ioctl", "int", ["int", "ulong", "void *"]);
const nativeGetpgrp = lazy("getpgrp", "int", []);

/** True if this process may use the terminal: it is in the foreground, or the terminal has no such thing for it. */
export function isInForeground(fd: number): boolean {
  const group = nativeTcgetpgrp(fd);
  // Not this session's terminal: no job control stops us, and no signal tells.
  return group < 0 || group === nativeGetpgrp();
}

function read(fd: number): DataView | undefined {
  const state = new DataView(new ArrayBuffer(SIZEOF_TERMIOS));
  // SAFETY: the size of struct termios, used during this call only; so below.
  return nativeTcgetattr(fd, state) < 0 ? undefined : state;
}

/** The terminal's state as struct termios of the C library, which begins as the kernel's does; undefined if `fd` is none. */
export function readTerminal(fd: number): Uint8Array | undefined {
  const state = read(fd);
  return state === undefined ? undefined : new Uint8Array(state.buffer);
}

function write(fd: number, state: DataView): void {
  if (nativeTcsetattr(fd, TCSANOW, state) < 0) throw systemCallError("tcsetattr");
}

/** What the terminal says of its size; undefined if `fd` is none. */
export function windowSize(fd: number): { readonly rows: number; readonly columns: number } | undefined {
  const size = new Uint16Array(4);
  // SAFETY: the size of struct winsize, used during this call only.
  if (nativeIoctl(fd, TIOCGWINSZ, size) < 0) return undefined;
  const [rows = 0, columns = 0] = size;
  return { rows, columns };
}

/** Every key as it is typed, no echo, no signals; a newline that is written still returns, unless all output is as it is. */
function rawFrom(state: DataView, isOutputRaw: boolean): DataView {
  const raw = new DataView(state.buffer.slice(0));
  const change = (at: number, clear: number, set: number): void => {
    raw.setUint32(at, ((raw.getUint32(at, true) & ~clear) | set) >>> 0, true);
  };
  change(C_IFLAG, BRKINT | INPCK | ISTRIP | ICRNL | IXON, 0);
  if (isOutputRaw) change(C_OFLAG, OPOST, 0);
  else change(C_OFLAG, 0, ONLCR);
  change(C_CFLAG, 0, CS8);
  change(C_LFLAG, ISIG | ICANON | ECHO | IEXTEN, 0);
  raw.setUint8(C_CC + VMIN, 1);
  raw.setUint8(C_CC + VTIME, 0);
  return raw;
}

/**
 * For a terminal of a program's own: whoever reads the other end has done, or does, what a terminal does. The result makes it
 * what it was.
 */
export function makeRaw(fd: number): () => void {
  const state = read(fd);
  if (state === undefined) return () => undefined;
  write(fd, rawFrom(state, true));
  return () => {
    if (read(fd) !== undefined) write(fd, state);
  };
}

function isRaw(state: DataView): boolean {
  return (state.getUint32(C_LFLAG, true) & (ISIG | ICANON | ECHO)) === 0;
}

export interface TerminalUser {
  /** What is written to it comes from a terminal already, and is shown as it is. */
  readonly isOutputRaw?: boolean;
  /** The terminal is raw and ours: read it. */
  taken(): void;
  /** It is not any more: do not. */
  lost(): void;
}

export class RawTerminal {
  readonly #fd: number;
  readonly #user: TerminalUser;
  /** As it was found. */
  #found: DataView | undefined;
  #isOurs = false;
  #look: NodeJS.Timeout | undefined;
  #releaseSignals: () => void = () => undefined;

  constructor(fd: number, user: TerminalUser) {
    this.#fd = fd;
    this.#user = user;
  }

  /** It is raw, and may be read. */
  get isOurs(): boolean {
    return this.#isOurs;
  }

  /** Takes the terminal now, or when this process comes to the front. */
  open(): void {
    this.#watchSignals();
    this.#settle();
  }

  close(): void {
    this.#releaseSignals();
    clearInterval(this.#look);
    this.#giveBack();
  }

  /** Stops this process and its job, as Ctrl-Z does where the guest does not take it. */
  suspend(group = true): void {
    this.#giveBack();
    this.#releaseSignals();
    if (!wasIgnored(SIGTSTP)) setDefaultAction(SIGTSTP);
    // It returns after SIGCONT; at once in a job that nobody could continue.
    process.kill(group && !processSeal.isSealed ? 0 : process.pid, SIGTSTP);
    this.#watchSignals();
    this.#settle();
  }

  #watchSignals(): void {
    const releases = [
      ...(wasIgnored(SIGTSTP) ? [] : [catchSignals([SIGTSTP], () => this.suspend(false), { ends: false })]),
      // The shell has set its own modes meanwhile, and may have put us in the background.
      catchSignals([SIGCONT], () => this.#settle(), { ends: false }),
    ];
    this.#releaseSignals = () => {
      for (const release of releases) release();
    };
  }

  /** Brings the terminal into the state that it should have now. */
  #settle(): void {
    const mayHave = isInForeground(this.#fd);
    if (mayHave) this.#take();
    else if (this.#isOurs) this.#lose();
    clearInterval(this.#look);
    if (!mayHave) this.#look = setInterval(() => this.#settle(), LOOK_MS).unref();
  }

  #take(): void {
    const state = read(this.#fd);
    // A terminal that has been hung up has no foreground job.
    if (state === undefined) return;
    if (!isRaw(state) || this.#found === undefined) this.#found = state;
    write(this.#fd, rawFrom(state, this.#user.isOutputRaw ?? false));
    if (this.#isOurs) return;
    this.#isOurs = true;
    this.#user.taken();
  }

  #lose(): void {
    this.#isOurs = false;
    this.#user.lost();
  }

  #giveBack(): void {
    if (!this.#isOurs) return;
    this.#lose();
    const found = this.#found;
    // In the background, it is as the shell has set it.
    if (found === undefined || !isInForeground(this.#fd)) return;
    if (read(this.#fd) !== undefined) write(this.#fd, found);
  }
}
