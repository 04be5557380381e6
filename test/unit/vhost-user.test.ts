// Needs: nothing. vhost-user's messages as bytes, and a back end that is played by a test over a socket pair.
import assert from "node:assert/strict";
import { closeSync, fstatSync, readSync, writeSync } from "node:fs";
import { MappedGuestMemory } from "../../vmm/memory/guest-memory.js";
import { GIB, MIB } from "../../vmm/memory/layout.js";
import { hasInput, MessageSender, receiveAll } from "../../vmm/sys/messages.js";
import { sharedMemory } from "../../vmm/sys/shared-memory.js";
import { streamPair } from "../../vmm/sys/sockets.js";
import {
  isReplyTo,
  memoryMessage,
  ringAddressesMessage,
  ringEventMessage,
  ringStateMessage,
  u64Message,
  vhostMessage,
} from "../../vmm/virtio/backends/vhost-user-messages.js";
import { MappedGuestPages } from "../../vmm/virtio/backends/guest-pages.js";
import { VhostUser } from "../../vmm/virtio/backends/vhost-user.js";

const hex = (bytes: Uint8Array): string => Buffer.from(bytes).toString("hex");
/** Little-endian words of 32 bits. */
const words = (...values: number[]): string =>
  values.map((value) => Buffer.from(Uint32Array.of(value).buffer).toString("hex")).join("");

describe("vhost-user: messages", () => {
  // QEMU, "Vhost-user Protocol": "Message Specification".
  it("lie in memory as the specification has them", () => {
    assert.equal(hex(vhostMessage(3)), words(3, 1, 0));
    assert.equal(hex(u64Message(2, 0x1_4000_0000n)), words(2, 1, 8, 0x4000_0000, 1));
    assert.equal(hex(ringStateMessage(8, 1, 512)), words(8, 1, 8, 1, 512));
    assert.equal(hex(ringEventMessage(12, 1, true)), words(12, 1, 8, 1, 0));
    assert.equal(hex(ringEventMessage(13, 1, false)), words(13, 1, 8, 0x101, 0));
    const addresses = { descriptorHva: 0x7f00_0000_1000, usedHva: 0x7f00_0000_3000, availableHva: 0x7f00_0000_2000 };
    assert.equal(
      hex(ringAddressesMessage(1, addresses)),
      words(9, 1, 40, 1, 0, 0x1000, 0x7f00, 0x3000, 0x7f00, 0x2000, 0x7f00, 0, 0),
    );
    const low = { gpa: 0, size: 3 * GIB, hva: 0x7f00_0000_0000, offset: 0 };
    const high = { gpa: 4 * GIB, size: GIB, hva: 0x7f00_c000_0000, offset: 3 * GIB };
    assert.equal(
      hex(memoryMessage([low, high])),
      words(
        5,
        1,
        72,
        2,
        0,
        0,
        0,
        0xc000_0000,
        0,
        0,
        0x7f00,
        0,
        0,
        0,
        1,
        0x4000_0000,
        0,
        0xc000_0000,
        0x7f00,
        0xc000_0000,
        0,
      ),
    );
  });

  it("an answer is one to this request, of this version and size", () => {
    const answers = (...header: number[]): boolean => isReplyTo(1, 8, new DataView(Uint32Array.from(header).buffer));
    assert.ok(answers(1, 5, 8));
    for (const header of [
      [2, 5, 8],
      [1, 1, 8],
      [1, 6, 8],
      [1, 5, 12],
    ])
      assert.ok(!answers(...header), String(header));
  });
});

