// Images: layers and what describes them, from whoever has built them.
import assert from "node:assert/strict";
import { ImageError } from "../../../vmm/errors.js";
import { DataWriter, type WritableFile } from "../../../vmm/image/data-writer.js";
import { compressionOf } from "../../../vmm/image/decompress.js";
import { readImageConfig } from "../../../vmm/image/image-config.js";
import { decodeEntry } from "../../../vmm/image/layer-entry.js";
import { LayerReader } from "../../../vmm/image/layer-reader.js";
import { DEFAULT_LIMITS } from "../../../vmm/image/limits.js";
import { chooseEntry, readManifest } from "../../../vmm/image/sources/manifest.js";
import { formatName, parseName } from "../../../vmm/image/sources/registry-name.js";
import { parsePax, paxNumber, paxTime, paxXattrs } from "../../../vmm/image/tar/pax.js";
import { paxBody, tarOf } from "../../helpers/tar-builder.js";
import { allowing, inPiecesToo, text, type ByteTarget } from "../coverage/byte-target.js";

const LIMITS = { ...DEFAULT_LIMITS, layerBytes: 256 * 1024, entries: 300, metadataBytes: 64 * 1024 };
const BLOCK = 512;
const FILE: WritableFile = {
  writev: () => Promise.reject(new Error("Nothing is written here")),
  write: () => Promise.reject(new Error("Nothing is written here")),
  truncate: () => Promise.resolve(),
};

/** A checksum for each block that says it is a header: a search would not come by them. */
function withChecksums(input: Uint8Array): Buffer {
  const tar = Buffer.from(input);
  for (let at = 0; at + BLOCK <= tar.length; at += BLOCK) {
    if (tar.toString("latin1", at + 257, at + 262) !== "ustar") continue;
    let sum = 8 * 0x20;
    for (let index = 0; index < BLOCK; index++) {
      if (index < 148 || index >= 156) sum += tar[at + index] ?? 0;
    }
    tar.write(`${sum.toString(8).padStart(6, "0")}\0 `, at + 148, "latin1");
  }
  return tar;
}

function readLayer(chunks: Iterable<Uint8Array>): string {
  const data = new DataWriter(FILE);
  const list = new DataWriter(FILE);
  const reader = new LayerReader(data, list, LIMITS);
  try {
    for (const chunk of chunks) reader.write(Buffer.from(chunk));
    reader.end(false);
  } catch (error) {
    if (error instanceof ImageError) return error.message;
    throw error;
  }
  assert.ok(data.position <= LIMITS.layerBytes + 4096 && data.position % 4096 === 0);
  const lines = Buffer.concat(list.take().flatMap(({ pieces: parts }) => parts)).toString("utf8");
  for (const line of lines.split("\n").filter(Boolean)) {
    const { path } = decodeEntry(line);
    assert.ok(!path.split("/").some((name) => name === "." || name === ".." || name.includes("\0")), path);
  }
  return lines;
}

export const layerTarget: ByteTarget = {
  name: "layer",
  parser: "TarReader, parseHeader, sparse files, LayerReader",
  maxLength: 4096,
  seeds: [
    tarOf([
      { name: "a/", type: "5", linkName: "", body: Buffer.alloc(0), mode: 0o755, uid: 0 },
      { name: "a/b", type: "0", linkName: "", body: Buffer.from("abc"), mode: 0o644, uid: 0 },
      { name: "c", type: "2", linkName: "a", body: Buffer.alloc(0), mode: 0o777, uid: 0 },
    ]),
    tarOf([
      { name: "x", type: "x", body: paxBody({ path: "long", "GNU.sparse.size": "9" }) },
      { name: "s", type: "0" },
    ]),
    tarOf([
      { name: "S", type: "S", body: Buffer.alloc(512) },
      { name: ".wh.a", type: "0" },
    ]),
    tarOf([
      { name: "L", type: "L", body: "name\0" },
      { name: "l", type: "1", linkName: "a" },
    ]),
  ],
  words: ["ustar\x0000", "ustar  \0", "\0tar\0", "GNU.sparse.map", "GNU.sparse.major", ".wh.", "../", "path=", "\x80"],
  run(input) {
    const tar = withChecksums(input);
    inPiecesToo(tar, readLayer);
    allowing([ImageError], () => void compressionOf(Buffer.from(input)));
  },
};

