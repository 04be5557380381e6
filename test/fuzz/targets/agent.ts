// The host's end of the agent's protocol against a guest, and a relay against a client, that say anything in any pieces: the
// connection goes on or ends with an AgentError; each stream ends once; nothing is sent above a credit, and nothing is kept
// beyond a window.
import assert from "node:assert/strict";
import { GuestCommand } from "../../../vmm/agent/command.js";
import { AgentConnection } from "../../../vmm/agent/connection.js";
import * as frames from "../../../vmm/agent/frames.js";
import { encodeHello } from "../../../vmm/agent/hello.js";
import { ListDecoder } from "../../../vmm/agent/list-decoder.js";
import { RelayClient } from "../../../vmm/agent/relay-client.js";
import { WINDOW, type AgentStream, type Output } from "../../../vmm/agent/stream.js";
import { AgentError } from "../../../vmm/errors.js";
import { AgentPeer, u32 } from "../../helpers/agent-peer.js";
import type { Random } from "../random.js";
import type { FuzzTarget } from "../target.js";

const STEPS = 60;
const FROM_AGENT: readonly number[] = [
  frames.DONE,
  frames.FAILED,
  frames.DATA,
  frames.DATA2,
  frames.END,
  frames.CREDIT,
  frames.CLOSED,
  frames.STARTED,
  frames.PONG,
];
const FROM_CLIENT: readonly number[] = [
  frames.EXEC,
  frames.READ,
  frames.WRITE,
  frames.LIST,
  frames.STAT,
  frames.DATA,
  frames.END,
  frames.CREDIT,
  frames.CANCEL,
  frames.SIGNAL,
  frames.RESIZE,
  frames.PING,
  frames.SYNC,
];

function bytes(random: Random, length: number): Buffer {
  const made = Buffer.alloc(length);
  for (let at = 0; at < length; at += 1 + random.below(8)) made[at] = random.u32() & 0xff;
  return made;
}

/** A payload as the type has it, or one that is near it, or none. */
function payloadOf(random: Random, type: number): Buffer {
  if (random.oneIn(12)) return bytes(random, random.below(100));
  switch (type) {
    case frames.STARTED:
      return u32(random.oneIn(8) ? random.value() : 1 + random.below(1000));
    case frames.CREDIT:
      return u32(
        random.oneIn(8) ? random.value() : 1 + random.below(2),
        random.oneIn(4) ? random.value() : random.below(20_000),
      );
    case frames.DONE:
      return random.oneIn(3) ? bytes(random, random.pick([0, 1, 12, 64])) : u32(random.below(300), random.below(70), 0);
    case frames.END:
      return random.oneIn(2) ? Buffer.alloc(0) : Buffer.from([2]);
    case frames.FAILED:
      return Buffer.concat([u32(random.value()), bytes(random, random.below(40))]);
    case frames.DATA:
    case frames.DATA2:
      return bytes(random, random.oneIn(6) ? random.below(frames.MAX_PAYLOAD) : random.below(3000));
    case frames.SIGNAL:
    case frames.RESIZE:
      return u32(random.value());
    case frames.CLOSED:
    case frames.CANCEL:
    case frames.SYNC:
      return Buffer.alloc(0);
    default:
      return bytes(random, random.below(64));
  }
}

/** One frame, sometimes with a header that lies. */
function frameOf(random: Random, types: readonly number[], streams: number): Buffer {
  const type = random.oneIn(40) ? random.below(256) : random.pick(types);
  const stream = random.oneIn(30) ? random.value() : random.below(streams + 1);
  const frame = frames.encodeFrame(stream, type, payloadOf(random, type));
  if (random.oneIn(60)) frame.writeUInt32LE(random.value(), 0);
  if (random.oneIn(100)) frame[9 + random.below(3)] = random.below(256);
  return frame;
}

/** Hands bytes on in pieces of any length. */
function inPieces(random: Random, all: Buffer, take: (piece: Buffer) => void): void {
  if (random.oneIn(2)) {
    take(all);
    return;
  }
  for (let at = 0; at < all.length;) {
    const next = Math.min(all.length, at + 1 + random.below(random.pick([2, 20, 5000])));
    take(all.subarray(at, next));
    at = next;
  }
}

/** One request of the host, and what has become of it. */
class Watched {
  ends = 0;
  readonly unread = [0, 0, 0];
  stream: AgentStream | undefined;

  end(): void {
    this.ends++;
  }

  take(output: Output, length: number): void {
    assert.equal(this.ends, 0, "data after the end");
    const unread = (this.unread[output] ?? 0) + length;
    this.unread[output] = unread;
    assert.ok(unread <= WINDOW, "more than a window is kept");
  }

  /** The reader takes some of what has come. */
  read(random: Random): void {
    for (const output of [1, 2] as const) {
      const count = random.below((this.unread[output] ?? 0) + 1);
      this.unread[output] = (this.unread[output] ?? 0) - count;
      this.stream?.consumed(output, count);
    }
  }
}

