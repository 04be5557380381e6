// The corpus of one target: a text file with an input in Base64 a line; "#" begins a remark on the lines behind it.
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const FOLDER = "test/fuzz/corpus";
/** What a target may take of the tree: `bytes`. */
const MAX_FILE_BYTES = 24_000;

function pathOf(name: string): string {
  return join(FOLDER, `${name}.txt`);
}

/** None where there is no file. */
export function readCorpus(name: string): Uint8Array[] {
  const path = pathOf(name);
  if (!existsSync(path)) return [];
  const lines = readFileSync(path, "utf8").split("\n");
  return lines.filter((line) => line !== "" && !line.startsWith("#")).map((line) => Buffer.from(line, "base64"));
}

/** Inputs behind a remark were added by hand and stay; the shortest of the others follow. */
export function writeCorpus(name: string, inputs: readonly Uint8Array[]): number {
  const path = pathOf(name);
  const before = existsSync(path) ? readFileSync(path, "utf8").split("\n") : [];
  const end = before.indexOf("# Found by the search");
  const kept = end < 0 ? [] : before.slice(0, end);
  const lines = [...kept, "# Found by the search"];
  let size = lines.join("\n").length;
  let count = 0;
  for (const input of [...inputs].sort((a, b) => a.length - b.length)) {
    const line = Buffer.from(input).toString("base64");
    if (line === "") continue;
    size += line.length + 1;
    if (size > MAX_FILE_BYTES) break;
    lines.push(line);
    count++;
  }
  writeFileSync(path, `${lines.join("\n")}\n`);
  return count;
}