export const paxTarget: ByteTarget = {
  name: "pax",
  parser: "parsePax, paxXattrs, paxTime, paxNumber",
  maxLength: 512,
  seeds: [paxBody({ path: "a", mtime: "-1.5", size: "7", "SCHILY.xattr.user.x": "v", "LIBARCHIVE.xattr.a%20": "YQ" })],
  words: ["SCHILY.xattr.", "LIBARCHIVE.xattr.", "mtime=", "size=", "%00", "=", "\n", " "],
  run(input) {
    allowing([ImageError], () => {
      const records = parsePax(Buffer.from(input));
      for (const [name] of paxXattrs(records)) assert.ok(name !== "" && !name.includes("\0"));
      const time = paxTime(records.get("mtime") ?? "");
      assert.ok(time === undefined || (time.mtimeNs >= 0 && time.mtimeNs < 1e9));
      const size = paxNumber(records, "size");
      assert.ok(size === undefined || (Number.isSafeInteger(size) && size >= 0));
    });
  },
};

const DIGEST = `sha256:${"a".repeat(64)}`;

export const manifestTarget: ByteTarget = {
  name: "manifest",
  parser: "readManifest, chooseEntry: manifests and indexes",
  maxLength: 1024,
  seeds: [
    text(
      `{"schemaVersion":2,"config":{"digest":"${DIGEST}","size":3},"layers":[{"mediaType":"x","digest":"${DIGEST}","size":5}]}`,
    ),
    text(
      `{"manifests":[{"digest":"${DIGEST}","size":3,"platform":{"os":"linux","architecture":"amd64"},"annotations":{}}]}`,
    ),
  ],
  words: [
    '"artifactType"',
    '"mediaType"',
    '"platform"',
    '"annotations"',
    "application/vnd.oci.image.config.v1+json",
    "null",
  ],
  run(input) {
    allowing(
      [ImageError],
      () => {
        const manifest = readManifest(input, "x", LIMITS);
        if (manifest.is === "index") chooseEntry(manifest.entries, "x");
        else for (const { digest } of manifest.layers) assert.match(digest, /^[0-9a-f]{64}$/);
      },
      /[\x00-\x1f\x7f]/,
    );
  },
};

export const imageConfigTarget: ByteTarget = {
  name: "image-config",
  parser: "readImageConfig",
  maxLength: 1024,
  seeds: [
    text(
      `{"os":"linux","architecture":"amd64","rootfs":{"diff_ids":["${DIGEST}"]},"config":{"Env":["A=b"],"Cmd":["x"],"Entrypoint":null,"ExposedPorts":{"80/tcp":{}},"Volumes":{"/v":{}},"Labels":{"__proto__":"x"},"User":"0","WorkingDir":"/"}}`,
    ),
  ],
  words: ['"StopSignal"', '"Hostname"', '"Labels"', "\\u0000", "__proto__", "null"],
  run(input) {
    allowing(
      [ImageError],
      () => {
        const { config } = readImageConfig(input, LIMITS);
        assert.ok(config.env.every((item) => item.indexOf("=") > 0 && !item.includes("\0")));
      },
      /[\x00-\x1f\x7f]/,
    );
  },
};

export const imageNameTarget: ByteTarget = {
  name: "image-name",
  parser: "parseName: names of images",
  maxLength: 300,
  seeds: [text("alpine:3"), text(`registry.example:5000/a/b_c@${DIGEST}`), text("localhost/x")],
  words: ["docker.io/", "library/", "@sha256:", ":5000/", "localhost"],
  run(input) {
    const name = parseName(Buffer.from(input).toString("latin1"));
    if (name === undefined) return;
    const shown = formatName(name);
    assert.ok(!/[\x00-\x20\x7f]/.test(shown), "a name with odd characters");
    const again = parseName(shown);
    assert.ok(again !== undefined && formatName(again) === shown, "a name does not stay what it is");
  },
};
