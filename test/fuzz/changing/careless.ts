// A copy of the device's side of a queue that has a mistake: it checks a descriptor, and then reads its length once more.
import { readFileSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { pathToFileURL } from "node:url";
import type { DescriptorChain } from "../../../devices/virtio/chain.js";

const COMPILED = "build/devices/virtio";
const RIGHT = "(isWritable ? writable : readable).append(gpa, length);";
const WRONG = "(isWritable ? writable : readable).append(gpa, memory.readU32(table + index * VIRTQ_DESC_SIZE + 8));";

export type ChainClass = new (capacity: number) => DescriptorChain;

/** The class with the mistake in it. */
export async function carelessChain(): Promise<ChainClass> {
  const source = readFileSync(join(COMPILED, "chain.js"), "utf8");
  if (!source.includes(RIGHT)) throw new Error(`${COMPILED}/chain.js has no ${RIGHT}`);
  const base = pathToFileURL(join(process.cwd(), COMPILED, "x")).href.slice(0, -1);
  const folder = mkdtempSync(join(tmpdir(), "vmlet-careless-"));
  try {
    const path = join(folder, "chain.mjs");
    writeFileSync(path, source.replace(RIGHT, WRONG).replaceAll('from "./', `from "${base}`));
    const { DescriptorChain: Careless } = (await import(pathToFileURL(path).href)) as { DescriptorChain: ChainClass };
    return Careless;
  } finally {
    rmSync(folder, { recursive: true });
  }
}
