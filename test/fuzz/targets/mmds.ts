// The metadata service under a guest that sends frames of every kind: broken, out of order, of connections that are open,
// half open or gone, and takes what it likes of the answers.
import assert from "node:assert/strict";
import { HttpSession } from "../../../devices/mmds/http.js";
import { MAX_LOOK_BYTES, MmdsResponder } from "../../../devices/mmds/responder.js";
import { mmdsService } from "../../../devices/mmds/service.js";
import { MAX_CONNECTIONS } from "../../../devices/mmds/tcp-endpoint.js";
import { ACK, FIN, PSH, readSegment, RST, SYN } from "../../../devices/mmds/wire.js";
import { frameOf, GuestConnection, MMDS_ADDRESS } from "../../helpers/mmds-guest.js";
import type { Random } from "../random.js";
import type { FuzzTarget } from "../target.js";

const PIECES = [
  ...[
    "GET ",
    "PUT ",
    "POST ",
    "/",
    "/latest",
    "/latest/api/token",
    "/~1~0",
    " HTTP/1.1",
    " HTTP/1.0",
    "\r\n",
    "\r\n\r\n",
    "\n",
  ],
  ...[
    "Accept: application/json",
    "X-metadata-token: ",
    "X-metadata-token-ttl-seconds: 60",
    "Content-Length: ",
    "5",
    "99999999",
  ],
  ...["Connection: close", "Transfer-Encoding: chunked", ": ", "\0", "\u00e9", "a".repeat(500)],
];
const FLAGS = [0, ACK, SYN, SYN | ACK, RST, RST | ACK, FIN | ACK, PSH | ACK, 0xff];
const DOCUMENT = { latest: { a: ["b", 1], long: "x".repeat(5000) } };
const FRAMES = 60;

function requestText(random: Random): string {
  if (random.oneIn(3)) return "GET /latest HTTP/1.1\r\nX-metadata-token: t\r\n\r\n".repeat(1 + random.below(3));
  return Array.from({ length: random.below(12) }, () => random.pick(PIECES)).join("");
}

/** A number near the ones that count, or any. */
function near(random: Random, value: number): number {
  if (random.oneIn(2)) return value;
  return random.oneIn(2) ? (value + random.below(3000) - 1500) >>> 0 : random.value();
}

export const mmdsTarget: FuzzTarget = {
  name: "mmds",
  run(random: Random) {
    let nowMs = 0;
    const source = { value: random.pick([DOCUMENT, null, "text", 5]) as unknown };
    const tokens = { issue: () => "t", isValid: (token: string) => token === "t" };
    const version = random.pick(["V1", "V2"] as const);
    const answer = mmdsService({ version, imdsCompat: random.oneIn(2), source, tokens });
    const responder = new MmdsResponder({
      address: MMDS_ADDRESS,
      answer,
      random: () => random.value(),
      now: () => nowMs,
    });
    // What it has said last, by port: a guest knows that.
    const heard = new Map<number, { sequence: number; acknowledgement: number }>();

    const take = (limit: number): void => {
      for (let count = 0; count < limit; count++) {
        const frame = responder.nextFrame();
        if (frame === undefined) return;
        assert.ok(frame.length >= 42 && frame.length <= 1514);
        const sent = readSegment(frame);
        if (sent === undefined) continue;
        const { sequence, payload, flags, acknowledgement } = sent.segment;
        const length = payload.length + ((flags & (SYN | FIN)) === 0 ? 0 : 1);
        heard.set(frame[36] === undefined ? 0 : frame[36] * 256 + (frame[37] ?? 0), {
          sequence: (sequence + length) >>> 0,
          acknowledgement,
        });
      }
    };
    const send = (): void => {
      const port = 1 + random.below(random.pick([2, 5, 60]));
      const last = heard.get(port);
      const payload = random.oneIn(2) ? Buffer.from(requestText(random)) : new Uint8Array(0);
      const frame = frameOf(
        port,
        {
          sequence: near(random, last?.acknowledgement ?? random.value()),
          acknowledgement: near(random, last?.sequence ?? random.value()),
          flags: last === undefined && random.oneIn(2) ? SYN : random.pick(FLAGS),
          window: random.pick([0, 1, 100, 0xffff, random.below(0x1_0000)]),
          mss: random.oneIn(2) ? random.below(0x1_0000) : undefined,
          // An MSS stands where the payload would.
          ...(random.oneIn(2) ? { payload, mss: undefined } : {}),
        },
        random.oneIn(10) ? random.below(0x1_0000) : 80,
      );
      // Some bytes are others, or missing.
      for (let changes = random.oneIn(3) ? random.below(4) : 0; changes > 0; changes--) {
        frame[random.below(frame.length)] = random.value();
      }
      const cut = random.oneIn(8) ? frame.subarray(0, random.below(frame.length + 1)) : frame;
      if (responder.isFor(cut.subarray(0, 64))) responder.receive(cut.subarray(0, MAX_LOOK_BYTES));
    };

    const operations = [
      send,
      send,
      send,
      () => take(1),
      () => take(10),
      () => (nowMs += random.pick([1, 400, 1000, 20_000])),
    ];
    for (let left = FRAMES; left > 0; left--) {
      random.operations++;
      random.pick(operations)();
      assert.ok(responder.connectionCount <= MAX_CONNECTIONS);
      const { dueMs } = responder;
      assert.ok(dueMs > nowMs || dueMs >= 0, "a time that is none");
    }
    // It comes to rest, however long nobody answers it.
    for (let turns = 0; responder.nextFrame() !== undefined || responder.dueMs !== Infinity; turns++) {
      // Nine times all segments of an answer, on every connection.
      assert.ok(turns < 50_000, "it never rests");
      if (responder.dueMs !== Infinity) nowMs = Math.max(nowMs, responder.dueMs);
    }
    // And serves whoever comes then.
    nowMs += 10_000;
    const guest = new GuestConnection(responder, 60_000, random.u32()).open();
    const headers = "X-metadata-token: t\r\nAccept: application/json\r\n";
    assert.match(guest.ask(`GET / HTTP/1.1\r\n${headers}\r\n`), /^HTTP\/1\.1 (?:200|501) /);

    const session = new HttpSession(answer);
    for (let pieces = random.below(20); pieces > 0; pieces--) {
      random.operations++;
      session.take(Buffer.from(requestText(random)).subarray(0, session.room));
      for (let answers = 0; session.nextAnswer() !== undefined; answers++) assert.ok(answers < 1000);
      assert.ok(session.room > 0 || session.isOver);
    }
  },
};
