// --disk path=FILE[,root][,readonly][,format=raw|parts][,id=NAME][,cache=MODE][,block=BYTES][,lock=on|off]
// [,bw=SIZE][,ops=N].
import type { DiskCache, DiskConfig, DiskFormat } from "../config/disks.js";
import { RateLimitWords, formatSpec, readSpec, specError } from "./spec.js";

const KEYS = "path=, root, readonly, format=, id=, cache=, block=, lock=, bw=, ops=";

export function parseDisk(text: string): DiskConfig {
  const disk: { -readonly [Key in keyof DiskConfig]: DiskConfig[Key] } = { path: "" };
  const limits = new RateLimitWords();
  readSpec("--disk", text, KEYS, (word) => {
    if (word.key === "path") disk.path = word.text();
    else if (word.key === "root") disk.isRoot = word.flag();
    else if (word.key === "readonly") disk.isReadonly = word.flag();
    else if (word.key === "format") disk.format = word.text() as DiskFormat;
    else if (word.key === "id") disk.id = word.text();
    else if (word.key === "cache") disk.cache = word.text() as DiskCache;
    else if (word.key === "block") disk.blockSize = word.number() as 512 | 4096;
    else if (word.key === "lock") disk.lock = word.isOn();
    else return limits.take(word);
    return true;
  });
  if (disk.path === "") throw specError("--disk", text, "no path= is given");
  if (limits.config !== undefined) disk.rateLimiter = limits.config;
  return disk;
}

/** The same disk as an argument, for a command in the lab, under another path there. */
export function formatDisk(disk: DiskConfig, path: string): string {
  const { bandwidth, operations } = disk.rateLimiter ?? {};
  return formatSpec([
    `path=${path}`,
    ...(disk.isReadonly === true ? ["readonly"] : []),
    ...(disk.format === undefined ? [] : [`format=${disk.format}`]),
    ...(disk.id === undefined ? [] : [`id=${disk.id}`]),
    ...(disk.cache === undefined ? [] : [`cache=${disk.cache}`]),
    ...(disk.blockSize === undefined ? [] : [`block=${String(disk.blockSize)}`]),
    ...(disk.lock === undefined ? [] : [`lock=${disk.lock ? "on" : "off"}`]),
    ...(bandwidth === undefined ? [] : [`bw=${String(bandwidth.size)}`]),
    ...(operations === undefined ? [] : [`ops=${String(operations.size)}`]),
  ]);
}
