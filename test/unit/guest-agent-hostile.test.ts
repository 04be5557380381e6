// Needs: gcc. The guest's agent as a process of this host, and a host that sends it whatever comes to its mind.
import assert from "node:assert/strict";
import { mkdtempSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { Random } from "../fuzz/random.js";
import {
  AgentProcess,
  DATA,
  DONE,
  EXEC,
  FAILED,
  HELLO,
  PING,
  PONG,
  buildAgent,
  credit,
  exec,
  frame,
  pack,
} from "../helpers/agent-process.js";

const FRAMES = 2500;
const SEEDS = [1, 2, 3];
const [STAT, LIST, READ, WAIT_PORT, SYNC] = [0x20, 0x21, 0x22, 0x30, 0x33];
/** Nothing that changes this host, whatever becomes of the numbers beside it. */
const COMMANDS = [
  ["true"],
  ["cat"],
  ["sleep", "1"],
  ["sh", "-c", "yes"],
  ["no-such-program"],
  ["sh", "-c", "exec <&-; sleep 1"],
];
const PATHS = ["/etc", "/etc/passwd", "/", "/no/such", "relative", `/${"y/".repeat(3000)}`];

/** A request whose numbers are often wrong; its words are as they are. */
function request(random: Random, stream: number): Buffer {
  const numbers = (count: number): number[] => Array.from({ length: count }, () => random.value() >>> 0);
  switch (random.below(6)) {
    case 0:
    case 1: {
      const command = random.pick(COMMANDS);
      if (!random.oneIn(3)) return frame(stream, EXEC, exec(command, { flags: random.below(16) }));
      return frame(stream, EXEC, pack(random.below(8), ...numbers(5), "", "", ...command));
    }
    case 2:
      return frame(stream, random.pick([STAT, LIST]), pack(random.below(4), random.pick(PATHS)));
    case 3:
      return frame(stream, READ, pack(random.below(2), ...numbers(4), random.pick(PATHS)));
    case 4:
      return frame(stream, WAIT_PORT, pack(...numbers(1 + random.below(2))));
    default:
      return frame(stream, SYNC);
  }
}

function anything(random: Random, index: number): Buffer {
  // Mostly one that is not in use, for a request, and one that is, for all else.
  const stream = 1 + Math.max(0, index - random.below(8));
  const kind = random.below(20);
  if (kind < 9) return request(random, random.oneIn(40) ? stream : index + 1);
  if (kind < 12) return frame(stream, DATA, Buffer.alloc(random.pick([0, 1, 1000, 20_000]), 0x61));
  // More than a window breaks the protocol.
  if (kind < 14 && random.oneIn(25))
    return frame(stream, 0x0c, credit(1 + random.below(2), random.pick([1, 500, 5000])));
  if (kind < 16) return frame(stream, random.pick([0x08, 0x0b]));
  if (kind < 17) return frame(stream, 0x12, Buffer.from([random.pick([9, 15, 19, 18]), random.below(2), 0, 0]));
  if (kind < 18) return frame(stream, 0x13, Buffer.from([1, 2, 3, 4]));
  if (kind < 19 || !random.oneIn(4)) return frame(0, PING, Buffer.from("x"));
  return Buffer.from(Array.from({ length: random.below(60) }, () => random.below(256)));
}

describe("guest: the agent and a hostile host", () => {
  let folder = "";
  let path = "";
  let agent: AgentProcess | undefined;

  afterEach(() => {
    agent?.child.kill("SIGKILL");
  });

  before(function () {
    this.timeout(120_000);
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    path = buildAgent(folder);
  });
  after(() => {
    rmSync(folder, { recursive: true });
  });

  for (const seed of SEEDS) {
    it(`seed ${String(seed)}: ${String(FRAMES)} frames of any kind, and it still serves, with nothing left open`, async function () {
      this.timeout(120_000);
      const random = new Random(seed);
      const one = (agent = new AgentProcess(path));
      await one.hello();
      const answer = async (): Promise<number> => {
        let ends = 0;
        for (;;) {
          const { type, stream, payload } = await one.next();
          if (type === HELLO) {
            one.nonce = payload.readUInt32LE(12);
            one.answer();
            one.send(0, PING, Buffer.from("end"));
          } else if (type === DONE || type === FAILED) ends++;
          else if (type === DATA && payload.length > 0 && random.oneIn(2)) one.send(stream, 0x0c, credit(1, 1));
          else if (type === PONG && payload.toString() === "end") return ends;
        }
      };
      one.answer();
      let ends = 0;
      for (let i = 0; i < FRAMES; i += 50) {
        for (let j = 0; j < 50; j++) one.write(anything(random, i + j));
        // Another host: what the garbage has left half done is over.
        one.write(Buffer.alloc(70_000));
        one.answer(0);
        one.send(0, PING, Buffer.from("end"));
        ends += await answer();
      }
      assert.ok(ends > 10, `only ${String(ends)} requests have ended`);
      one.answer(0);
      await one.nextBut(PONG);
      const count = (): number => readdirSync(`/proc/${String(one.child.pid)}/fd`).length;
      // What was killed has to end first.
      for (let tries = 0; count() > 10 && tries < 100; tries++) await new Promise((resolve) => setTimeout(resolve, 50));
      const open = count();
      assert.ok(open <= 10, `${String(open)} descriptors are open`);
      assert.equal(await one.close(), 0);
    });
  }
});
