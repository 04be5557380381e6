// Needs: nothing. The metadata service's ARP and TCP, with a guest that a test plays.
import assert from "node:assert/strict";
import { MAX_REQUEST_BYTES } from "../../devices/mmds/http.js";
import { MmdsResponder } from "../../devices/mmds/responder.js";
import { MAX_CONNECTIONS, MAX_REFUSALS } from "../../devices/mmds/tcp-endpoint.js";
import { ACK, FIN, RST, SYN, type Segment } from "../../devices/mmds/wire.js";
import { frameOf, framesFrom, GUEST, GuestConnection, MMDS, MMDS_ADDRESS, segmentsOf } from "../helpers/mmds-guest.js";

const GET = "GET /a HTTP/1.1\r\n\r\n";

interface Rig {
  readonly responder: MmdsResponder;
  readonly at: (ms: number) => void;
}

/** Answers with the path, or with `body`. */
function rig(body?: string): Rig {
  let nowMs = 0;
  const responder = new MmdsResponder({
    address: MMDS_ADDRESS,
    answer: ({ path }) => ({ status: 200, type: "text/plain", body: body ?? path }),
    // The SYN's number, and all after it, wrap.
    random: () => 0xffff_fffe,
    now: () => nowMs,
  });
  return { responder, at: (ms) => void (nowMs = ms) };
}

function bodyOf(answer: string): string {
  return answer.slice(answer.indexOf("\r\n\r\n") + 4);
}

function arp(change: (frame: Uint8Array) => void = () => undefined): Uint8Array {
  const packet = [0, 1, 8, 0, 6, 4, 0, 1, ...GUEST.mac, 169, 254, 1, 2, 0, 0, 0, 0, 0, 0, 169, 254, 169, 254];
  const frame = Uint8Array.from([...Array.from({ length: 6 }, () => 0xff), ...GUEST.mac, 8, 6, ...packet]);
  change(frame);
  return frame;
}

describe("mmds: frames", () => {
  it("are for the service by the address that they ask for or go to, whatever their MAC address", () => {
    const { responder } = rig();
    assert.equal(responder.isFor(arp()), true);
    assert.equal(responder.isFor(arp((frame) => frame.fill(1, 38, 42))), false);
    assert.equal(responder.isFor(frameOf(1, { flags: SYN })), true);
    assert.equal(responder.isFor(frameOf(1, { flags: SYN }).fill(9, 30, 34)), false, "another address");
    assert.equal(responder.isFor(frameOf(1, { flags: SYN }).fill(0x86, 12, 13)), false, "IPv6");
    for (let length = 0; length < 34; length++) {
      assert.equal(responder.isFor(arp().subarray(0, length)), false);
      assert.equal(responder.isFor(frameOf(1, { flags: SYN }).subarray(0, length)), false);
    }
  });

  it("ARP: who asks is told, and nobody else", () => {
    const { responder } = rig();
    responder.receive(arp());
    const expected = [...GUEST.mac, ...MMDS.mac, 8, 6, 0, 1, 8, 0, 6, 4, 0, 2, ...MMDS.mac, 169, 254, 169, 254];
    assert.deepEqual(framesFrom(responder), [Uint8Array.from([...expected, ...GUEST.mac, 169, 254, 1, 2])]);
    for (const at of [14, 16, 18, 19, 21]) responder.receive(arp((frame) => frame.fill(7, at, at + 1)));
    assert.deepEqual(framesFrom(responder), []);
    for (let count = 0; count < 100; count++) responder.receive(arp());
    assert.equal(framesFrom(responder).length, 4, "a guest that takes nothing makes nothing grow");
  });

  it("fragments, other protocols and headers that lie are dropped", () => {
    const { responder } = rig();
    const wrong: [number, number][] = [
      [14, 0x65], // Version 6.
      [14, 0x44], // A header of 16 bytes.
      [14, 0x4f], // One of 60, where there are fewer.
      [20, 0x20], // More fragments.
      [21, 0x01], // A fragment.
      [23, 17], // UDP.
      [46, 0x40], // TCP's header of 16 bytes.
      [46, 0xf0], // Of 60.
      [16, 0], // A length of nothing.
    ];
    for (const [at, value] of wrong) {
      const frame = frameOf(1, { flags: SYN });
      frame[at] = value;
      if (at === 16) frame[17] = 0;
      responder.receive(frame);
      assert.deepEqual(framesFrom(responder), [], `${String(at)}: ${String(value)}`);
    }
    assert.equal(responder.connectionCount, 0);
  });
});