function open(random: Random, connection: AgentConnection): Watched {
  const watched = new Watched();
  if (random.oneIn(2)) {
    const command = new GuestCommand(
      connection,
      ["x"],
      { mergeOutput: random.oneIn(3), noInput: random.oneIn(3) },
      {
        onOutput: (output, data) => {
          watched.take(output, data.length);
        },
        onExit: ({ exitCode }) => {
          assert.ok(exitCode >= 0 && exitCode <= 255);
          watched.end();
        },
        onFailed: () => {
          watched.end();
        },
      },
    );
    watched.stream = command.stream;
    return watched;
  }
  const type = random.pick([frames.READ, frames.LIST, frames.WRITE, frames.STAT]);
  const decoder = new ListDecoder("list /");
  watched.stream = connection.open(
    {
      type,
      payload: Buffer.from("/\0"),
      what: "x",
      outputs: type === frames.READ || type === frames.LIST ? 1 : 0,
      hasInput: type === frames.WRITE,
    },
    {
      onData: (output, data) => {
        watched.take(output, data.length);
        if (type === frames.LIST)
          for (const { name } of decoder.push(data)) assert.ok(name !== "" && !name.includes("/"));
      },
      onDone: () => {
        watched.end();
      },
      onRefused: () => {
        watched.end();
      },
      onLost: () => {
        watched.end();
      },
    },
  );
  return watched;
}

/** What the host has sent on each stream is within the credits that it was given. */
class Credits {
  readonly #left = new Map<number, number>();

  seen(stream: number, type: number, payload: Buffer): void {
    if (type !== frames.DATA) return;
    const left = (this.#left.get(stream) ?? WINDOW) - payload.length;
    assert.ok(left >= 0, "data above the credit");
    this.#left.set(stream, left);
  }

  given(bytesGiven: Buffer): void {
    if (bytesGiven.length !== frames.HEADER_BYTES + 8 || bytesGiven[8] !== frames.CREDIT) return;
    const stream = bytesGiven.readUInt32LE(4);
    this.#left.set(stream, (this.#left.get(stream) ?? WINDOW) + bytesGiven.readUInt32LE(16));
  }
}

export const agentTarget: FuzzTarget = {
  name: "agent",
  run(random: Random): void {
    const peer = new AgentPeer();
    const credits = new Credits();
    peer.onFrame = (stream, type, payload) => {
      credits.seen(stream, type, payload);
    };
    const connection = new AgentConnection(peer);
    const all: Watched[] = [];
    if (!random.oneIn(10)) peer.hello(1 + random.below(3), random.oneIn(5) ? random.value() : 20);
    for (let step = 0; step < STEPS && connection.error === undefined; step++) {
      random.operations++;
      switch (random.below(8)) {
        case 0:
          if (all.length < 30) {
            const opened = open(random, connection);
            all.push(opened);
            // An honest beginning, so that lies come later, too.
            const { id = 0, request } = opened.stream ?? {};
            if (id > 0 && request?.isCommand === true && !random.oneIn(4)) peer.started(id);
          }
          break;
        case 1: {
          const { stream } = all.length === 0 ? {} : random.pick(all);
          if (random.oneIn(6)) stream?.end();
          else if (random.oneIn(8)) stream?.cancel();
          else stream?.write(Buffer.alloc(random.below(100_000)));
          break;
        }
        case 2:
          if (all.length > 0) random.pick(all).read(random);
          break;
        case 3:
          if (random.oneIn(3)) peer.isFull = true;
          else peer.drain();
          break;
        default: {
          const frame = random.oneIn(100)
            ? frames.encodeFrame(0, frames.HELLO, encodeHello({ streams: random.value(), nonce: random.below(4) }))
            : frameOf(random, FROM_AGENT, all.length);
          credits.given(frame);
          inPieces(random, frame, (piece) => {
            peer.raw(piece);
          });
        }
      }
    }
    assert.ok(connection.error === undefined || connection.error instanceof AgentError);
    connection.close();
    assert.ok(peer.isClosed);
    for (const { ends, stream } of all) {
      // What was given up before it began ends in a later turn.
      if (stream?.isCancelled === true && stream.id === 0) continue;
      assert.equal(ends, 1, "a stream has not ended once");
      assert.equal(stream?.isLive, false);
    }
  },
};

/** The client's end of a relay, without a socket. */
class ClientEnd extends AgentPeer {
  pause(): void {
    // The fuzzer goes on: what comes although it was asked to wait must do no harm.
  }

  resume(): void {
    // As above.
  }
}

export const relayTarget: FuzzTarget = {
  name: "relay",
  run(random: Random): void {
    const peer = new AgentPeer();
    const credits = new Credits();
    peer.onFrame = (stream, type, payload) => {
      credits.seen(stream, type, payload);
    };
    const connection = new AgentConnection(peer);
    peer.hello();
    const end = new ClientEnd();
    let gone = 0;
    const client = new RelayClient(connection, end, 7, () => gone++);
    if (!random.oneIn(10)) end.raw(frames.encodeFrame(0, frames.HELLO, encodeHello({ streams: 0, nonce: 7 })));
    for (let step = 0; step < STEPS && gone === 0; step++) {
      random.operations++;
      if (random.oneIn(3)) {
        const frame = frameOf(random, FROM_AGENT, 8);
        credits.given(frame);
        peer.raw(frame);
        if (connection.error !== undefined) break;
      } else if (random.oneIn(6)) {
        const side = random.oneIn(2) ? peer : end;
        if (random.oneIn(2)) side.isFull = true;
        else side.drain();
      } else {
        inPieces(random, frameOf(random, FROM_CLIENT, 8), (piece) => {
          end.raw(piece);
        });
      }
    }
    // A client alone does no harm to the connection that it shares with others.
    assert.ok(connection.error === undefined || connection.error.reason !== "closed");
    client.close();
    connection.close();
    assert.equal(gone, 1);
    assert.ok(end.isClosed);
    assert.ok(peer.frames.every(({ type }) => type !== 0));
  },
};
