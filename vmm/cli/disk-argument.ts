// --disk path=FILE[,root][,readonly][,id=NAME][,cache=MODE][,block=BYTES][,bw=SIZE][,ops=N].
// A comma inside a value is written twice.
import type { DiskCache, DiskConfig } from "../config/disks.js";
import type { TokenBucketConfig } from "../../devices/virtio/rate-limiter.js";
import { UsageError } from "./exit-codes.js";

const UNITS: Readonly<Record<string, number>> = { "": 1, k: 2 ** 10, m: 2 ** 20, g: 2 ** 30 };
/** Limits are per second. */
const REFILL_MS = 1000;
const KEYS = "path=, root, readonly, id=, cache=, block=, bw=, ops=";

export function parseDisk(text: string): DiskConfig {
  const wrong = (problem: string): never => {
    throw new UsageError(`--disk ${text}: ${problem}`);
  };
  const disk: { -readonly [Key in keyof DiskConfig]: DiskConfig[Key] } = { path: "" };
  let bandwidth: TokenBucketConfig | undefined;
  let operations: TokenBucketConfig | undefined;
  const seen = new Set<string>();
  for (const word of splitList(text)) {
    const at = word.indexOf("=");
    const key = at < 0 ? word : word.slice(0, at);
    const value = at < 0 ? undefined : word.slice(at + 1);
    if (seen.has(key)) wrong(`${key} is given twice`);
    seen.add(key);
    const needed = (): string => (value === undefined || value === "" ? wrong(`${key} needs a value: ${key}=`) : value);
    const flag = (): true => (value === undefined ? true : wrong(`${key} takes no value`));
    switch (key) {
      case "path":
        disk.path = needed();
        break;
      case "root":
        disk.isRoot = flag();
        break;
      case "readonly":
        disk.isReadonly = flag();
        break;
      case "id":
        disk.id = needed();
        break;
      case "cache":
        disk.cache = needed() as DiskCache;
        break;
      case "block":
        disk.blockSize = Number(needed()) as 512 | 4096;
        break;
      case "bw":
        bandwidth = perSecond(parseSize(needed()) ?? wrong(`bw ${needed()} is not a size: 500K, 20M`));
        break;
      case "ops":
        operations = perSecond(parseSize(needed()) ?? wrong(`ops ${needed()} is not a number`));
        break;
      default:
        wrong(`unknown ${JSON.stringify(key)}; known are ${KEYS}`);
    }
  }
  if (disk.path === "") wrong("no path= is given");
  if (bandwidth !== undefined || operations !== undefined) {
    disk.rateLimiter = {
      ...(bandwidth === undefined ? {} : { bandwidth }),
      ...(operations === undefined ? {} : { operations }),
    };
  }
  return disk;
}

/** The same disk as an argument, for a command in the lab, under another path there. */
export function formatDisk(disk: DiskConfig, path: string): string {
  const { bandwidth, operations } = disk.rateLimiter ?? {};
  const words = [
    `path=${path}`,
    ...(disk.isReadonly === true ? ["readonly"] : []),
    ...(disk.id === undefined ? [] : [`id=${disk.id}`]),
    ...(disk.cache === undefined ? [] : [`cache=${disk.cache}`]),
    ...(disk.blockSize === undefined ? [] : [`block=${String(disk.blockSize)}`]),
    ...(bandwidth === undefined ? [] : [`bw=${String(bandwidth.size)}`]),
    ...(operations === undefined ? [] : [`ops=${String(operations.size)}`]),
  ];
  return words.map((word) => word.replaceAll(",", ",,")).join(",");
}

function perSecond(size: number): TokenBucketConfig {
  return { size, oneTimeBurst: 0, refillTimeMs: REFILL_MS };
}

function parseSize(text: string): number | undefined {
  const match = /^(\d+)([kmg]?)$/i.exec(text);
  return match === null ? undefined : Number(match[1]) * (UNITS[match[2]?.toLowerCase() ?? ""] ?? 1);
}

/** Splits at single commas; a double comma is one that belongs to the value. No argument holds a NUL. */
function splitList(text: string): string[] {
  return text
    .replaceAll(",,", "\0")
    .split(",")
    .map((word) => word.replaceAll("\0", ","));
}
