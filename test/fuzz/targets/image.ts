// Layers of an image that say anything, some damaged: each becomes a file system that can be read, the same however its bytes
// come, or an ImageError; nothing in it leads out, and it is no longer than its limits.
import assert from "node:assert/strict";
import { ImageError } from "../../../vmm/errors.js";
import { applyLayer } from "../../../vmm/image/apply-layer.js";
import { DataWriter, type WritableFile } from "../../../vmm/image/data-writer.js";
import { writeErofs } from "../../../vmm/image/erofs/write.js";
import { decodeEntry, type LayerEntry } from "../../../vmm/image/layer-entry.js";
import { LayerReader } from "../../../vmm/image/layer-reader.js";
import { DEFAULT_LIMITS } from "../../../vmm/image/limits.js";
import { Tree } from "../../../vmm/image/tree.js";
import type { Steps } from "../../../vmm/image/turns.js";
import { readErofs } from "../../helpers/erofs-reader.js";
import { paxBody, tarOf, type TarItem } from "../../helpers/tar-builder.js";
import type { Random } from "../random.js";
import type { FuzzTarget } from "../target.js";

const LIMITS = { ...DEFAULT_LIMITS, layerBytes: 256 * 1024, entries: 300, metadataBytes: 64 * 1024 };
/** `bytes`: a file system of so few entries has no more of its own. */
const MAX_META = 2 * 1024 * 1024;
const NAMES: readonly string[] = [
  ...["a", "b", "c", "a", "b", ".", "..", "", "/", "\xff", "n".repeat(255), "n".repeat(256)],
  ...[".wh.a", ".wh.b", ".wh..wh..opq", ".wh..wh.plnk", ".wh.", ".wh...", "a/../b"],
];
const TYPES = "00000001112225555346xgLKS7VZ";
const KEYS = ["path", "linkpath", "size", "mtime", "uid", "SCHILY.xattr.user.x", "SCHILY.xattr.security.capability"];
const SPARSE = ["GNU.sparse.size", "GNU.sparse.map", "GNU.sparse.major", "GNU.sparse.minor", "GNU.sparse.realsize"];
const FILE: WritableFile = {
  writev: () => Promise.reject(new Error("Nothing is written here")),
  write: () => Promise.reject(new Error("Nothing is written here")),
  truncate: () => Promise.resolve(),
};

function pathOf(random: Random): string {
  return Array.from({ length: 1 + random.below(4) }, () => random.pick(NAMES)).join("/");
}

function valueOf(random: Random, key: string): string {
  if (key.endsWith("path")) return pathOf(random);
  if (key === "GNU.sparse.map") return Array.from({ length: random.below(5) }, () => random.below(3000)).join(",");
  if (key === "mtime") return random.pick(["1.5", "-1.5", "x", "99999999999999", ""]);
  return random.oneIn(4) ? String(random.value()) : random.pick(["0", "1", "512", "4096", "", "-1", "\xff".repeat(40)]);
}

function itemOf(random: Random): TarItem {
  const type = TYPES[random.below(TYPES.length)] ?? "0";
  const keys = random.oneIn(3) ? [random.pick(KEYS), random.pick(random.oneIn(3) ? SPARSE : KEYS)] : [];
  const records = Object.fromEntries(keys.map((key) => [key, valueOf(random, key)]));
  const isExtension = "xgLK".includes(type);
  return {
    name: pathOf(random).slice(0, 100),
    type,
    linkName: pathOf(random).slice(0, 100),
    body: isExtension
      ? type === "x" || type === "g"
        ? paxBody(records)
        : `${pathOf(random)}\0`
      : Buffer.alloc(random.oneIn(3) ? random.below(random.oneIn(8) ? 9000 : 700) : 0, random.u32()),
    mode: random.oneIn(5) ? random.value() % 8 ** 7 : 0o755,
    uid: random.oneIn(8) ? random.value() : 0,
    ...(random.oneIn(20) ? { size: random.value() } : {}),
    ...(random.oneIn(8) ? { device: [random.below(5000), random.below(2_000_000)] as const } : {}),
    ...(keys.length > 0 && !isExtension ? { pax: records } : {}),
  };
}

function damaged(random: Random, tar: Buffer): Buffer {
  const bytes = Buffer.from(tar);
  for (let count = 1 + random.below(4); count > 0; count--) bytes[random.below(bytes.length)] = random.u32() & 0xff;
  return random.oneIn(3) ? bytes.subarray(0, random.below(bytes.length)) : bytes;
}

/** The layer's list and the length of its contents, or the message of its refusal. */
function read(tar: Buffer, pieceOf: (left: number) => number): { list: string; data: number } | string {
  const data = new DataWriter(FILE);
  const list = new DataWriter(FILE);
  const reader = new LayerReader(data, list, LIMITS);
  try {
    for (let at = 0; at < tar.length;) {
      const length = pieceOf(tar.length - at);
      reader.write(tar.subarray(at, at + length));
      at += length;
    }
    reader.end(false);
  } catch (error) {
    if (error instanceof ImageError) return error.message;
    throw error;
  }
  const text = Buffer.concat(list.take().flatMap(({ pieces }) => pieces)).toString("utf8");
  return { list: text, data: data.position };
}

function all<Result>(steps: Steps<Result>): Result {
  for (;;) {
    const { done, value } = steps.next();
    if (done === true) return value;
  }
}

export const imageTarget: FuzzTarget = {
  name: "image",
  run: (random) => {
    const tree = new Tree(LIMITS.entries);
    const sources: number[] = [];
    try {
      for (let layer = 1 + random.below(3); layer > 0; layer--) {
        const items = Array.from({ length: 1 + random.below(24) }, () => itemOf(random));
        random.operations += items.length;
        const made = tarOf(items);
        const tar = random.oneIn(4) ? damaged(random, made) : made;
        const whole = read(tar, (left) => left);
        assert.deepEqual(
          read(tar, (left) => Math.min(left, 1 + random.below(700))),
          whole,
        );
        if (typeof whole === "string") continue;
        assert.ok(whole.data <= LIMITS.layerBytes + 4096 && whole.data % 4096 === 0);
        const entries: LayerEntry[] = whole.list.split("\n").filter(Boolean).map(decodeEntry);
        sources.push(whole.data);
        all(applyLayer(tree, entries, sources.length - 1));
      }
      const meta = all(writeErofs({ tree, sources, uuid: new Uint8Array(16) }));
      assert.ok(meta.length <= MAX_META, String(meta.length));
      const data = Buffer.alloc(sources.reduce((sum, length) => sum + length, 0));
      const found = readErofs(Buffer.concat([meta, data]));
      for (const path of found.keys()) {
        assert.ok(!path.split("/").some((name) => name === "." || name === ".." || name.includes("\0")), path);
      }
    } catch (error) {
      if (!(error instanceof ImageError)) throw error;
      assert.ok(!/[\x00-\x1f\x7f]/.test(error.message), JSON.stringify(error.message));
    }
  },
};
