// A saved serial port: registers by the names of the data sheet, and input that the guest has not read.
import type { SharedWords } from "../contracts.js";
import type { State, StateReader } from "../state.js";
import {
  BREAK,
  DLL,
  DLM,
  FCR,
  IER,
  IER_BITS,
  LCR,
  MCR,
  MCR_BITS,
  PIN,
  POLLING_READS,
  RX,
  RX_CAPACITY,
  RX_HEAD,
  RX_HIDDEN,
  RX_TAIL,
  SCR,
  THRE_PENDING,
} from "./serial-words.js";

/** By name: the word, and the bits that a guest can have set. */
const REGISTERS: Readonly<Record<string, readonly [word: number, bits: number]>> = {
  ier: [IER, IER_BITS],
  lcr: [LCR, 0xff],
  mcr: [MCR, MCR_BITS],
  fcr: [FCR, 0xff],
  scr: [SCR, 0xff],
  dll: [DLL, 0xff],
  dlm: [DLM, 0xff],
};

/** While no vCPU runs. */
export function saveSerial(words: SharedWords): State {
  const word = (index: number): number => words[index] ?? 0;
  const length = Math.min((word(RX_HEAD) - word(RX_TAIL)) >>> 0, RX_CAPACITY);
  return {
    ...Object.fromEntries(Object.entries(REGISTERS).map(([name, [index]]) => [name, word(index)])),
    isTransmitterPending: word(THRE_PENDING) !== 0,
    isInterruptUp: word(PIN) !== 0,
    hiddenReads: word(RX_HIDDEN),
    /** Bytes, and 256 for a break. */
    input: Array.from({ length }, (_, i) => word(RX + (((word(RX_TAIL) >>> 0) + i) % RX_CAPACITY))),
  };
}

/** `words`: zeroes so far. Nobody waits for room: who had input that did not fit has gone. */
export function restoreSerial(words: SharedWords, state: StateReader): void {
  const names = Object.keys(REGISTERS);
  state.only([...names, "isTransmitterPending", "isInterruptUp", "hiddenReads", "input"]);
  const input = state.list("input", { minimum: 0, maximum: RX_CAPACITY });
  for (const [name, [index, bits]] of Object.entries(REGISTERS)) {
    words[index] = state.integer(name, { minimum: 0, maximum: bits });
  }
  words[THRE_PENDING] = Number(state.boolean("isTransmitterPending"));
  words[PIN] = Number(state.boolean("isInterruptUp"));
  words[RX_HIDDEN] = state.integer("hiddenReads", { minimum: 0, maximum: POLLING_READS });
  words[RX_TAIL] = 0;
  words[RX_HEAD] = input.length;
  input.forEach((entry, i) => {
    words[RX + i] = entry.asInteger({ minimum: 0, maximum: BREAK });
  });
}
