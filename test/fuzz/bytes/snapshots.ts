// Snapshots and migrations: files and streams of another vmlet, or of somebody who says so.
import { StateError, StateReader } from "../../../devices/state.js";
import { SnapshotError } from "../../../vmm/errors.js";
import { readImageHashes } from "../../../vmm/snapshot/image-hash.js";
import { readBase } from "../../../vmm/snapshot/memory-chain.js";
import {
  encodeHead,
  FrameParser,
  KINDS,
  MIGRATION_VERSION,
  ProtocolError,
  type FrameKind,
} from "../../../vmm/snapshot/migration/frames.js";
import { checkHello } from "../../../vmm/snapshot/migration/hello.js";
import { readHost } from "../../../vmm/snapshot/saved-host.js";
import { decodeState, encodeState, readingState } from "../../../vmm/snapshot/state-file.js";
import { sha256 } from "../../../vmm/sys/sha256.js";
import { decodeJournal } from "../../../vmm/virtio/backends/fuse-journal.js";
import { readDiskIdentity } from "../../../vmm/virtio/backends/disk-identity.js";
import { allowing, inPiecesToo, text, type ByteTarget } from "../coverage/byte-target.js";

export const stateFileTarget: ByteTarget = {
  name: "state-file",
  parser: "decodeState: the state file of a snapshot",
  maxLength: 1024,
  seeds: [encodeState({ id: "x", list: [1, 2] })],
  words: ['"format":"vmlet snapshot"', '"version":2', '"bytes":', '"sha256":'],
  run(input) {
    allowing([SnapshotError], () => void decodeState(input, "state.json"), /[\x00-\x1f\x7f]/);
    // The same with a head that fits.
    const head = { format: "vmlet snapshot", version: 2, bytes: input.length, sha256: sha256(input) };
    const file = Buffer.concat([text(`${JSON.stringify(head)}\n`), input]);
    allowing([SnapshotError], () => {
      const state = decodeState(file, "state.json");
      readingState("state.json", () => state.only(["id", "list"]));
    });
  },
};

export const savedPartsTarget: ByteTarget = {
  name: "saved-parts",
  parser: "readHost, readImageHashes, readBase, readDiskIdentity: parts of a state",
  maxLength: 2048,
  seeds: [
    text(
      '{"vendor":"GenuineIntel","family":6,"model":1,"stepping":2,"name":"x","software":false,"cpuid":[],"kernel":"aa","initrd":"bb","base":{"id":"x","folder":"/a","pages":"AAAA"},"size":"0x1000","mtime":"0x1","inode":"0x2","device":"0x3"}',
    ),
  ],
  words: ['"base"', '"kernel"', '"initrd"', '"cpuid"', '"0x', "null", "true"],
  run(input) {
    let value: unknown;
    try {
      value = JSON.parse(Buffer.from(input).toString("utf8"));
    } catch {
      return;
    }
    const parts = [readHost, readImageHashes, readDiskIdentity, (state: StateReader) => readBase(state, 2 ** 20)];
    for (const read of parts) allowing([StateError, SnapshotError], () => void read(new StateReader(value, "state")));
  },
};

const KIND_NAMES = Object.keys(KINDS) as FrameKind[];

/** Frames of one input: what comes of more of them has come of these. */
const MAX_FRAMES = 8;

/** Frames with right checksums: a byte for the kind, one for the length, the payload; again. */
function framed(input: Uint8Array): Buffer {
  const made: Uint8Array[] = [];
  let sequence = 0;
  for (let at = 0; at + 2 <= input.length && sequence < MAX_FRAMES;) {
    const kind = KIND_NAMES[(input[at] ?? 0) % KIND_NAMES.length];
    const payload = input.subarray(at + 2, at + 2 + (input[at + 1] ?? 0));
    if (kind !== undefined) made.push(encodeHead(kind, payload, sequence++), payload);
    at += 2 + payload.length;
  }
  return Buffer.concat(made);
}

/** Bits of an input's first byte: the other end is the receiver; its frames get right checksums first. */
const FROM_RECEIVER = 1;
const FRAMED = 2;

function said(flags: number, ...bytes: readonly Uint8Array[]): Buffer {
  return Buffer.concat([Uint8Array.of(flags), ...bytes]);
}

const HELLO = text(`{"format":"vmlet migration","version":${String(MIGRATION_VERSION)},"vmlet":"0.1.0"}`);

export const migrationTarget: ByteTarget = {
  name: "migration",
  parser: "FrameParser, checkHello of a migration",
  maxLength: 512,
  seeds: [
    said(FRAMED, Uint8Array.of(0, HELLO.length), HELLO),
    said(FRAMED | FROM_RECEIVER, Uint8Array.of(0, HELLO.length), HELLO),
    said(0, encodeHead("hello", text("{}"), 0), text("{}")),
    said(FROM_RECEIVER, encodeHead("hello", text("{}"), 0), text("{}")),
  ],
  words: ['"format":"vmlet migration"', '"version":', '"vmlet":""'],
  run(input) {
    const flags = input[0] ?? 0;
    const rest = input.subarray(1);
    inPiecesToo((flags & FRAMED) === 0 ? rest : framed(rest), (chunks) => {
      const seen: unknown[] = [];
      const parser = new FrameParser((flags & FROM_RECEIVER) === 0 ? "sender" : "receiver", (frame) => {
        seen.push(frame.kind, frame.payload);
        if (frame.kind === "hello") checkHello(frame);
      });
      // Either of the two is the end of a migration.
      const isOdd = allowing([ProtocolError, SnapshotError], () => {
        for (const chunk of chunks) parser.push(Buffer.from(chunk));
      });
      return [...seen, isOdd];
    });
  },
};

export const journalTarget: ByteTarget = {
  name: "fuse-journal",
  parser: "decodeJournal: files of a share at the time of a snapshot",
  maxLength: 512,
  seeds: [text('[{"is":"lookup","nodeid":"1"}]')],
  run(input) {
    decodeJournal(input);
  },
};
