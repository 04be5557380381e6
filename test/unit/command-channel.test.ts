// Needs: nothing.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import {
  CHANNEL_BLOCK_BYTES,
  CHANNEL_BYTES,
  CHANNEL_CONTROL_BYTES,
  CHANNEL_ERROR_ASKED,
  CHANNEL_ERROR_HEAD,
  CHANNEL_ERROR_TAIL,
  CHANNEL_GUEST_WAITS,
  CHANNEL_INPUT_CLOSED,
  CHANNEL_INPUT_END,
  CHANNEL_INPUT_HEAD,
  CHANNEL_INPUT_TAIL,
  CHANNEL_LAYOUT,
  CHANNEL_MONITOR_WAITS,
  CHANNEL_OPEN,
  CHANNEL_OUTPUT_ASKED,
  CHANNEL_OUTPUT_HEAD,
  CHANNEL_OUTPUT_TAIL,
  CHANNEL_RING_BYTES,
  CHANNEL_STATE,
  CHANNEL_VERSION,
  CHANNEL_WAITS_FOR_ALL,
  CHANNEL_WAITS_FOR_INPUT,
  CHANNEL_WAITS_FOR_REQUESTS,
  CommandChannel,
  type CommandOutput,
} from "../../devices/pseudo/command-channel.js";

const COUNTS = {
  1: { head: CHANNEL_OUTPUT_HEAD, tail: CHANNEL_OUTPUT_TAIL },
  2: { head: CHANNEL_ERROR_HEAD, tail: CHANNEL_ERROR_TAIL },
};

/** The guest's end, as guest/init/channel.h works. */
function rig() {
  const memory = new ArrayBuffer(CHANNEL_BYTES);
  const words = new Uint32Array(memory, 0, CHANNEL_CONTROL_BYTES / 4);
  const output = new Uint8Array(memory, CHANNEL_CONTROL_BYTES, CHANNEL_RING_BYTES);
  const input = new Uint8Array(memory, CHANNEL_CONTROL_BYTES + CHANNEL_RING_BYTES, CHANNEL_RING_BYTES);
  const error = new Uint8Array(memory, CHANNEL_CONTROL_BYTES + 2 * CHANNEL_RING_BYTES, CHANNEL_RING_BYTES);
  const count = { wakes: 0 };
  const channel = new CommandChannel(memory, () => count.wakes++);
  const get = (offset: number): number => words[offset / 4] ?? 0;
  const set = (offset: number, value: number): void => void (words[offset / 4] = value);
  return {
    memory,
    channel,
    count,
    get,
    set,
    write: (bytes: Uint8Array, to: CommandOutput = 1): number => {
      const { head: headAt, tail: tailAt } = COUNTS[to];
      const ring = to === 1 ? output : error;
      const head = get(headAt);
      const room = CHANNEL_RING_BYTES - ((head - get(tailAt)) >>> 0);
      const taken = Math.min(bytes.length, room);
      for (let i = 0; i < taken; i++) ring[((head + i) >>> 0) % CHANNEL_RING_BYTES] = bytes[i] ?? 0;
      set(headAt, head + taken);
      return taken;
    },
    read: (limit: number): number[] => {
      const tail = get(CHANNEL_INPUT_TAIL);
      const length = Math.min(limit, (get(CHANNEL_INPUT_HEAD) - tail) >>> 0);
      const bytes = Array.from({ length }, (_, i) => input[((tail + i) >>> 0) % CHANNEL_RING_BYTES] ?? 0);
      set(CHANNEL_INPUT_TAIL, tail + length);
      return bytes;
    },
  };
}

const pattern = (length: number): Uint8Array => Uint8Array.from({ length }, (_, i) => (i * 7 + (i >>> 8)) & 0xff);

