// Needs: nothing. The host's end of the agent's protocol: HELLO, streams, windows, and a guest that lies.
import assert from "node:assert/strict";
import { createHook } from "node:async_hooks";
import type { AgentError } from "../../vmm/errors.js";
import { GuestCommand } from "../../vmm/agent/command.js";
import { AgentConnection, type ConnectionOptions } from "../../vmm/agent/connection.js";
import * as frames from "../../vmm/agent/frames.js";
import { encodeHello, MAX_STREAMS } from "../../vmm/agent/hello.js";
import { WINDOW, type AgentStream, type Output, type StreamRequest } from "../../vmm/agent/stream.js";
import { AgentPeer, turns, u32 } from "../helpers/agent-peer.js";

interface Opened {
  readonly stream: AgentStream;
  readonly log: string[];
}

const COMMAND: StreamRequest = {
  type: frames.EXEC,
  payload: Buffer.from("x"),
  what: "run x",
  outputs: 2,
  hasInput: true,
  isCommand: true,
};
const READ: StreamRequest = { type: frames.READ, payload: Buffer.from("/x\0"), what: "read /x", outputs: 1 };
const STAT: StreamRequest = { type: frames.STAT, payload: Buffer.from("/x\0"), what: "stat /x", outputs: 0 };

function open(connection: AgentConnection, request: StreamRequest, takes = false): Opened {
  const log: string[] = [];
  const stream = connection.open(request, {
    onStarted: (pid) => log.push(`started ${String(pid)}`),
    onData: (output: Output, bytes) => {
      log.push(`data ${String(output)} ${String(bytes.length)}`);
      if (takes) stream.consumed(output, bytes.length);
    },
    onEnd: (output) => log.push(`end ${String(output)}`),
    onClosed: () => log.push("closed"),
    onWritable: () => log.push("writable"),
    onDone: (payload) => log.push(`done ${payload.toString("hex")}`),
    onRefused: (errno, text) => log.push(`refused ${String(errno)} ${text}`),
    onLost: (error) => log.push(`lost ${error.reason}`),
  });
  return { stream, log };
}

/** Why it is over. A function, because the compiler takes what it has seen of a getter for the truth. */
function reasonOf(connection: AgentConnection): string | undefined {
  return connection.error?.reason;
}

function connect(options: ConnectionOptions = {}): { peer: AgentPeer; connection: AgentConnection } {
  const peer = new AgentPeer();
  const connection = new AgentConnection(peer, options);
  peer.hello();
  return { peer, connection };
}

