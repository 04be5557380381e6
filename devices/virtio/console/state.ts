// What a saved console goes on with: the terminal's size as the guest knows it, input that waits for the guest,
// and how much of the output is sent that the queue will bring again.
import type { StateReader } from "../../state.js";

export type ConsoleState = {
  readonly columns: number;
  readonly rows: number;
  /** Bytes in base64. */
  readonly input: string;
  readonly isAfterBreak: boolean;
  /** `bytes` of the first chain of the transmit queue that the host has. */
  readonly sentBytes: number;
};

export interface ReadConsoleState extends Omit<ConsoleState, "input"> {
  readonly input: Uint8Array;
}

const U16 = { minimum: 0, maximum: 0xffff };
/** The bytes of the longest chain. */
const MAX_SENT = { minimum: 0, maximum: 2 ** 32 };

/** `capacity`: `bytes` of input that fit. */
export function readConsoleState(state: StateReader, capacity: number): ReadConsoleState {
  state.only(["columns", "rows", "input", "isAfterBreak", "sentBytes"]);
  return {
    columns: state.integer("columns", U16),
    rows: state.integer("rows", U16),
    input: state.bytes("input", { minimum: 0, maximum: capacity }),
    isAfterBreak: state.boolean("isAfterBreak"),
    sentBytes: state.integer("sentBytes", MAX_SENT),
  };
}
