// Needs: nothing for most; /dev/net/tun and the right to make interfaces for a conversation with Linux's own TCP, which
// is skipped without. The metadata service in a network device.
import assert from "node:assert/strict";
import { closeSync, readSync, writeSync } from "node:fs";
import { get, Agent, type IncomingMessage } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import { MmdsNet } from "../../devices/mmds/net-backend.js";
import { MmdsResponder } from "../../devices/mmds/responder.js";
import { mmdsService } from "../../devices/mmds/service.js";
import { ACK, RST, SYN } from "../../devices/mmds/wire.js";
import { NetDevice } from "../../devices/virtio/net/device.js";
import type { RateLimiterConfig } from "../../devices/virtio/rate-limiter.js";
import { pollReadable } from "../../vmm/sys/events.js";
import { openTap } from "../../vmm/virtio/backends/tap-interface.js";
import { SealedTokens } from "../../vmm/virtio/backends/mmds-tokens.js";
import { Random } from "../fuzz/random.js";
import { FakeLoop } from "../helpers/fake-loop.js";
import { FakeMemory } from "../helpers/fake-memory.js";
import { frameOf as anyFrame, MemoryNet } from "../helpers/memory-net.js";
import { frameOf, MMDS_ADDRESS, segmentsOf } from "../helpers/mmds-guest.js";
import { skip } from "../helpers/skip.js";
import { tapProblem } from "../helpers/tap-guard.js";
import { MACHINE_MEMORY_SIZE, virtioMachine } from "../helpers/virtio-machine.js";

const TX = 0x20_0000;
const RX = 0x28_0000;
const BUFFER = 2048;
const HEADER = 12;

function rig(
  options: { txRateLimiter?: RateLimiterConfig; rxRateLimiter?: RateLimiterConfig; features?: number[] } = {},
) {
  const memory = new FakeMemory(MACHINE_MEMORY_SIZE);
  const loop = new FakeLoop();
  const network = new MemoryNet(memory);
  const responder = new MmdsResponder({
    address: MMDS_ADDRESS,
    answer: ({ path }) => ({ status: 200, type: "text/plain", body: path.repeat(1000) }),
    random: () => 7,
    now: () => loop.now(),
  });
  const backend = new MmdsNet({ network, responder, memory, loop });
  const log: string[] = [];
  const mac = Uint8Array.of(2, 0, 0, 0, 0, 7);
  const device = new NetDevice({ name: "net0", backend, mac, loop, report: (line) => log.push(line), ...options });
  const machine = virtioMachine(device, loop, memory);
  const [rxq, txq] = machine.driver.start({ features: options.features ?? [] });
  assert.ok(rxq !== undefined && txq !== undefined);
  let heads = 0;
  return {
    ...{ device, network, responder, log, loop, machine, memory, rxq },
    addBuffers: (count: number): void => {
      for (let index = 0; index < count; index++) {
        rxq.add([{ gpa: RX + (heads++ % 64) * BUFFER, length: BUFFER, writable: true }]);
      }
      machine.driver.notify(0);
    },
    /** Behind a virtio header, cut in pieces anywhere. */
    send: (frame: Uint8Array, ...cuts: readonly number[]): void => {
      const bytes = new Uint8Array(HEADER + frame.length);
      bytes.set(frame, HEADER);
      let from = 0;
      const pieces = [...cuts, bytes.length].map((to, index) => {
        const gpa = TX + index * 0x1_0000;
        memory.slice(gpa, to - from).set(bytes.subarray(from, to));
        const piece = { gpa, length: to - from };
        from = to;
        return piece;
      });
      txq.add(pieces);
      machine.driver.notify(1);
      assert.equal(txq.collect().length, 1);
      loop.settle();
    },
    /** Frames that the guest has got. */
    received: (): Uint8Array[] =>
      rxq.collect().map(({ id, length }) => {
        const gpa = memory.readU32(rxq.descriptorGpa + 16 * id);
        assert.ok(memory.slice(gpa, 10).every((byte) => byte === 0));
        return memory.slice(gpa + HEADER, length - HEADER).slice();
      }),
  };
}

