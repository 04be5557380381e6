// Needs: nothing. Several clients share one connection to an agent, over real Unix sockets.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { createConnection, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { AgentConnection } from "../../vmm/agent/connection.js";
import { Agent } from "../../vmm/agent/agent.js";
import * as frames from "../../vmm/agent/frames.js";
import { encodeHello } from "../../vmm/agent/hello.js";
import { AgentRelay } from "../../vmm/agent/relay.js";
import { SocketTransport } from "../../vmm/agent/socket-transport.js";
import { WINDOW } from "../../vmm/agent/stream.js";
import { AgentPeer, turns, u32 } from "../helpers/agent-peer.js";

describe("agent relay", () => {
  let folder: string;
  let server: Server;
  let peer: AgentPeer;
  let connection: AgentConnection;
  let relay: AgentRelay;
  const sockets: Socket[] = [];

  beforeEach(async () => {
    folder = mkdtempSync(join(tmpdir(), "agent-relay-"));
    peer = new AgentPeer();
    connection = new AgentConnection(peer);
    peer.hello();
    relay = new AgentRelay(connection);
    server = createServer((socket) => {
      relay.accept(new SocketTransport(socket));
    });
    await new Promise<void>((resolve) => server.listen(join(folder, "agent"), resolve));
  });

  afterEach(async () => {
    connection.close();
    for (const socket of sockets.splice(0)) socket.destroy();
    await new Promise((resolve) => server.close(resolve));
    rmSync(folder, { recursive: true });
  });

  function socket(): Socket {
    const one = createConnection(join(folder, "agent"));
    one.on("error", () => undefined);
    sockets.push(one);
    return one;
  }

  function client(): AgentConnection {
    return new AgentConnection(new SocketTransport(socket()));
  }

  async function until(condition: () => boolean): Promise<void> {
    while (!condition()) await turns(1);
  }

  it("each client has its own streams: commands cross with input, output, signals and ends", async () => {
    const clients = [new Agent(client()), new Agent(client())];
    const runs = clients.map((agent, index) => agent.run(["cat"], { stdin: `input ${String(index)}` }));
    await until(() => peer.sent(frames.END).length === 2);
    assert.deepEqual(
      peer.sent(frames.EXEC).map(({ stream }) => stream),
      [1, 2],
    );
    const inputs = peer.sent(frames.DATA).map(({ payload }) => payload.toString());
    assert.deepEqual(inputs.toSorted(), ["input 0", "input 1"]);
    for (const { stream, payload } of peer.sent(frames.DATA)) {
      peer.started(stream, 100 + stream);
      peer.send(stream, frames.DATA, payload);
      peer.send(stream, frames.DATA2, Buffer.from(`error of ${payload.toString()}`));
      peer.exit(stream, stream);
    }
    const results = await Promise.all(runs);
    assert.deepEqual(
      results.map(({ stdout }) => stdout),
      ["input 0", "input 1"],
    );
    assert.deepEqual(
      results.map(({ stderr }) => stderr),
      ["error of input 0", "error of input 1"],
    );
    assert.deepEqual(results.map(({ exitCode }) => exitCode).toSorted(), [1, 2]);
    for (const { connection: one } of clients) one.close();
  });

  it("a client that goes has its streams given up, and nobody else's", async () => {
    const [leaver, stayer] = [client(), new Agent(client())];
    const left = new Agent(leaver).run(["sleep"]);
    const stays = stayer.run(["true"]);
    await until(() => peer.sent(frames.EXEC).length === 2);
    leaver.close();
    await assert.rejects(left, { code: "ERR_AGENT", reason: "closed" });
    await until(() => peer.sent(frames.CANCEL).length === 1);
    await until(() => relay.clientCount === 1);
    const cancelled = peer.sent(frames.CANCEL)[0]?.stream ?? 0;
    const other = cancelled === 1 ? 2 : 1;
    peer.started(other);
    peer.exit(other);
    assert.equal((await stays).ok, true);
    peer.started(cancelled);
    peer.exit(cancelled, 0, 9);
    assert.equal(connection.error, undefined);
    stayer.connection.close();
  });

  it("a refusal reaches the client with its errno and words", async () => {
    const agent = new Agent(client());
    const answer = agent.files.stat("/missing");
    await until(() => peer.sent(frames.STAT).length === 1);
    peer.send(1, frames.FAILED, Buffer.concat([u32(2), Buffer.from("not there")]));
    await assert.rejects(answer, {
      code: "ERR_GUEST_REQUEST",
      errno: 2,
      errnoName: "ENOENT",
      message: "stat /missing: not there",
    });
    agent.connection.close();
  });

  it("a process without input is one of a client like any other", async () => {
    const agent = new Agent(client());
    const started = agent.exec(["true"], { noInput: true });
    await until(() => peer.sent(frames.EXEC).length === 1);
    const [{ stream } = { stream: 0 }] = peer.sent(frames.EXEC);
    peer.started(stream, 7);
    const child = await started;
    child.stdout.resume();
    child.stderr.resume();
    peer.send(stream, frames.END);
    peer.send(stream, frames.END, Buffer.from([2]));
    peer.send(stream, frames.DONE, Buffer.alloc(12));
    assert.deepEqual(await child.exit, { exitCode: 0, signal: null });
    assert.deepEqual(peer.sent(frames.END), []);
    assert.equal(relay.clientCount, 1);
  });

  it("a client gets no more input under way than a window, whatever the agent takes", async () => {
    const raw = socket();
    const decoder: { frames: { type: number; payload: Buffer }[] } = { frames: [] };
    const reader = new frames.FrameDecoder((_stream, type, payload) => {
      decoder.frames.push({ type, payload: Buffer.from(payload) });
      if (type === frames.HELLO)
        raw.write(frames.encodeFrame(0, frames.HELLO, encodeHello({ streams: 0, nonce: payload.readUInt32LE(12) })));
    });
    raw.on("data", (bytes: Buffer) => {
      reader.push(bytes);
    });
    await until(() => decoder.frames.length > 0);
    raw.write(frames.encodeFrame(9, frames.EXEC, Buffer.alloc(24)));
    for (let i = 0; i < 16; i++) raw.write(frames.encodeFrame(9, frames.DATA, Buffer.alloc(WINDOW / 16)));
    await until(() => peer.sent(frames.DATA).length > 0);
    await turns();
    const back = (): number =>
      decoder.frames
        .filter(({ type }) => type === frames.CREDIT)
        .reduce((sum, { payload }) => sum + payload.readUInt32LE(4), 0);
    await until(() => back() >= WINDOW);
    assert.equal(back(), WINDOW);
    for (let i = 0; i < 16; i++) raw.write(frames.encodeFrame(9, frames.DATA, Buffer.alloc(WINDOW / 16)));
    await turns(20);
    // The agent has given no credit, so the second window stays here, and no third may be sent.
    assert.equal(
      peer.sent(frames.DATA).reduce((sum, { payload }) => sum + payload.length, 0),
      WINDOW,
    );
    raw.write(frames.encodeFrame(9, frames.DATA, Buffer.alloc(1)));
    await new Promise((resolve) => raw.once("close", resolve));
    assert.equal(relay.clientCount, 0);
    assert.equal(peer.sent(frames.CANCEL).length, 1);
  });

  const rogues: [string, (id: number) => Buffer][] = [
    ["a frame that is too long", () => u32(1_000_000, 1, 9)],
    ["a type that the agent sends", () => frames.encodeFrame(1, frames.DONE)],
    ["a held program", () => frames.encodeFrame(1, frames.EXEC, u32(16, 0, 0, 0, 0, 0))],
    [
      "credit that was never used",
      () => Buffer.concat([frames.encodeFrame(1, frames.READ), frames.encodeFrame(1, frames.CREDIT, u32(1, 1))]),
    ],
    [
      "data of what takes none",
      () => Buffer.concat([frames.encodeFrame(1, frames.READ), frames.encodeFrame(1, frames.DATA, Buffer.alloc(1))]),
    ],
    ["another version", () => frames.encodeFrame(0, frames.HELLO, encodeHello({ streams: 0, nonce: 1 }, 9))],
  ];
  for (const [title, bytes] of rogues) {
    it(`sends away a client that breaks the protocol: ${title}`, async () => {
      const raw = socket();
      const reader = new frames.FrameDecoder((_stream, type, payload) => {
        if (type === frames.HELLO) {
          raw.write(frames.encodeFrame(0, frames.HELLO, encodeHello({ streams: 0, nonce: payload.readUInt32LE(12) })));
          raw.write(bytes(1));
        }
      });
      raw.on("data", (chunk: Buffer) => {
        reader.push(chunk);
      });
      await new Promise((resolve) => raw.once("close", resolve));
      assert.equal(relay.clientCount, 0);
      assert.equal(connection.error, undefined);
    });
  }

  it("the end of the agent is the end of every client", async () => {
    const one = client();
    await one.ready;
    peer.onClose?.();
    assert.equal((await one.closed).reason, "gone");
    const late = client();
    assert.equal((await late.closed).reason, "gone");
  });
});
