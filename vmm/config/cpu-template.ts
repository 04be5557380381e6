// The parts of a CPU template's file, which is JSON as of Firecracker's custom CPU templates.

/** Up to 4294967295. */
const DECIMAL = "[0-9]{1,9}|[1-3][0-9]{9}|4[01][0-9]{8}|42[0-8][0-9]{7}|429[0-3][0-9]{6}|4294[0-8][0-9]{5}";
const LAST_DECIMALS = "42949[0-5][0-9]{4}|429496[0-6][0-9]{3}|4294967[01][0-9]{2}|42949672[0-8][0-9]|429496729[0-5]";

export const U32_TEXT = {
  type: "string",
  pattern: `^(?:0x[0-9a-fA-F]{1,8}|0b[01]{1,32}|${DECIMAL}|${LAST_DECIMALS})$`,
  "x-expected": 'a number of 32 bits in text: "0x..."',
} as const;

function bitmapText(bits: 32 | 64) {
  return {
    type: "string",
    pattern: `^0b(?:_*[01xX]){1,${String(bits)}}_*$`,
    "x-expected": `a bitmap: "0b", then at most ${String(bits)} of 0, 1 and x`,
  } as const;
}

export const CPUID_FLAGS = { type: "integer", minimum: 0, maximum: 0xffff_ffff } as const;

/** What is changed of one leaf of CPUID: a register each. */
export const CPUID_CHANGES = {
  type: "array",
  maxItems: 4,
  items: {
    type: "object",
    title: "modifier",
    properties: { register: { enum: ["eax", "ebx", "ecx", "edx"] }, bitmap: bitmapText(32) },
    required: ["register", "bitmap"],
    additionalProperties: false,
  },
} as const;

const MAX_MSRS = 256;
/** Entries of CPUID. */
export const MAX_LEAVES = 256;

export const MSR_CHANGES = {
  type: "array",
  maxItems: MAX_MSRS,
  items: {
    type: "object",
    title: "msr_modifier",
    properties: { addr: U32_TEXT, bitmap: bitmapText(64) },
    required: ["addr", "bitmap"],
    additionalProperties: false,
  },
} as const;