describe("agent connection", () => {
  it("nothing is sent before the agent's HELLO; it is answered with its nonce, then requests go out in order", async () => {
    const peer = new AgentPeer();
    const connection = new AgentConnection(peer);
    const opened = [open(connection, STAT), open(connection, READ)];
    assert.equal(peer.frames.length, 0);
    peer.hello(0xdead_beef);
    await connection.ready;
    assert.deepEqual(
      peer.frames.map(({ stream, type }) => [stream, type]),
      [
        [0, frames.HELLO],
        [1, frames.STAT],
        [2, frames.READ],
      ],
    );
    assert.deepEqual(peer.frames[0]?.payload, encodeHello({ streams: 0, nonce: 0xdead_beef }));
    peer.send(1, frames.DONE, Buffer.from("ab"));
    assert.deepEqual(opened[0]?.log, ["done 6162"]);
    connection.close();
    assert.deepEqual(opened[1]?.log, ["lost closed"]);
    assert.ok(peer.isClosed);
  });

  it("asks for HELLO where it may have been missed; the same HELLO twice is one", () => {
    const peer = new AgentPeer();
    const connection = new AgentConnection(peer, { asksFirst: true });
    assert.deepEqual(peer.frames[0]?.payload, encodeHello({ streams: 0, nonce: 0 }));
    peer.hello(5);
    peer.hello(5);
    assert.equal(connection.error, undefined);
    assert.equal(peer.sent(frames.HELLO).length, 2);
    connection.close();
    assert.equal(reasonOf(connection), "closed");
  });

  it("what comes before HELLO is dropped, byte by byte, in whatever pieces", () => {
    const hello = frames.encodeFrame(0, frames.HELLO, encodeHello({ streams: 4, nonce: 3 }));
    const before = Buffer.concat([
      Buffer.from("Linux version 6.1\n"),
      hello.subarray(0, 15),
      frames.encodeFrame(3, frames.DATA, Buffer.alloc(100)),
    ]);
    const all = Buffer.concat([before, hello, frames.encodeFrame(1, frames.DONE, Buffer.from("x"))]);
    for (const size of [1, 7, 16, 1000]) {
      const peer = new AgentPeer();
      const connection = new AgentConnection(peer);
      const { log } = open(connection, STAT);
      for (let at = 0; at < all.length; at += size) peer.raw(all.subarray(at, at + size));
      assert.deepEqual(log, ["done 78"]);
      connection.close();
    }
  });

  it("an agent that begins anew, as after a snapshot, loses what was under way, and the conversation goes on", async () => {
    const { peer, connection } = connect();
    const { log } = open(connection, COMMAND);
    const ping = connection.ping();
    await turns();
    peer.hello(8);
    assert.deepEqual(log, ["lost gone"]);
    await assert.rejects(ping, { reason: "gone" });
    assert.deepEqual(peer.last.payload, encodeHello({ streams: 0, nonce: 8 }));
    const late = open(connection, STAT);
    peer.send(2, frames.DONE);
    assert.deepEqual(late.log, ["done "]);
    peer.isFull = true;
    open(connection, STAT);
    peer.hello(9);
    assert.equal(reasonOf(connection), "protocol");
  });

  it("where the agent's nonce is known, requests go out before its HELLO", async () => {
    const peer = new AgentPeer();
    const connection = new AgentConnection(peer, { nonce: 1 });
    const { log } = open(connection, STAT);
    assert.deepEqual(
      peer.frames.map(({ type }) => type),
      [frames.HELLO, frames.STAT],
    );
    peer.send(1, frames.DATA, Buffer.alloc(3));
    peer.hello(1);
    peer.send(1, frames.DONE);
    assert.deepEqual(log, ["done "]);
    assert.equal(peer.sent(frames.HELLO).length, 1);
    connection.close();
    const silent = new AgentConnection(new AgentPeer(), { nonce: 1, helloLimitMs: 20 });
    assert.equal((await silent.closed).reason, "silent");
  });

  it("an agent of another version is refused with both versions in the message", async () => {
    const peer = new AgentPeer();
    const connection = new AgentConnection(peer);
    const { log } = open(connection, STAT);
    peer.send(0, frames.HELLO, encodeHello({ streams: 1, nonce: 1 }, 3));
    assert.match(connection.error?.message ?? "", /version 3 .* this vmlet 2/);
    assert.equal(connection.error?.reason, "version");
    assert.deepEqual(log, ["lost version"]);
    await assert.rejects(connection.ready, { code: "ERR_AGENT", reason: "version" });
  });

  it("a guest that says nothing is given up, before HELLO and after it", async () => {
    const silent = new AgentConnection(new AgentPeer(), { helloLimitMs: 20 });
    await assert.rejects(silent.ready, { reason: "silent", message: /HELLO/ });
    const { peer, connection } = connect({ silenceMs: 20, answerLimitMs: 20 });
    const { log } = open(connection, STAT);
    assert.equal((await connection.closed).reason, "silent");
    assert.ok(peer.sent(frames.PING).length > 0);
    assert.deepEqual(log, ["lost silent"]);
  });

  it("a guest that answers PING may take its time, and a paused one need not answer", async () => {
    const { peer, connection } = connect({ silenceMs: 10, answerLimitMs: 30 });
    let pings = 0;
    peer.onFrame = (_stream, type, payload) => {
      const pong = Buffer.from(payload);
      if (type !== frames.PING) return;
      pings++;
      setImmediate(() => {
        peer.send(0, frames.PONG, pong);
      });
    };
    const { log } = open(connection, STAT);
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.ok(pings >= 2);
    peer.onFrame = undefined;
    connection.setPaused(true);
    await new Promise((resolve) => setTimeout(resolve, 100));
    assert.deepEqual(log, []);
    assert.equal(connection.error, undefined);
    connection.setPaused(false);
    assert.equal((await connection.closed).reason, "silent");
  });

  it("on a slow line an answer may come behind much else: a guest that says or takes something is there", async () => {
    const { peer, connection } = connect({ silenceMs: 60_000, answerLimitMs: 300 });
    const { log } = open(connection, COMMAND, true);
    peer.started(1);
    const answer = connection.ping();
    for (let round = 0; round < 6; round++) {
      await new Promise((resolve) => setTimeout(resolve, 100));
      if (round % 2 === 0) peer.send(1, frames.DATA, Buffer.from("x"));
      else {
        peer.isFull = true;
        connection.send(1, frames.SIGNAL, Buffer.alloc(4));
        peer.drain();
      }
    }
    assert.equal(connection.error, undefined);
    peer.send(0, frames.PONG, peer.sent(frames.PING)[0]?.payload);
    // What it has needed once, it may need again: four times as long is given now.
    const tookMs = await answer;
    const begun = performance.now();
    await assert.rejects(connection.ping(), { reason: "silent" });
    assert.ok(performance.now() - begun >= 4 * tookMs - 1, `${String(tookMs)} ms before`);
    assert.equal(log.at(-1), "lost silent");
  });

  it("every method is defined after the end, and twice", async () => {
    const { connection } = connect();
    const { stream } = open(connection, COMMAND);
    connection.close();
    connection.close();
    const late = open(connection, STAT);
    await turns();
    assert.deepEqual(late.log, ["lost closed"]);
    await assert.rejects(connection.ping(), { code: "ERR_AGENT", reason: "closed" });
    assert.equal(stream.write(Buffer.from("abc")), 3);
    stream.end();
    stream.cancel();
    stream.control(frames.SIGNAL, u32(1));
    stream.consumed(1, 70_000);
    assert.equal((await connection.closed).reason, "closed");
    const lost = new AgentPeer();
    const broken = new AgentConnection(lost);
    lost.onClose?.(new Error("reset"));
    assert.deepEqual([broken.error?.reason, (broken.error?.cause as Error).message], ["gone", "reset"]);
  });

  it("more requests than streams wait for their turn, oldest first; a number in use is not taken again", async () => {
    const peer = new AgentPeer();
    const connection = new AgentConnection(peer);
    peer.hello(1, 2);
    const opened = [1, 2, 3, 4].map(() => open(connection, STAT));
    assert.deepEqual(
      peer.sent(frames.STAT).map(({ stream }) => stream),
      [1, 2],
    );
    opened[3]?.stream.cancel();
    await turns();
    assert.deepEqual(opened[3]?.log, ["refused 125 given up before it began"]);
    peer.send(2, frames.DONE);
    assert.deepEqual(
      peer.sent(frames.STAT).map(({ stream }) => stream),
      [1, 2, 3],
    );
    const flood = new AgentPeer();
    const many = new AgentConnection(flood);
    flood.hello(1, 0xffff_ffff);
    for (let i = 0; i < 300; i++) open(many, STAT);
    assert.equal(flood.sent(frames.STAT).length, MAX_STREAMS);
  });

  it("what is said of a request that waits follows it, in its order, and of one that has ended nothing is", () => {
    const peer = new AgentPeer();
    const connection = new AgentConnection(peer);
    const { stream } = open(connection, COMMAND);
    for (const number of [15, 2]) stream.control(frames.SIGNAL, Buffer.of(number, 0, 0, 0));
    stream.end();
    assert.equal(peer.frames.length, 0);
    peer.hello(1);
    stream.control(frames.SIGNAL, Buffer.of(9, 0, 0, 0));
    peer.send(1, frames.FAILED, u32(2));
    stream.control(frames.SIGNAL, Buffer.of(1, 0, 0, 0));
    assert.deepEqual(
      peer.frames.map(({ type, payload }) => (type === frames.SIGNAL ? `signal ${String(payload[0])}` : type)),
      [frames.HELLO, frames.EXEC, "signal 15", "signal 2", frames.END, "signal 9"],
    );
    connection.close();
  });

  it("a signal for a program that is to be held waits until it has begun: its snapshot must not have it", () => {
    const { peer, connection } = connect();
    const events = { onOutput: () => undefined, onExit: () => undefined, onFailed: () => undefined };
    const command = new GuestCommand(connection, ["x"], { hold: true }, events);
    command.kill("SIGTERM");
    assert.equal(peer.sent(frames.SIGNAL).length, 0);
    peer.send(1, frames.STARTED, u32(5));
    command.kill("SIGINT");
    assert.deepEqual(
      peer.sent(frames.SIGNAL).map(({ payload }) => payload[0]),
      [15, 2],
    );
    connection.close();
  });
});