describe("mmds: TCP", () => {
  it("opens, answers, goes on, and ends when the guest ends it", () => {
    const { responder } = rig();
    const guest = new GuestConnection(responder).open();
    assert.equal(bodyOf(guest.ask(GET)), "/a");
    assert.equal(bodyOf(guest.ask("GET /b HTTP/1.1\r\n\r\n")), "/b");
    assert.equal(responder.connectionCount, 1);
    guest.end();
    guest.take();
    assert.deepEqual([guest.hasEnded, responder.connectionCount, guest.wasRefused], [true, 0, false]);
  });

  it("ends by itself after the last answer, and is gone when the guest has ended its side", () => {
    const { responder } = rig();
    const guest = new GuestConnection(responder).open();
    assert.equal(bodyOf(guest.ask("GET /a HTTP/1.0\r\n\r\n")), "/a");
    assert.equal(guest.hasEnded, true);
    guest.end();
    guest.take();
    assert.equal(responder.connectionCount, 0);
  });

  it("a request that comes byte by byte, and several at once", () => {
    const { responder } = rig();
    const guest = new GuestConnection(responder).open();
    for (const byte of GET) guest.write(byte);
    assert.equal(bodyOf(guest.take().received), "/a");
    guest.received = "";
    guest.write(["/1", "/2", "/3"].map((path) => `GET ${path} HTTP/1.1\r\n\r\n`).join(""));
    guest.take();
    assert.deepEqual(guest.received.match(/\/[123]$|\/[123](?=HTTP)/g), ["/1", "/2", "/3"]);
  });

  it("a long answer in segments that are no longer than the guest takes, within its window", () => {
    const body = "x".repeat(50_000);
    for (const [mss, window, largest] of [
      [undefined, 0xffff, 536],
      [1460, 0xffff, 1460],
      [9000, 0xffff, 1460],
      [1, 0xffff, 64],
      [1000, 2500, 1000],
      [1460, 700, 700],
    ] as const) {
      const { responder } = rig(body);
      const guest = new GuestConnection(responder).open(mss);
      guest.window = window;
      guest.write(GET);
      const first = guest.segments();
      assert.equal(Math.max(...first.map(({ payload }) => payload.length)), largest, String(mss));
      assert.ok(first.reduce((sum, { payload }) => sum + payload.length, 0) <= window);
      guest.send({ sequence: guest.sequence, window });
      for (const { payload } of first) {
        guest.received += Buffer.from(payload).toString("latin1");
        guest.expected = (guest.expected + payload.length) >>> 0;
      }
      guest.send({});
      guest.take();
      assert.ok(bodyOf(guest.received) === body, String(mss));
    }
  });

  it("what is lost is sent again, later and later, and at last the connection is given up", () => {
    const { responder, at } = rig();
    const guest = new GuestConnection(responder).open();
    guest.write(GET);
    const [first] = guest.segments();
    assert.ok(first !== undefined && first.payload.length > 0);
    let nowMs = 0;
    const gaps: number[] = [];
    let last: Segment | undefined;
    for (let tries = 0; tries < 20 && responder.dueMs !== Infinity; tries++) {
      assert.deepEqual(guest.segments(), [], "nothing before it is due");
      gaps.push(responder.dueMs - nowMs);
      nowMs = responder.dueMs;
      at(nowMs);
      const again = guest.segments();
      assert.equal(again.length, 1);
      [last] = again;
      if (tries < 8) assert.deepEqual(last?.payload, first.payload);
    }
    assert.deepEqual(gaps, [400, 800, 1600, 3200, 6400, 10_000, 10_000, 10_000, 10_000]);
    assert.deepEqual([(last?.flags ?? 0) & RST, responder.connectionCount], [RST, 0]);
  });

  it("one that was lost and comes late goes on where it was", () => {
    const { responder, at } = rig("y".repeat(5000));
    const guest = new GuestConnection(responder).open(1000);
    guest.write(GET);
    const [first] = guest.segments();
    assert.ok(first !== undefined);
    // The rest is lost.
    guest.received = Buffer.from(first.payload).toString("latin1");
    guest.expected = (guest.expected + first.payload.length) >>> 0;
    guest.send({});
    assert.deepEqual(guest.segments(), []);
    at(400);
    guest.take();
    assert.ok(bodyOf(guest.received) === "y".repeat(5000));
  });

  it("a SYN that is lost on its way back comes again, and so does the guest's", () => {
    const { responder, at } = rig();
    const syn = frameOf(7, { sequence: 99, flags: SYN });
    responder.receive(syn);
    const [lost] = segmentsOf(framesFrom(responder));
    responder.receive(syn);
    assert.deepEqual(segmentsOf(framesFrom(responder)), [lost]);
    at(400);
    assert.deepEqual(segmentsOf(framesFrom(responder)), [lost]);
    assert.equal(responder.connectionCount, 1);
  });

  it("a window of nothing is asked about, byte by byte, and answered when it opens", () => {
    const { responder, at } = rig("z".repeat(100));
    const guest = new GuestConnection(responder).open();
    guest.window = 0;
    guest.write(GET);
    assert.ok(guest.segments().every(({ payload }) => payload.length === 0));
    at(responder.dueMs);
    assert.deepEqual(
      guest.segments().map(({ payload }) => payload.length),
      [1],
    );
    guest.window = 1000;
    guest.send({});
    guest.take();
    at(10_000);
    guest.take();
    assert.equal(bodyOf(guest.received), "z".repeat(100));
  });

  it("out of order is dropped and asked for again; what has come already is cut off", () => {
    const { responder } = rig();
    const guest = new GuestConnection(responder).open();
    const half = Math.floor(GET.length / 2);
    guest.send({ sequence: (guest.sequence + half) >>> 0, payload: Buffer.from(GET.slice(half)) });
    const [ack] = guest.segments();
    assert.deepEqual([ack?.flags, ack?.acknowledgement], [ACK, guest.sequence]);
    guest.write(GET.slice(0, half));
    guest.send({ sequence: (guest.sequence - half) >>> 0, payload: Buffer.from(GET) });
    guest.sequence = (guest.sequence + GET.length - half) >>> 0;
    assert.equal(bodyOf(guest.take().received), "/a");
    // All of it once more.
    guest.send({ sequence: (guest.sequence - GET.length) >>> 0, payload: Buffer.from(GET) });
    assert.deepEqual(
      guest.segments().map(({ payload, acknowledgement }) => [payload.length, acknowledgement]),
      [[0, guest.sequence]],
    );
  });

  it("more than there is room for is not taken, and the window says so", () => {
    const { responder } = rig();
    const guest = new GuestConnection(responder).open();
    const junk = new Uint8Array(MAX_REQUEST_BYTES - 10).fill(0x61);
    guest.write(junk);
    assert.equal(guest.segments().at(-1)?.window, 10);
    guest.send({ payload: new Uint8Array(1000).fill(0x61) });
    guest.sequence = (guest.sequence + 10) >>> 0;
    guest.take();
    assert.match(guest.received, /^HTTP\/1\.1 413 /);
    assert.equal(guest.hasEnded, true);
  });

  it("ports and segments that nobody waits for are refused, a refusal is not", () => {
    const { responder } = rig();
    responder.receive(frameOf(7, { flags: SYN, sequence: 100 }, 443));
    responder.receive(frameOf(7, { flags: ACK, sequence: 100, acknowledgement: 55 }));
    responder.receive(frameOf(7, { flags: RST, sequence: 100 }));
    responder.receive(frameOf(7, { flags: FIN, sequence: 5, payload: Uint8Array.of(1, 2) }));
    assert.deepEqual(
      segmentsOf(framesFrom(responder)).map(({ flags, sequence, acknowledgement }) => [
        flags,
        sequence,
        acknowledgement,
      ]),
      [
        [RST | ACK, 0, 101],
        [RST, 55, 0],
        [RST | ACK, 0, 8],
      ],
    );
    for (let count = 0; count < 1000; count++) responder.receive(frameOf(7, { flags: ACK }));
    assert.equal(framesFrom(responder).length, MAX_REFUSALS);
  });

  it("so many connections and no more; one that is silent makes room", () => {
    const { responder, at } = rig();
    const guests = Array.from({ length: MAX_CONNECTIONS }, (_, index) =>
      new GuestConnection(responder, index + 1).open(),
    );
    assert.equal(new GuestConnection(responder, 5000).open().wasRefused, true);
    assert.equal(bodyOf(guests[0]?.ask(GET) ?? ""), "/a");
    at(1000);
    assert.equal(bodyOf(guests[0]?.ask(GET) ?? ""), "/a");
    assert.equal(bodyOf(new GuestConnection(responder, 5000).open().ask(GET)), "/a");
    assert.equal(responder.connectionCount, MAX_CONNECTIONS);
    // The second was silent longest.
    guests[1]?.ask(GET);
    assert.deepEqual([guests[1]?.wasRefused, guests[2]?.ask(GET).length !== 0], [true, true]);
  });

  it("a reset ends it, if it is the guest's; one that is guessed does not", () => {
    const { responder } = rig();
    const guest = new GuestConnection(responder).open();
    guest.send({ flags: RST, sequence: (guest.sequence + 5) >>> 0 });
    assert.equal(bodyOf(guest.ask(GET)), "/a");
    guest.send({ flags: RST });
    assert.equal(responder.connectionCount, 0);
    assert.deepEqual(guest.segments(), []);
  });

  it("a driver that begins anew finds nobody who remembers it", () => {
    const { responder } = rig();
    const guest = new GuestConnection(responder).open();
    responder.receive(arp());
    responder.reset();
    assert.deepEqual([framesFrom(responder), responder.connectionCount, responder.dueMs], [[], 0, Infinity]);
    guest.ask(GET);
    assert.equal(guest.wasRefused, true);
  });

  it("an acknowledgement of what was never sent changes nothing", () => {
    const { responder } = rig();
    const guest = new GuestConnection(responder).open();
    guest.send({ acknowledgement: (guest.expected + 1000) >>> 0, payload: Buffer.from(GET) });
    assert.ok(guest.segments().every(({ payload }) => payload.length === 0));
    assert.equal(bodyOf(guest.ask(GET)), "/a");
  });
});