describe("command channel", () => {
  it("every byte of both outputs comes in order, over the end of the ring, and neither in the other", () => {
    const r = rig();
    const sent = { 1: pattern(2_500_000), 2: pattern(1_700_000).reverse() };
    const seen = { 1: [] as number[], 2: [] as number[] };
    const at = { 1: 0, 2: 0 };
    while (at[1] < sent[1].length || at[2] < sent[2].length) {
      for (const output of [1, 2] as const) {
        at[output] += r.write(sent[output].subarray(at[output], at[output] + 150_000), output);
        for (let bytes = r.channel.peekOutput(output); bytes.length > 0; bytes = r.channel.peekOutput(output)) {
          for (const byte of bytes) seen[output].push(byte);
          r.channel.consumeOutput(bytes.length, output);
        }
      }
    }
    for (const output of [1, 2] as const) assert.deepEqual(Uint8Array.from(seen[output]), sent[output]);
  });

  it("a full ring of one output holds up nothing of the other", () => {
    const r = rig();
    assert.equal(r.write(pattern(CHANNEL_RING_BYTES + 1)), CHANNEL_RING_BYTES);
    assert.equal(r.write(pattern(10), 2), 10);
    assert.deepEqual(r.channel.peekOutput(2), pattern(10));
    r.channel.consumeOutput(10, 2);
    assert.deepEqual([r.get(CHANNEL_ERROR_TAIL), r.get(CHANNEL_OUTPUT_TAIL)], [10, 0]);
  });

  it("every byte of input comes in order; a full ring refuses, and asks once half of it is free", () => {
    const r = rig();
    const sent = pattern(2_500_000);
    const seen: number[] = [];
    let at = r.channel.putInput(sent);
    assert.equal(at, CHANNEL_RING_BYTES);
    assert.equal(r.get(CHANNEL_MONITOR_WAITS), 1);
    for (const byte of r.read(CHANNEL_RING_BYTES / 2 - 1)) seen.push(byte);
    assert.equal(r.channel.takeRoom(), false);
    seen.push(...r.read(1));
    assert.equal(r.channel.takeRoom(), true);
    assert.deepEqual([r.channel.takeRoom(), r.get(CHANNEL_MONITOR_WAITS)], [false, 0]);
    while (seen.length < sent.length) {
      at += r.channel.putInput(sent.subarray(at));
      for (const byte of r.read(130_000)) seen.push(byte);
    }
    assert.deepEqual(Uint8Array.from(seen), sent);
    assert.equal(r.get(CHANNEL_INPUT_END), 0);
    r.channel.endInput();
    assert.equal(r.get(CHANNEL_INPUT_END), 1);
  });

  it("a guest that sleeps is woken once, by input, by its end and by room; one that does not, is not", () => {
    const r = rig();
    r.channel.putInput(Uint8Array.of(1));
    assert.equal(r.count.wakes, 0);
    for (const [i, event] of [
      () => r.channel.putInput(Uint8Array.of(2)),
      () => r.channel.endInput(),
      () => {
        r.write(Uint8Array.of(3));
        r.channel.consumeOutput(r.channel.peekOutput().length);
      },
    ].entries()) {
      r.set(CHANNEL_GUEST_WAITS, 1);
      event();
      assert.deepEqual([r.count.wakes, r.get(CHANNEL_GUEST_WAITS)], [i + 1, 0]);
      event();
      assert.equal(r.count.wakes, i + 1);
    }
  });

  it("what only says that more may be sent wakes nobody who has enough; what goes on at once, nobody", () => {
    const r = rig();
    for (const [waits, urgency, wakes] of [
      [CHANNEL_WAITS_FOR_REQUESTS, "more", 0],
      [CHANNEL_WAITS_FOR_REQUESTS, "later", 0],
      [CHANNEL_WAITS_FOR_REQUESTS, "now", 1],
      [CHANNEL_WAITS_FOR_INPUT, "more", 0],
      [CHANNEL_WAITS_FOR_INPUT, "later", 1],
      [CHANNEL_WAITS_FOR_ALL, "later", 1],
      [0xffff_ffff, "now", 0],
    ] as const) {
      r.count.wakes = 0;
      r.set(CHANNEL_GUEST_WAITS, waits);
      assert.equal(r.channel.putInput(Uint8Array.of(1), urgency), 1);
      assert.equal(r.count.wakes, wakes, `${String(waits)} ${urgency}`);
    }
  });

  it("a guest whose ring is full is woken when half of it is free, and not for each piece; one that waits for input is not", () => {
    const r = rig();
    assert.equal(r.write(new Uint8Array(CHANNEL_RING_BYTES)), CHANNEL_RING_BYTES);
    r.set(CHANNEL_GUEST_WAITS, CHANNEL_WAITS_FOR_ALL);
    r.channel.consumeOutput(CHANNEL_RING_BYTES / 2 - 1);
    assert.equal(r.count.wakes, 0);
    r.channel.consumeOutput(1);
    assert.equal(r.count.wakes, 1);
    r.set(CHANNEL_GUEST_WAITS, CHANNEL_WAITS_FOR_INPUT);
    r.channel.consumeOutput(1);
    assert.equal(r.count.wakes, 1);
  });

  it("the guest is asked to ring once an output is empty, and what it puts meanwhile is seen", () => {
    const r = rig();
    assert.deepEqual([r.get(CHANNEL_OUTPUT_ASKED), r.get(CHANNEL_ERROR_ASKED)], [1, 1], "from the beginning");
    r.set(CHANNEL_OUTPUT_ASKED, 0);
    r.write(Uint8Array.of(1, 2));
    assert.equal(r.channel.viewOutput().length, 2);
    assert.equal(r.get(CHANNEL_OUTPUT_ASKED), 0, "it is being written: whoever writes it looks again");
    r.channel.consumeOutput(2);
    assert.equal(r.channel.viewOutput().length, 0);
    assert.equal(r.get(CHANNEL_OUTPUT_ASKED), 1);
  });

  it("a copy stays as it was, a view does not; a piece is a part of the ring", () => {
    const r = rig();
    r.write(Uint8Array.of(1, 2, 3));
    const [copy, view] = [r.channel.peekOutput(), r.channel.viewOutput()];
    new Uint8Array(r.memory)[CHANNEL_CONTROL_BYTES] = 9;
    assert.deepEqual(
      [[...copy], [...view]],
      [
        [1, 2, 3],
        [9, 2, 3],
      ],
    );
    r.write(new Uint8Array(CHANNEL_RING_BYTES));
    assert.equal(r.channel.viewOutput().length, CHANNEL_RING_BYTES / 4);
    assert.equal(r.channel.hasMuch(), true);
    assert.equal(r.channel.hasMuch(2), false);
  });

  it("is closed until the guest's init opens it, and then says whether somebody reads the input", () => {
    const r = rig();
    assert.deepEqual([r.get(CHANNEL_VERSION), r.channel.isOpen], [CHANNEL_LAYOUT, false]);
    r.set(CHANNEL_STATE, CHANNEL_OPEN);
    assert.deepEqual([r.channel.isOpen, r.channel.takesInput], [true, true]);
    assert.equal(r.channel.putInput(pattern(CHANNEL_RING_BYTES + 1)), CHANNEL_RING_BYTES);
    r.set(CHANNEL_STATE, CHANNEL_INPUT_CLOSED);
    assert.deepEqual([r.channel.isOpen, r.channel.takesInput, r.channel.takeRoom()], [true, false, true]);
    assert.equal(r.channel.putInput(pattern(2_000_000)), 2_000_000, "dropped, and no more is asked for");
  });

  it("what was meant for another monitor is dropped, of both outputs, over the end of the ring, and nothing after it", () => {
    const { channel, write, get, set } = rig();
    write(Buffer.alloc(CHANNEL_RING_BYTES));
    channel.consumeOutput(CHANNEL_RING_BYTES);
    write(Buffer.alloc(CHANNEL_RING_BYTES, "x"));
    write(Buffer.from("old error"), 2);
    channel.dropOutput();
    assert.deepEqual([channel.peekOutput(1).length, channel.peekOutput(2).length], [0, 0]);
    assert.equal(get(CHANNEL_OUTPUT_TAIL), 2 * CHANNEL_RING_BYTES);
    write(Buffer.from("new"));
    write(Buffer.from("new error"), 2);
    assert.deepEqual(
      [channel.peekOutput(1), channel.peekOutput(2)].map((bytes) => Buffer.from(bytes).toString()),
      ["new", "new error"],
    );
    // Nonsense stays nonsense.
    set(CHANNEL_ERROR_HEAD, get(CHANNEL_ERROR_TAIL) + CHANNEL_RING_BYTES + 1);
    channel.dropOutput();
    assert.equal(channel.peekOutput(2).length, 0);
    write(Buffer.from("more"), 2);
    assert.equal(channel.peekOutput(2).length, 0);
  });

  it("counts that no guest can have give no output, and no more than the ring has room for", () => {
    for (const output of [1, 2] as const) {
      for (const head of [CHANNEL_RING_BYTES + 1, 0x8000_0000, 0xffff_ffff]) {
        const r = rig();
        r.set(COUNTS[output].head, head);
        assert.equal(r.channel.peekOutput(output).length, 0);
        r.set(COUNTS[output].head, 5);
        assert.equal(r.channel.peekOutput(output).length, 0, "once broken, it stays so");
      }
    }
    for (const tail of [1, 0x7fff_ffff, 0x8000_0000]) {
      const r = rig();
      r.set(CHANNEL_INPUT_TAIL, tail);
      assert.equal(r.channel.putInput(pattern(CHANNEL_RING_BYTES)), 0);
      assert.equal(r.channel.takeRoom(), false);
    }
  });

  it("what the monitor has put and taken is its own: the guest cannot move it", () => {
    const r = rig();
    r.write(pattern(10));
    r.set(CHANNEL_OUTPUT_TAIL, 9);
    assert.equal(r.channel.peekOutput().length, 10);
    r.channel.putInput(pattern(10));
    r.set(CHANNEL_INPUT_HEAD, 99);
    r.channel.putInput(pattern(10));
    assert.equal(r.get(CHANNEL_INPUT_HEAD), 20);
  });

  it("once its memory is gone, it takes nothing, gives nothing and touches nothing", () => {
    const r = rig();
    r.set(CHANNEL_STATE, CHANNEL_OPEN);
    r.write(pattern(10));
    r.write(pattern(10), 2);
    r.channel.detach();
    const before = Buffer.from(r.memory.slice(0));
    r.channel.endInput();
    r.channel.consumeOutput(5);
    r.channel.consumeOutput(5, 2);
    assert.equal(r.channel.peekOutput(2).length, 0);
    assert.deepEqual([r.channel.putInput(pattern(5)), r.channel.peekOutput().length, r.channel.isOpen], [0, 0, false]);
    assert.deepEqual(Buffer.from(r.memory), before);
  });

  it("the guest's init has the same numbers", () => {
    const header = readFileSync("guest/init/channel.h", "utf8");
    for (const [name, value] of Object.entries({
      CHANNEL_LAYOUT,
      CHANNEL_CONTROL_BYTES,
      CHANNEL_RING_BYTES,
      CHANNEL_BLOCK_BYTES,
      CHANNEL_WAITS_FOR_ALL,
      CHANNEL_WAITS_FOR_INPUT,
      CHANNEL_WAITS_FOR_REQUESTS,
      CHANNEL_OPEN,
      CHANNEL_INPUT_CLOSED,
    })) {
      assert.equal(Number(new RegExp(`#define ${name} (\\w+)`).exec(header)?.[1]), value, name);
    }
    const fields = [...(/struct channel \{(.*?)\};/s.exec(header)?.[1] ?? "").matchAll(/volatile unsigned ([^;]*);/g)];
    assert.deepEqual(
      fields.flatMap(([, names = ""]) => names.split(", ")),
      ["output_head", "output_tail", "input_head", "input_tail", "input_end", "state", "guest_waits", "version"].concat(
        ["monitor_waits", "looks", "error_head", "error_tail", "output_asked", "error_asked"],
      ),
    );
  });
});