describe("mmds: in a network device", () => {
  it("frames for its address end there, all others go on, and what comes from the network comes", () => {
    const m = rig();
    m.addBuffers(8);
    m.send(frameOf(9, { flags: SYN, sequence: 1 }));
    const [synAck] = segmentsOf(m.received());
    assert.deepEqual([synAck?.flags, m.network.sent.length], [SYN | ACK, 0]);
    m.send(frameOf(9, { flags: SYN, sequence: 1 }).fill(8, 30, 34));
    const other = anyFrame(60).subarray(HEADER);
    m.send(other);
    assert.deepEqual(m.network.sent.at(-1)?.subarray(HEADER), other);
    assert.equal(m.network.sent.length, 2);
    m.network.arrive(anyFrame(100));
    assert.deepEqual(m.received(), [anyFrame(100).subarray(HEADER)]);
    const { txFrames, txAside, rxFrames } = m.device.counters;
    assert.deepEqual([txFrames, txAside, rxFrames, m.log], [2, 1, 2, []]);
  });

  it("a frame may be cut anywhere", () => {
    for (let cut = 1; cut < HEADER + 54; cut++) {
      const m = rig();
      m.addBuffers(1);
      m.send(frameOf(9, { flags: SYN, sequence: 5 }), cut);
      assert.equal(segmentsOf(m.received())[0]?.acknowledgement, 6, String(cut));
    }
    const m = rig();
    m.addBuffers(1);
    m.send(frameOf(9, { flags: SYN, sequence: 5 }), 1, 2, 3, 12, 13, 26, 27, 45, 60);
    assert.equal(segmentsOf(m.received())[0]?.acknowledgement, 6);
  });

  it("a guest without buffers gets it all once it has some, and makes nothing grow", () => {
    const m = rig();
    for (let count = 0; count < 1000; count++) m.send(frameOf(9, { flags: ACK, sequence: count }));
    assert.deepEqual(m.received(), []);
    m.addBuffers(10);
    assert.ok(segmentsOf(m.received()).every(({ flags }) => flags === RST));
    m.addBuffers(60);
    assert.equal(m.received().length, 54);
  });

  it("what the guest does not acknowledge is sent again by itself", () => {
    const m = rig();
    m.addBuffers(60);
    m.send(frameOf(9, { flags: SYN, sequence: 1 }));
    assert.equal(m.received().length, 1);
    m.loop.advance(399);
    assert.equal(m.received().length, 0);
    m.loop.advance(2);
    assert.equal(m.received().length, 1);
    m.loop.advance(1e6);
    const rest = segmentsOf(m.received());
    assert.deepEqual([rest.at(-1)?.flags, rest.length, m.responder.connectionCount], [RST | ACK, 8, 0]);
    assert.equal(m.loop.timerCount, 0);
  });

  it("the limit of what the guest sends does not count what is for the service", () => {
    const one = { operations: { size: 1, oneTimeBurst: 0, refillTimeMs: 1000 } };
    const m = rig({ txRateLimiter: one });
    m.addBuffers(8);
    for (let count = 0; count < 5; count++) m.send(frameOf(9, { flags: SYN, sequence: 1 }));
    assert.equal(m.device.counters.txThrottled, 0);
    assert.equal(m.device.counters.txAside, 5);
  });

  it("a reset of the device ends what was open, and no timer is left", () => {
    const m = rig();
    m.addBuffers(8);
    m.send(frameOf(9, { flags: SYN, sequence: 1 }));
    m.machine.driver.reset();
    assert.equal(m.loop.timerCount, 0);
    const before = m.memory.bytes.slice();
    m.loop.advance(1e6);
    assert.deepEqual(m.memory.bytes, before);
    m.machine.driver.start();
    assert.equal(m.responder.connectionCount, 0);
  });
});

const SERVICE = "169.254.77.2";
const DOCUMENT = { long: "m".repeat(45_000), latest: { "meta-data": { "ami-id": "ami-1" } } };

/** Linux's TCP at the other end of a TAP, which may lose frames: one in `loseOneIn` each way. */
class Cable {
  readonly responder: MmdsResponder;
  readonly #tap = openTap({ name: "auto", hostAddress: { address: "169.254.77.1", prefixLength: 24 } });
  readonly #poll = pollReadable(this.#tap.fd, () => this.#pump());
  readonly #random = new Random(11);
  readonly #loseOneIn: number;
  #timer: NodeJS.Timeout | undefined;