/** So many bytes of stream 1, in frames that are as large as they may be. */
function sendData(peer: AgentPeer, bytes: number): void {
  for (let left = bytes; left > 0; left -= frames.MAX_PAYLOAD) {
    peer.send(1, frames.DATA, Buffer.alloc(Math.min(left, frames.MAX_PAYLOAD)));
  }
}

describe("agent windows", () => {
  it("the host sends no more than the credit, and goes on with what comes", () => {
    const { peer, connection } = connect();
    const { stream, log } = open(connection, COMMAND);
    const content = Buffer.alloc(WINDOW + 100_000, 1);
    const sent = (): number => peer.sent(frames.DATA).reduce((sum, { payload }) => sum + payload.length, 0);
    assert.equal(stream.write(content), WINDOW);
    assert.equal(stream.write(content), 0);
    peer.send(1, frames.CREDIT, u32(1, 1000));
    assert.deepEqual(log, ["writable"]);
    assert.equal(stream.write(content), 1000);
    assert.equal(sent(), WINDOW + 1000);
    peer.send(1, frames.CREDIT, u32(1, WINDOW));
    stream.end();
    assert.equal(peer.last.type, frames.END);
  });

  it("credit is given back for what the reader has taken, for no more, and each output apart", () => {
    const { peer, connection } = connect();
    const { stream } = open(connection, COMMAND);
    peer.started(1);
    for (let i = 0; i < 3; i++) peer.send(1, frames.DATA, Buffer.alloc(60_000));
    for (let i = 0; i < 3; i++) peer.send(1, frames.DATA2, Buffer.alloc(60_000));
    assert.equal(peer.sent(frames.CREDIT).length, 0);
    stream.consumed(1, 100_000);
    assert.equal(peer.sent(frames.CREDIT).length, 0);
    stream.consumed(1, 60_000);
    assert.deepEqual(peer.last.payload, u32(1, 160_000));
    stream.consumed(2, 180_000);
    assert.deepEqual(peer.last.payload, u32(2, 180_000));
    sendData(peer, WINDOW - 20_000);
    assert.equal(connection.error, undefined);
    peer.send(1, frames.DATA, Buffer.alloc(1));
    assert.equal(reasonOf(connection), "protocol");
  });

  it("a transport that takes no more gets no data, no credit and no requests until it has drained; then all in turn", () => {
    const { peer, connection } = connect();
    const a = open(connection, COMMAND, true);
    const b = open(connection, COMMAND, true);
    peer.started(1);
    peer.isFull = true;
    assert.equal(a.stream.write(Buffer.alloc(10_000)), 10_000);
    const before = peer.bytesWritten;
    assert.equal(a.stream.write(Buffer.alloc(10_000)), 0);
    assert.equal(b.stream.write(Buffer.alloc(10_000)), 0);
    sendData(peer, WINDOW);
    const late = open(connection, STAT);
    assert.equal(peer.bytesWritten, before);
    peer.drain();
    assert.deepEqual(
      a.log.filter((line) => line === "writable"),
      ["writable"],
    );
    assert.deepEqual(b.log, ["writable"]);
    assert.deepEqual(
      peer.sent(frames.CREDIT).map(({ payload }) => payload.readUInt32LE(4)),
      [WINDOW],
    );
    assert.equal(peer.sent(frames.STAT).length, 1);
    assert.deepEqual(late.log, []);
  });

  it("what a cancelled request still sends is dropped and given back, and its end is reported", () => {
    const { peer, connection } = connect();
    const { stream, log } = open(connection, COMMAND);
    peer.started(1);
    stream.cancel();
    stream.cancel();
    assert.equal(peer.sent(frames.CANCEL).length, 1);
    for (let i = 0; i < 20; i++) sendData(peer, WINDOW / 4);
    assert.equal(connection.error, undefined);
    peer.exit(1, 0, 9);
    assert.deepEqual(log, ["started 42", "end 1", "end 2", "done 000000000900000000000000"]);
  });

  it("of a guest that is paused, or comes to be, nobody waits for the end of what was given up", async () => {
    const { peer, connection } = connect();
    const before = open(connection, READ);
    before.stream.cancel();
    await turns();
    assert.deepEqual(before.log, []);
    connection.setPaused(true);
    const during = open(connection, READ);
    during.stream.cancel();
    await turns();
    for (const { log } of [before, during]) assert.deepEqual(log, ["refused 125 given up while the guest is paused"]);
    // It hears of it when it goes on; until then its numbers stay in use.
    assert.deepEqual([peer.sent(frames.CANCEL).length, connection.streamCount], [2, 2]);
    connection.setPaused(false);
    for (const id of [1, 2]) peer.send(id, frames.FAILED, Buffer.concat([u32(125), Buffer.from("late")]));
    assert.deepEqual([connection.error, connection.streamCount], [undefined, 0]);
    assert.deepEqual([before.log.length, during.log.length], [1, 1]);
  });

  it("a guest that does not confirm the end of what was given up keeps the number, not the caller", async () => {
    const { peer, connection } = connect({ answerLimitMs: 10 });
    const { stream, log } = open(connection, READ);
    stream.cancel();
    while (log.length === 0) await turns();
    assert.match(log.join(), /^refused 125 given up; the guest has not confirmed/);
    peer.send(1, frames.FAILED, Buffer.concat([u32(125), Buffer.from("late")]));
    assert.equal(connection.error, undefined);
    assert.equal(connection.streamCount, 0);
    assert.equal(log.length, 1);
  });
});

