// Needs: nothing. Who looks at a VM's program from other processes: slow ones, dead ones, and what is no client.
import assert from "node:assert/strict";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { mkdtempSync, rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { DATA, encodeFrame } from "../../vmm/agent/frames.js";
import { AttachServer, ATTACH_STREAM, type AttachOptions } from "../../vmm/sdk/attach-server.js";

const CHUNK = Buffer.alloc(32 * 1024, 7);
const SLOW_MS = 150;
/** More than sockets of this host hold for a reader that does not read. */
const MANY_BYTES = 16 * 2 ** 20;

describe("sdk: who attaches to a program", () => {
  let folder: string;
  let server: AttachServer;
  const clients: Socket[] = [];
  /** What the program takes now, and what it has taken. */
  let room: number;
  let taken: Buffer[];

  function listen(options: AttachOptions): void {
    room = 0;
    taken = [];
    const program = {
      input: (bytes: Uint8Array) => {
        const count = Math.min(room, bytes.length);
        room -= count;
        taken.push(Buffer.from(bytes.subarray(0, count)));
        return count;
      },
      endInput: () => undefined,
      resize: () => undefined,
      signal: () => undefined,
    };
    server = AttachServer.listen(join(folder, "attach"), program, { slowClientMs: SLOW_MS, ...options });
  }

  async function client(): Promise<Socket> {
    const socket = connect(join(folder, "attach"));
    clients.push(socket);
    socket.on("error", () => undefined);
    await once(socket, "connect");
    // The server has it, too.
    await sleep(20);
    return socket;
  }

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "vmlet-attach-"));
  });

  afterEach(() => {
    for (const socket of clients.splice(0)) socket.destroy();
    server.close();
    rmSync(folder, { recursive: true });
  });

  /** A program that writes whenever it may; how much it has been let. */
  function write(): { bytes: number; stop: () => void } {
    const state = { bytes: 0, isOver: false, stop: () => void (state.isOver = true) };
    const next = (): void => {
      if (state.isOver || state.bytes >= MANY_BYTES) return;
      server.output(1, CHUNK, () => {
        state.bytes += CHUNK.length;
        setImmediate(next);
      });
    };
    next();
    return state;
  }

  it("one that does not read holds the program while it is alone, and nothing grows here; it gets all once it reads", async () => {
    listen({});
    const slow = await client();
    const program = write();
    await sleep(4 * SLOW_MS);
    const held = program.bytes;
    assert.ok(held < 4 * 2 ** 20, String(held));
    await sleep(2 * SLOW_MS);
    assert.equal(program.bytes, held);
    let got = 0;
    slow.on("data", (bytes: Buffer) => (got += bytes.length));
    while (program.bytes < MANY_BYTES || got < MANY_BYTES) await sleep(10);
    assert.ok(!slow.destroyed);
  });

  it("where its output is kept, or others look, one that does not read is dropped, and the program goes on", async () => {
    for (const hasOtherReaders of [true, false]) {
      listen({ hasOtherReaders });
      const slow = await client();
      const other = hasOtherReaders ? undefined : await client();
      let got = 0;
      other?.on("data", (bytes: Buffer) => (got += bytes.length));
      const program = write();
      while (program.bytes < MANY_BYTES) await sleep(10);
      const closed = once(slow.resume(), "close");
      await closed;
      while (other !== undefined && got < MANY_BYTES) await sleep(10);
      server.close();
    }
  });

  it("one that dies in the middle holds nothing up", async () => {
    listen({});
    const dying = await client();
    const program = write();
    await sleep(SLOW_MS);
    assert.ok(program.bytes < MANY_BYTES);
    dying.destroy();
    while (program.bytes < MANY_BYTES) await sleep(10);
  });

  it("what it types waits in its own process while the program does not read, and comes whole and in order", async () => {
    listen({});
    const typing = await client();
    const bytes = randomBytes(4 * 2 ** 20);
    for (let at = 0; at < bytes.length; at += 65_536) {
      typing.write(encodeFrame(ATTACH_STREAM, DATA, bytes.subarray(at, at + 65_536)));
    }
    await sleep(2 * SLOW_MS);
    assert.ok(typing.writableLength > 2 * 2 ** 20, String(typing.writableLength));
    while (Buffer.concat(taken).length < bytes.length) {
      room = 100_000;
      server.inputRoom();
      await sleep(1);
    }
    assert.ok(Buffer.concat(taken).equals(bytes));
  });

  it("what is no client is dropped", async () => {
    listen({});
    const stranger = await client();
    stranger.write(Buffer.alloc(64, 0xff));
    await once(stranger.resume(), "close");
  });
});
