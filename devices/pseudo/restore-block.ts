// What a guest that begins with a template is told: who it is now, and its command. It lies at the beginning of the
// command channel's ring of output, in which nothing is before a command has run. guest/init/template.h reads it.
import { CHANNEL_BLOCK_BYTES } from "./command-channel.js";

// Offsets in the block, `bytes`.
const LENGTH = 0;
const ARGUMENTS = 4;
const VARIABLES = 8;
const FLAGS = 12;
const ROWS = 16;
const COLUMNS = 18;
const GENERATION = 20;
const SECONDS = 24;
const NANOSECONDS = 32;
const SEED = 40;
export const SEED_BYTES = 32;
/** What AT_RANDOM points to, of a program that is held at its start. */
const PROGRAM_RANDOM = SEED + SEED_BYTES;
export const PROGRAM_RANDOM_BYTES = 16;
const STRINGS = PROGRAM_RANDOM + PROGRAM_RANDOM_BYTES;

const FLAG_TERMINAL = 1;
const FLAG_PROGRAM = 2;
const FLAG_OTHER_HOST = 4;
/** Of either list: as many as init has room for. */
export const MAX_STRINGS = 2048;

export interface RestoreBlock {
  /** The command and its arguments; bytes without NUL. */
  readonly command: readonly Uint8Array[];
  /** "NAME=VALUE" for the command, besides what init gives it. */
  readonly variables?: readonly Uint8Array[];
  /** Undefined: the template's. */
  readonly hostName?: string | undefined;
  /** Where the command starts; undefined: /root. */
  readonly folder?: Uint8Array | undefined;
  /** The command sits at a terminal of this size; undefined: its input and output are the channel's. */
  readonly terminal?: { readonly rows: number; readonly columns: number } | undefined;
  /** The guest comes to a second point for a snapshot: the command's program is loaded, and has not begun. */
  readonly holdsProgram?: boolean;
  /** The guest was saved in the midst of what it did: what lies in the rings was said to another monitor, and by it. */
  readonly hasOtherHost?: boolean;
  /** Not 0, and another one in every guest. */
  readonly generation: number;
  /** `ns` since 1970. */
  readonly wallClock: bigint;
  /** SEED_BYTES for the guest's random numbers. */
  readonly seed: Uint8Array;
  /** PROGRAM_RANDOM_BYTES for a program that is held at its start. */
  readonly programRandom: Uint8Array;
}

/** Undefined if it does not fit. */
export function encodeRestoreBlock(block: RestoreBlock): Uint8Array | undefined {
  const { command, variables = [], hostName = "", folder, terminal } = block;
  const strings = [Buffer.from(hostName), folder ?? new Uint8Array(0), ...command, ...variables];
  const length = strings.reduce((sum, string) => sum + string.length + 1, STRINGS);
  if (length > CHANNEL_BLOCK_BYTES || command.length > MAX_STRINGS || variables.length > MAX_STRINGS) return undefined;
  const bytes = new Uint8Array(length);
  const view = new DataView(bytes.buffer);
  view.setUint32(LENGTH, length, true);
  view.setUint32(ARGUMENTS, command.length, true);
  view.setUint32(VARIABLES, variables.length, true);
  view.setUint32(FLAGS, flagsOf(block), true);
  view.setUint16(ROWS, terminal?.rows ?? 0, true);
  view.setUint16(COLUMNS, terminal?.columns ?? 0, true);
  view.setUint32(GENERATION, block.generation, true);
  view.setBigInt64(SECONDS, block.wallClock / 1_000_000_000n, true);
  view.setBigInt64(NANOSECONDS, block.wallClock % 1_000_000_000n, true);
  bytes.set(block.seed.subarray(0, SEED_BYTES), SEED);
  bytes.set(block.programRandom.subarray(0, PROGRAM_RANDOM_BYTES), PROGRAM_RANDOM);
  let at = STRINGS;
  for (const string of strings) {
    bytes.set(string, at);
    at += string.length + 1;
  }
  return bytes;
}

function flagsOf({ terminal, holdsProgram = false, hasOtherHost = false }: RestoreBlock): number {
  return (
    (terminal === undefined ? 0 : FLAG_TERMINAL) |
    (holdsProgram ? FLAG_PROGRAM : 0) |
    (hasOtherHost ? FLAG_OTHER_HOST : 0)
  );
}
