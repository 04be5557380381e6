// Needs: nothing. The reader of saved state, given what no saver has written.
import assert from "node:assert/strict";
import { base64, hex64, StateError, StateReader } from "../../devices/state.js";

function read(value: unknown): StateReader {
  return new StateReader(value, "state");
}

function refused(action: () => unknown, message: string): void {
  assert.throws(action, (error) => {
    assert.ok(error instanceof StateError);
    assert.equal(error.message, message);
    assert.ok(error.message.startsWith(`${error.path} `));
    return true;
  });
}

const BYTE = { minimum: 0, maximum: 255 };

describe("state", () => {
  it("an object has exactly the fields that are asked for", () => {
    const object = read({ b: 2, a: 1 });
    object.only(["a", "b"]);
    assert.deepEqual([object.integer("a", BYTE), object.at("b").path], [1, "state.b"]);
    refused(() => read({ a: 1 }).only(["a", "b"]), 'state lacks "b"');
    refused(() => read({ a: 1, c: 1 }).only(["a"]), 'state has an unknown field "c"');
    refused(() => read(JSON.parse('{"__proto__":{}}')).only([]), 'state has an unknown field "__proto__"');
    refused(() => read({}).at("toString"), 'state lacks "toString"');
    refused(() => read({ a: 1, b: 2 }).names(1), "state has 2 fields, more than 1");
    for (const value of [null, [], "a", 1, true, undefined]) {
      assert.throws(() => read(value).only([]), /^StateError: state .* is not an object$/);
    }
  });

  it("a whole number is exact and within its limits", () => {
    assert.equal(read(255).asInteger(BYTE), 255);
    assert.equal(read(-5).asInteger({ minimum: -5, maximum: 5 }), -5);
    refused(() => read({ a: 256 }).integer("a", BYTE), "state.a 256 is not a whole number from 0 to 255");
    for (const value of [0.5, NaN, Infinity, 2 ** 53, -0, -1, "1", null, 1n, [1]]) {
      assert.throws(() => read(value).asInteger({ minimum: 0, maximum: Infinity }), StateError);
    }
    for (const value of [NaN, 2, "1", null]) {
      assert.throws(() => read(value).asNumber({ minimum: 0, maximum: 1.5 }), StateError);
    }
  });

  it("64 bits and bytes are text of one form only", () => {
    for (const value of [0n, 0xffff_ffff_ffff_ffffn]) assert.equal(read(hex64(value)).asHex64(), value);
    for (const value of ["0x", "1", "0X1", "0x10000000000000000", "0x1 ", "-0x1", "0xG", 1, null]) {
      assert.throws(() => read(value).asHex64(), StateError);
    }
    assert.throws(() => read("0x100").asHex64(0xffn), /^StateError: state "0x100" is not a number from 0x0 to 0xff/);
    const bytes = Uint8Array.of(1, 2, 3, 250);
    assert.deepEqual(read(base64(bytes)).asBytes(4), bytes);
    assert.deepEqual(read(base64(bytes.subarray(1, 3))).asBytes({ minimum: 0, maximum: 2 }), bytes.slice(1, 3));
    for (const value of ["AQID", "AQID+g=", "AQID!A==", "", "AQID-g==", "AQI=AQI=", 4, null, "A".repeat(100)]) {
      assert.throws(() => read(value).asBytes(4), /^StateError: state .* is not base64 of 4 bytes/);
    }
  });

  it("lists, texts and choices keep their limits", () => {
    const list = read([1, 2]).asList({ minimum: 0, maximum: 2 });
    assert.deepEqual(
      list.map((entry) => [entry.path, entry.asInteger(BYTE)]),
      [
        ["state[0]", 1],
        ["state[1]", 2],
      ],
    );
    refused(() => read([1]).asList(2), "state has 1 entries; there may be 2");
    refused(() => read({ length: 1 }).asList(1), "state an object is not a list");
    refused(() => read("four").asText(3), 'state "four" is not a text of at most 3 characters');
    refused(() => read(1).asBoolean(), "state 1 is not true or false");
    refused(() => read("c").asOneOf(["a", "b"]), 'state "c" is not one of a, b');
  });

  it("a message shows little of a long value, and nothing that a terminal would obey", () => {
    refused(() => read("x".repeat(1000)).asBoolean(), `state "${"x".repeat(39)}... is not true or false`);
    refused(() => read("\u001b[2J").asBoolean(), 'state "\\u001b[2J" is not true or false');
    refused(() => read({ "\u001b[2J": 1 }).boolean("\u001b[2J"), 'state["\\u001b[2J"] 1 is not true or false');
  });
});
