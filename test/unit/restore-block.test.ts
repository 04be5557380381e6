// Needs: nothing. What a guest that begins with a template is told.
import assert from "node:assert/strict";
import { CHANNEL_BYTES, CHANNEL_CONTROL_BYTES, CommandChannel } from "../../devices/pseudo/command-channel.js";
import {
  MAX_STRINGS,
  PROGRAM_RANDOM_BYTES,
  SEED_BYTES,
  encodeRestoreBlock,
  type RestoreBlock,
} from "../../devices/pseudo/restore-block.js";

const words = (...text: string[]): Uint8Array[] => text.map((word) => Buffer.from(word));

const BLOCK: RestoreBlock = {
  command: words("echo", "a b"),
  variables: words("TERM=xterm"),
  hostName: "one",
  folder: Buffer.from("/tmp"),
  terminal: { rows: 24, columns: 80 },
  generation: 0xfedc_ba98,
  wallClock: 1_700_000_000_123_456_789n,
  seed: new Uint8Array(SEED_BYTES).fill(7),
  programRandom: new Uint8Array(PROGRAM_RANDOM_BYTES).fill(9),
};

function openChannel(): { memory: ArrayBuffer; channel: CommandChannel } {
  const memory = new ArrayBuffer(CHANNEL_BYTES);
  const channel = new CommandChannel(memory, () => undefined);
  // As the guest's init does.
  new Uint32Array(memory)[0x14 / 4] = 1;
  return { memory, channel };
}

describe("restore-block", () => {
  it("has every field where guest/init/template.h reads it", () => {
    const bytes = encodeRestoreBlock(BLOCK) ?? new Uint8Array(0);
    const view = new DataView(bytes.buffer);
    assert.equal(view.getUint32(0, true), bytes.length);
    assert.deepEqual(
      [4, 8, 12].map((at) => view.getUint32(at, true)),
      [2, 1, 1],
    );
    assert.deepEqual(
      [16, 18].map((at) => view.getUint16(at, true)),
      [24, 80],
    );
    assert.equal(view.getUint32(20, true), 0xfedc_ba98);
    assert.deepEqual(
      [24, 32].map((at) => view.getBigInt64(at, true)),
      [1_700_000_000n, 123_456_789n],
    );
    assert.deepEqual(bytes.subarray(40, 72), BLOCK.seed);
    assert.deepEqual(bytes.subarray(72, 88), BLOCK.programRandom);
    assert.equal(Buffer.from(bytes.subarray(88)).toString("latin1"), "one\0/tmp\0echo\0a b\0TERM=xterm\0");
  });

  it("flags: a terminal, a program that is to be held at its start, another host", () => {
    const flags = (block: Partial<RestoreBlock>): number | undefined =>
      encodeRestoreBlock({ ...BLOCK, ...block })?.[12];
    assert.deepEqual(
      [
        { terminal: undefined },
        {},
        { holdsProgram: true },
        { terminal: undefined, holdsProgram: true },
        { terminal: undefined, hasOtherHost: true },
        { holdsProgram: true, hasOtherHost: true },
      ].map(flags),
      [0, 1, 3, 2, 4, 7],
    );
  });

  it("a guest is woken for a notice, unless its init is about to look for one", () => {
    for (const looks of [0, 1]) {
      let woken = 0;
      const memory = new ArrayBuffer(CHANNEL_BYTES);
      const channel = new CommandChannel(memory, () => woken++);
      new Uint32Array(memory)[0x14 / 4] = 1;
      new Uint32Array(memory)[0x24 / 4] = looks;
      assert.equal(channel.putNotice(Uint8Array.of(1, 2)), true);
      assert.deepEqual([woken, ...new Uint8Array(memory, 0x100, 2)], [1 - looks, 1, 2]);
    }
  });

  it("what does not fit is refused: 128 KiB in all, 2,048 words", () => {
    const longest = 0x2_0000 - 88 - 2 - 1;
    const block = { ...BLOCK, variables: [], hostName: undefined, folder: undefined };
    const fits = (command: Uint8Array[]): boolean => encodeRestoreBlock({ ...block, command }) !== undefined;
    assert.deepEqual([fits([new Uint8Array(longest)]), fits([new Uint8Array(longest + 1)])], [true, false]);
    const many = (count: number): Uint8Array[] => new Array<Uint8Array>(count).fill(Buffer.from("x"));
    assert.deepEqual([fits(many(MAX_STRINGS)), fits(many(MAX_STRINGS + 1))], [true, false]);
    const variables = (count: number): boolean =>
      encodeRestoreBlock({ ...block, command: words("x"), variables: many(count) }) !== undefined;
    assert.deepEqual([variables(MAX_STRINGS), variables(MAX_STRINGS + 1)], [true, false]);
    // One of each too many does not make up for the other.
    const both = { ...block, command: many(MAX_STRINGS + 1), variables: many(MAX_STRINGS + 1) };
    assert.equal(encodeRestoreBlock(both), undefined);
  });

  it("a guest that waits finds it at the beginning of its output; one that has a command is left alone", () => {
    const bytes = encodeRestoreBlock(BLOCK) ?? new Uint8Array(0);
    const { memory, channel } = openChannel();
    assert.equal(channel.putRestoreBlock(bytes), true);
    assert.deepEqual(new Uint8Array(memory, CHANNEL_CONTROL_BYTES, bytes.length), bytes);
    // Output has been written; input has been read; no init is there.
    for (const at of [0x00, 0x0c]) {
      const other = openChannel();
      new Uint32Array(other.memory)[at / 4] = 1;
      assert.equal(other.channel.putRestoreBlock(bytes), false);
    }
    assert.equal(new CommandChannel(new ArrayBuffer(CHANNEL_BYTES), () => undefined).putRestoreBlock(bytes), false);
  });
});
