// CPU templates in files: JSON as of Firecracker's custom CPU templates. A bit of a bitmap is 0, 1, or x: the host's.
//   {"cpuid_modifiers": [{"leaf": "0x7", "subleaf": "0x0", "flags": 1, "modifiers": [{"register": "ebx", "bitmap": "0bx0"}]}],
//    "msr_modifiers": [{"addr": "0x10a", "bitmap": "0b0"}]}
import { closeSync, constants, fstatSync, openSync, readFileSync } from "node:fs";
import { checkRecord } from "../config/check.js";
import { CPUID_CHANGES, CPUID_FLAGS, MAX_LEAVES, MSR_CHANGES, U32_TEXT } from "../config/cpu-template.js";
import { CPU_TEMPLATE_NAMES } from "../config/defaults.js";
import { ConfigError } from "../errors.js";
import { errnoText } from "../host/errno-text.js";
import { namedTemplate, type CpuidFilter, type CpuTemplate, type MsrFilter } from "../x86/cpu-template.js";

const MAX_FILE_BYTES = 2 ** 20;
const FILE_SCHEMA = {
  type: "object",
  title: "The CPU template",
  properties: {
    cpuid_modifiers: {
      type: "array",
      maxItems: MAX_LEAVES,
      items: {
        type: "object",
        title: "cpuid_modifier",
        properties: {
          leaf: U32_TEXT,
          subleaf: U32_TEXT,
          flags: CPUID_FLAGS,
          modifiers: CPUID_CHANGES,
        },
        required: ["leaf", "subleaf", "modifiers"],
        additionalProperties: false,
      },
    },
    msr_modifiers: MSR_CHANGES,
  },
  required: [],
  additionalProperties: false,
} as const;

/** One by its name, or from a file. Throws ConfigError. */
export function openCpuTemplate(nameOrPath: string): CpuTemplate {
  return namedTemplate(nameOrPath) ?? parseCpuTemplate(readText(nameOrPath), nameOrPath);
}

/** Throws ConfigError, with all problems. */
export function parseCpuTemplate(text: string, path: string): CpuTemplate {
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new ConfigError([`CPU template ${path} is no JSON: ${(error as Error).message}`]);
  }
  const problems: string[] = [];
  const file = checkRecord(FILE_SCHEMA, json, problems);
  if (file === undefined || problems.length > 0) {
    throw new ConfigError(problems.map((problem) => `CPU template ${path}: ${problem}`));
  }
  const cpuid = (file.cpuid_modifiers ?? []).flatMap(({ leaf, subleaf, modifiers }) =>
    modifiers.map(({ register, bitmap: bits }): CpuidFilter => {
      const { mask, value } = readBitmap(bits);
      return { leaf: Number(leaf), index: Number(subleaf), register, mask: Number(mask), value: Number(value) };
    }),
  );
  const msrs = (file.msr_modifiers ?? []).map(({ addr, bitmap: bits }): MsrFilter => ({
    index: Number(addr),
    ...readBitmap(bits),
  }));
  return { name: path, vendor: undefined, cpuid, msrs };
}

/** As a file that `parseCpuTemplate` reads. */
export function formatCpuTemplate({ cpuid, msrs }: CpuTemplate): string {
  const leaves = new Map<string, CpuidFilter[]>();
  for (const each of cpuid) {
    const key = `${String(each.leaf)} ${String(each.index)}`;
    leaves.set(key, [...(leaves.get(key) ?? []), each]);
  }
  const hex = (value: number): string => `0x${value.toString(16)}`;
  const file = {
    cpuid_modifiers: [...leaves.values()].map((filters) => ({
      leaf: hex(filters[0]?.leaf ?? 0),
      subleaf: hex(filters[0]?.index ?? 0),
      // KVM_CPUID_FLAG_SIGNIFCANT_INDEX
      flags: [0x4, 0x7, 0xb, 0xd, 0x14, 0x1d].includes(filters[0]?.leaf ?? 0) ? 1 : 0,
      modifiers: filters.map(({ register, mask, value }) => ({
        register,
        bitmap: formatBitmap(BigInt(mask), BigInt(value), 32),
      })),
    })),
    msr_modifiers: msrs.map(({ index, mask, value }) => ({ addr: hex(index), bitmap: formatBitmap(mask, value, 64) })),
  };
  return `${JSON.stringify(file, undefined, 2)}\n`;
}

function readBitmap(text: string): { mask: bigint; value: bigint } {
  const bits = text.slice(2).replaceAll("_", "").toLowerCase();
  return {
    mask: BigInt(`0b${bits.replaceAll("0", "1").replaceAll("x", "0")}`),
    value: BigInt(`0b${bits.replaceAll("x", "0")}`),
  };
}

function formatBitmap(mask: bigint, value: bigint, bits: number): string {
  const bit = (at: number): string => {
    const flag = 1n << BigInt(at);
    return (mask & flag) === 0n ? "x" : (value & flag) === 0n ? "0" : "1";
  };
  return `0b${Array.from({ length: bits }, (_, i) => bit(bits - 1 - i)).join("")}`;
}

function readText(path: string): string {
  try {
    const fd = openSync(path, constants.O_RDONLY | constants.O_NONBLOCK | constants.O_NOCTTY);
    try {
      const stat = fstatSync(fd);
      if (!stat.isFile()) throw new ConfigError([`CPU template ${path}: not a regular file`]);
      if (stat.size > MAX_FILE_BYTES) {
        throw new ConfigError([
          `CPU template ${path} has ${String(stat.size)} bytes, more than ${String(MAX_FILE_BYTES)}`,
        ]);
      }
      return readFileSync(fd, "utf8");
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    const { code } = error as { readonly code?: string };
    if (error instanceof ConfigError || code === undefined) throw error;
    const known = code === "ENOENT" ? `; known by name are ${CPU_TEMPLATE_NAMES.join(", ")}` : "";
    throw new ConfigError([`CPU template ${path}: ${errnoText(code)}${known}`]);
  }
}