  constructor(loseOneIn = 0) {
    this.#loseOneIn = loseOneIn;
    const now = (): number => performance.now();
    const answer = mmdsService({
      ...{ version: "V2", imdsCompat: false },
      ...{ source: { value: DOCUMENT }, tokens: new SealedTokens(now) },
    });
    const address = SERVICE.split(".").reduce((sum, octet) => sum * 256 + Number(octet), 0);
    this.responder = new MmdsResponder({ address, answer, random: () => this.#random.u32(), now });
  }

  close(): void {
    clearTimeout(this.#timer);
    this.#poll.close();
    closeSync(this.#tap.fd);
  }

  #isLost(): boolean {
    return this.#loseOneIn > 0 && this.#random.oneIn(this.#loseOneIn);
  }

  #pump(): void {
    const frame = new Uint8Array(HEADER + 65_600);
    for (let length = this.#read(frame); length > 0; length = this.#read(frame)) {
      const bytes = frame.subarray(HEADER, length);
      if (this.responder.isFor(bytes) && !this.#isLost()) this.responder.receive(bytes);
      this.#answer();
    }
    this.#answer();
    clearTimeout(this.#timer);
    const waitMs = this.responder.dueMs - performance.now();
    if (waitMs < 1e6) this.#timer = setTimeout(() => this.#pump(), Math.max(0, waitMs));
  }

  #answer(): void {
    for (let frame = this.responder.nextFrame(); frame !== undefined; frame = this.responder.nextFrame()) {
      if (!this.#isLost()) writeSync(this.#tap.fd, Buffer.concat([new Uint8Array(HEADER), frame]));
    }
  }

  #read(frame: Uint8Array): number {
    try {
      return readSync(this.#tap.fd, frame);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code === "EAGAIN") return 0;
      throw error;
    }
  }
}

interface Reply {
  readonly status: number;
  readonly body: string;
}

function ask(
  path: string,
  options: { method?: string; headers?: Record<string, string>; agent?: Agent } = {},
): Promise<Reply> {
  return new Promise((resolve, reject) => {
    // Without a connection that another test has kept.
    const request = get(
      { host: SERVICE, path, timeout: 20_000, agent: false, ...options },
      (response: IncomingMessage) => {
        let body = "";
        response.setEncoding("utf8").on("data", (text: string) => (body += text));
        response.on("end", () => resolve({ status: response.statusCode ?? 0, body }));
        response.on("error", reject);
      },
    );
    request.on("timeout", () => request.destroy(new Error("no answer within 20 s")));
    request.on("error", reject);
  });
}

describe("mmds: beside Linux's own TCP", function () {
  this.timeout(60_000);
  let cable: Cable | undefined;

  before(function () {
    const problem = tapProblem();
    if (problem !== undefined) skip(this, problem);
  });
  afterEach(() => cable?.close());

  it("a token, then values with it, over one connection and over many", async () => {
    cable = new Cable();
    const seconds = { "X-metadata-token-ttl-seconds": "60" };
    assert.equal((await ask("/latest")).status, 401);
    const { body: token } = await ask("/latest/api/token", { method: "PUT", headers: seconds });
    const headers = { "X-metadata-token": token };
    const agent = new Agent({ keepAlive: true, maxSockets: 1 });
    try {
      for (let count = 0; count < 20; count++) {
        assert.deepEqual(await ask("/latest/meta-data/ami-id", { headers, agent }), { status: 200, body: "ami-1" });
        assert.equal((await ask("/long", { headers, agent })).body, DOCUMENT.long);
      }
      assert.ok(cable.responder.connectionCount <= 3, "connections were not kept, or not let go");
    } finally {
      agent.destroy();
    }
    const many = await Promise.all(Array.from({ length: 20 }, () => ask("/long", { headers })));
    assert.ok(many.every(({ body }) => body === DOCUMENT.long));
    for (let tries = 0; cable.responder.connectionCount > 0; tries++) {
      assert.ok(tries < 200, "connections stay");
      await sleep(10);
    }
  });

  it("whatever is lost on the way: a fifth of all frames", async () => {
    cable = new Cable(5);
    const { body: token } = await ask("/latest/api/token", {
      method: "PUT",
      headers: { "X-metadata-token-ttl-seconds": "60" },
    });
    const replies = await Promise.all(
      Array.from({ length: 6 }, () => ask("/latest/meta-data/ami-id", { headers: { "X-metadata-token": token } })),
    );
    assert.ok(replies.every(({ body }) => body === "ami-1"));
    assert.equal((await ask("/latest/", { headers: { "X-metadata-token": token } })).body, "meta-data/");
  });
});