/** Time limits that run, as Node's own hooks see them come and go. */
function watchTimers(): { readonly running: ReadonlySet<number>; stop(): void } {
  const running = new Set<number>();
  const hook = createHook({
    init: (id, type) => type === "Timeout" && running.add(id),
    destroy: (id) => running.delete(id),
  }).enable();
  return { running, stop: () => void hook.disable() };
}

describe("agent connection, what its end leaves behind", () => {
  for (const [title, end] of [
    ["closed", (_peer, connection) => connection.close()],
    ["lied to", (peer) => peer.send(0, 99)],
    ["begun anew", (peer) => peer.hello(8)],
  ] as readonly [string, (peer: AgentPeer, connection: AgentConnection) => void][]) {
    it(`no time limit runs on for requests that were given up before or when it was ${title}`, async () => {
      // The runner's own limit on this test begins first.
      await turns(1);
      const timers = watchTimers();
      try {
        const { peer, connection } = connect();
        const log: string[] = [];
        connection.open(COMMAND, {
          onLost: (error) => {
            log.push(error.reason);
            other.stream.cancel();
          },
          onDone: () => undefined,
          onRefused: () => undefined,
        });
        const other = open(connection, READ);
        open(connection, STAT).stream.cancel();
        end(peer, connection);
        connection.close();
        await turns(5);
        assert.deepEqual([log.length, other.log.length, timers.running.size], [1, 1, 0]);
      } finally {
        timers.stop();
      }
    });
  }
});