describe("vhost-user: over a socket", () => {
  let own = -1;
  let other = -1;
  let vhost: VhostUser;

  beforeEach(() => {
    [own, other] = streamPair();
    vhost = new VhostUser(own);
  });
  afterEach(() => {
    vhost.close();
    closeSync(own);
    if (other >= 0) closeSync(other);
  });

  const soon = (): number => performance.now() + 50;
  const reply = (request: number, value: bigint): Uint8Array => {
    const bytes = u64Message(request, value);
    bytes[4] = 5;
    return bytes;
  };
  function sent(): string {
    const bytes = Buffer.alloc(4096);
    return hex(bytes.subarray(0, readSync(other, bytes)));
  }

  it("asks for what the back end can, and takes of its own features only what it needs", () => {
    // The answers lie ready: the front end reads one at a time.
    writeSync(other, reply(1, 0x1_7500_0000n));
    writeSync(other, reply(15, 0x8c2bn));
    assert.equal(vhost.begin(soon()), 0x1_7500_0000n);
    assert.equal(sent(), words(3, 1, 0, 1, 1, 0, 15, 1, 0, 16, 1, 8, 1, 0));
    vhost.setFeatures(0x1_3000_0000n);
    assert.equal(sent(), words(2, 1, 8, 0x7000_0000, 1));
  });

  it("an answer in pieces is one; one that is wrong, late or missing is none, and costs no more than its time", () => {
    writeSync(other, reply(11, 7n).subarray(0, 9));
    writeSync(other, reply(11, 7n).subarray(9));
    assert.ok(vhost.stopQueue(0, soon()));
    writeSync(other, reply(12, 7n));
    assert.ok(!vhost.stopQueue(0, soon()));
    const start = performance.now();
    assert.ok(!vhost.stopQueue(0, soon()));
    const waited = performance.now() - start;
    assert.ok(waited >= 45 && waited < 5000, String(waited));
    writeSync(other, reply(11, 7n).subarray(0, 19));
    assert.ok(!vhost.stopQueue(0, soon()));
    closeSync(other);
    other = -1;
    assert.ok(!receiveAll(own, new Uint8Array(1), performance.now() + 10_000));
    assert.throws(() => vhost.stopQueue(0, soon()), { code: "ERR_SYSTEM_CALL", errnoName: "EPIPE" });
  });

  it("a back end that reads nothing is an error, not a wait", () => {
    assert.throws(
      () => {
        for (;;) vhost.setFeatures(0n);
      },
      { code: "ERR_SYSTEM_CALL", errnoName: "EAGAIN" },
    );
    assert.ok(!hasInput(own));
  });

  it("gives the descriptor of guest memory once a region, and only memory that can be shared", () => {
    const alone = MappedGuestMemory.map(MIB);
    const own = { fd: 0, region: { gpa: 2 ** 46, size: 4096, hva: 4096, offset: 0 } };
    assert.throws(() => vhost.setMemory(alone, own), /no other process can have/);
    alone.unmap();
    const size = 3 * GIB + MIB;
    const memory = MappedGuestMemory.mapShared(sharedMemory("test", size), size);
    vhost.setMemory(memory, own);
    // A file whose size nobody can change, whoever has it.
    assert.equal(fstatSync(memory.sharedFd ?? -1).size, size);
    assert.throws(() => fstatSync(-1));
    const base = memory.hostAddress;
    const halves = (value: number): number[] => [value % 2 ** 32, Math.floor(value / 2 ** 32)];
    const regions = [
      [0, 3 * GIB, base, 0],
      [4 * GIB, MIB, base + 3 * GIB, 3 * GIB],
      [2 ** 46, 4096, 4096, 0],
    ];
    assert.equal(sent(), words(5, 1, 104, 3, 0, ...regions.flatMap((region) => region.flatMap(halves))));
    memory.unmap();
    assert.throws(() => fstatSync(memory.sharedFd ?? -1), { code: "EBADF" });
  });

  it("a balloon gives shared memory back, for every process that has it", () => {
    const memory = MappedGuestMemory.mapShared(sharedMemory("test", MIB), MIB);
    const used = (): number => fstatSync(memory.sharedFd ?? -1).blocks * 512;
    memory.slice(0, MIB).fill(7);
    assert.equal(used(), MIB);
    assert.equal(new MappedGuestPages(memory).release(4096, MIB / 2), 0);
    assert.equal(used(), MIB / 2);
    assert.deepEqual([memory.readU8(4095), memory.readU8(4096), memory.readU8(4096 + MIB / 2)], [7, 0, 7]);
    memory.unmap();
  });

  it("refuses messages that do not fit", () => {
    const sender = new MessageSender();
    assert.throws(() => sender.send(own, new Uint8Array(4000)), RangeError);
    assert.throws(() => sender.send(own, new Uint8Array(4), new Array<number>(9).fill(0)), RangeError);
    sender.close();
  });
});