describe("agent connection, a guest that lies", () => {
  type Lie = [title: string, request: StreamRequest, send: (peer: AgentPeer) => void, message: RegExp];
  const data = (length: number): Buffer => Buffer.alloc(length);
  const lies: Lie[] = [
    ["an unknown type on a stream", STAT, (p) => p.send(1, 0x7f), /unknown type 127/],
    ["an unknown type on the connection", STAT, (p) => p.send(0, 0x7f), /unknown type 127/],
    ["a type that only the host sends", STAT, (p) => p.send(1, frames.EXEC), /unknown type 16/],
    ["a frame that is too long", STAT, (p) => p.raw(u32(65_537, 1, 9)), /65537 bytes, the limit is 65536/],
    ["zero bytes that are not zero", STAT, (p) => p.raw(u32(0, 1, 0x0109)), /zero/],
    ["PONG without PING", STAT, (p) => p.send(0, frames.PONG, data(8)), /nobody has asked/],
    [
      "data above the credit",
      READ,
      (p) => {
        sendData(p, WINDOW);
        p.send(1, frames.DATA, data(1));
      },
      /the credit is 0/,
    ],
    ["data where none belongs", STAT, (p) => p.send(1, frames.DATA, data(1)), /none belongs/],
    ["standard error of a file", READ, (p) => p.send(1, frames.DATA2, data(1)), /output 2 where none/],
    [
      "data after END",
      READ,
      (p) => {
        p.send(1, frames.END);
        p.send(1, frames.DATA, data(1));
      },
      /after their end/,
    ],
    [
      "END twice",
      READ,
      (p) => {
        p.send(1, frames.END);
        p.send(1, frames.END);
      },
      /ended an output twice/,
    ],
    ["END of what is no output", READ, (p) => p.send(1, frames.END, Buffer.from([3])), /unknown output/],
    ["END of standard error of a file", READ, (p) => p.send(1, frames.END, Buffer.from([2])), /output 2 where none/],
    ["DONE before END", READ, (p) => p.send(1, frames.DONE), /before its output/],
    ["output before STARTED", COMMAND, (p) => p.send(1, frames.DATA, data(1)), /has not started/],
    ["DONE before STARTED", COMMAND, (p) => p.exit(1), /has not started/],
    [
      "STARTED twice",
      COMMAND,
      (p) => {
        p.started(1);
        p.started(1);
      },
      /twice/,
    ],
    ["STARTED of a file", READ, (p) => p.started(1), /no command/],
    ["process 0", COMMAND, (p) => p.started(1, 0), /without a process id/],
    ["STARTED without a number", COMMAND, (p) => p.send(1, frames.STARTED), /without a process id/],
    ["CLOSED of a file", READ, (p) => p.send(1, frames.CLOSED), /input that is not there/],
    ["CLOSED with something", COMMAND, (p) => p.send(1, frames.CLOSED, data(1)), /input that is not there/],
    ["credit above the window", COMMAND, (p) => p.send(1, frames.CREDIT, u32(1, 1)), /at most 0 fit/],
    ["credit of 4 GiB", COMMAND, (p) => p.send(1, frames.CREDIT, u32(1, 0xffff_ffff)), /4294967295/],
    ["credit of another kind", COMMAND, (p) => p.send(1, frames.CREDIT, u32(2, 1)), /unknown kind/],
    ["credit that is cut", COMMAND, (p) => p.send(1, frames.CREDIT, u32(1)), /unknown kind/],
    ["credit where nothing is sent", READ, (p) => p.send(1, frames.CREDIT, u32(1, 0)), /nothing is sent/],
    ["FAILED without errno", STAT, (p) => p.send(1, frames.FAILED, data(3)), /3 bytes/],
    ["FAILED with a novel", STAT, (p) => p.send(1, frames.FAILED, data(2000)), /2000 bytes/],
    ["HELLO that is none", STAT, (p) => p.send(0, frames.HELLO, Buffer.from("hello, world")), /does not speak/],
  ];
  for (const [title, request, send, message] of lies) {
    it(title, async () => {
      const { peer, connection } = connect();
      const opened = [open(connection, request), open(connection, STAT), open(connection, COMMAND)];
      send(peer);
      const error = connection.error as AgentError;
      assert.match(error.message, message);
      assert.equal(error.code, "ERR_AGENT");
      for (const { log } of opened) assert.match(log.at(-1) ?? "", /^lost /);
      assert.ok(peer.isClosed);
      assert.equal(await connection.closed, error);
      const late = open(connection, STAT);
      await turns();
      assert.deepEqual(late.log, [`lost ${error.reason}`]);
    });
  }

  const beginnings: [string, (peer: AgentPeer) => void, RegExp][] = [
    ["no streams at all", (p) => p.hello(1, 0), /HELLO that is none/],
    ["no nonce", (p) => p.hello(0), /HELLO that is none/],
  ];
  for (const [title, send, message] of beginnings) {
    it(`at the beginning: ${title}`, () => {
      const peer = new AgentPeer();
      const connection = new AgentConnection(peer);
      send(peer);
      assert.match(connection.error?.message ?? "", message);
    });
  }

  it("frames for streams that are not in use are dropped: ends cross on their way", () => {
    const { peer, connection } = connect();
    for (const type of [frames.DATA, frames.DONE, 0x7f]) peer.send(99, type, Buffer.alloc(10));
    peer.send(0xffff_ffff, frames.DATA);
    assert.equal(connection.error, undefined);
    const { log } = open(connection, STAT);
    peer.send(1, frames.DONE);
    peer.send(1, frames.DONE);
    peer.send(1, frames.FAILED);
    assert.deepEqual(log, ["done "]);
    assert.equal(connection.error, undefined);
  });

  it("its words are made fit for a terminal", () => {
    const { peer, connection } = connect();
    const { log } = open(connection, STAT);
    peer.send(1, frames.FAILED, Buffer.concat([u32(2), Buffer.from("\x1b]0;x\x07bad\n\u202egnp")]));
    assert.deepEqual(log, ["refused 2 ?]0;x?bad??gnp"]);
  });
});
