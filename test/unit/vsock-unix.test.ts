// Needs: a temporary directory.
import assert from "node:assert/strict";
import { once } from "node:events";
import { existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createConnection, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { HostStream, StreamEvents } from "../../devices/virtio/vsock/backend.js";
import { UnixVsock } from "../../vmm/virtio/backends/vsock-unix.js";
import { HostError } from "../../vmm/errors.js";

const folder = mkdtempSync(join(tmpdir(), "vmlet-vsock-"));
const path = join(folder, "v.sock");

/** The device's side of one connection, in words. */
class Recorder implements StreamEvents {
  readonly log: string[] = [];
  readonly bytes: number[] = [];
  sentBytes = 0;

  connected(): void {
    this.log.push("connected");
  }
  data(bytes: Uint8Array): void {
    this.bytes.push(...bytes);
  }
  sent(length: number): void {
    this.sentBytes += length;
  }
  ended(): void {
    this.log.push("ended");
  }
  closed(isFailure: boolean): void {
    this.log.push(isFailure ? "failed" : "closed");
  }
  get text(): string {
    return Buffer.from(this.bytes).toString("latin1");
  }
}

async function until(what: string, isTrue: () => boolean): Promise<void> {
  for (let tries = 0; !isTrue(); tries++) {
    assert.ok(tries < 500, `never: ${what}`);
    await sleep(2);
  }
}

/** The other end is gone, politely or not. */
function isOver(socket: Socket): Promise<void> {
  return new Promise((resolve) => {
    socket
      .on("end", resolve)
      .on("close", resolve)
      .on("error", () => undefined);
    socket.resume();
  });
}

async function refusal(at: string): Promise<HostError> {
  try {
    await UnixVsock.listen(at, () => undefined).close();
  } catch (error) {
    assert.ok(error instanceof HostError);
    return error;
  }
  assert.fail("was opened");
}

describe("vsock over Unix sockets", () => {
  let vsock: UnixVsock;
  let opened: { port: number; stream: HostStream; recorder: Recorder }[];
  let isRefusing: boolean;
  const servers: Server[] = [];

  beforeEach(() => {
    opened = [];
    isRefusing = false;
    vsock = UnixVsock.listen(path, (line) => assert.fail(line));
    vsock.accept({
      open: (port, stream) => {
        if (isRefusing) return undefined;
        const recorder = new Recorder();
        opened.push({ port, stream, recorder });
        return recorder;
      },
    });
  });
  afterEach(async () => {
    await vsock.close();
    for (const server of servers.splice(0)) server.close();
  });
  after(() => rmSync(folder, { recursive: true }));

  async function program(greeting: string): Promise<{ socket: Socket; output: () => string }> {
    const socket = createConnection({ path, allowHalfOpen: true });
    let output = "";
    socket.on("data", (bytes: Buffer) => (output += bytes.toString("latin1")));
    await once(socket, "connect");
    socket.write(greeting);
    return { socket, output: () => output };
  }

  async function listener(port: number): Promise<Socket[]> {
    const sockets: Socket[] = [];
    const server = createServer({ allowHalfOpen: true }, (socket) => sockets.push(socket));
    servers.push(server);
    await new Promise<void>((resolve) => server.listen(`${path}_${String(port)}`, resolve));
    return sockets;
  }

  it("a host program's line opens a connection; OK comes when the guest has accepted", async () => {
    const { socket, output } = await program("CONNECT 52\n");
    await until("opened", () => opened.length === 1);
    assert.equal(opened[0]?.port, 52);
    await sleep(5);
    assert.equal(output(), "");
    opened[0].stream.opened(1073741824);
    await until("OK", () => output() === "OK 1073741824\n");
    socket.write("hello");
    const { recorder, stream } = opened[0];
    await until("data", () => recorder.text === "hello");
    stream.write(Buffer.from("world"));
    await until("answer", () => output() === "OK 1073741824\nworld");
    assert.equal(recorder.sentBytes, 5);
    socket.end();
    await until("ended", () => recorder.log.includes("ended"));
    stream.end();
    await until("closed", () => recorder.log.includes("closed"));
  });

  it("the line may come in pieces, and data right after it", async () => {
    const { socket } = await program("CONN");
    await sleep(5);
    socket.write("ECT 4294967294\nearly ");
    await until("opened", () => opened.length === 1);
    assert.equal(opened[0]?.port, 4294967294);
    socket.write("data");
    await sleep(5);
    assert.equal(opened[0].recorder.text, "");
    opened[0].stream.opened(1);
    await until("data", () => opened[0]?.recorder.text === "early data");
    socket.destroy();
  });

  const wrong = ["GET / HTTP/1.1\r\n", "CONNECT\n", "CONNECT 4294967295\n", "CONNECT -1\n", "CONNECT 1 \n", "\n"];
  for (const line of [...wrong, "CONNECT 00000000000001\n", "x".repeat(1000)]) {
    it(`closes on ${JSON.stringify(line.slice(0, 24))}`, async () => {
      const { socket } = await program(line);
      await isOver(socket);
      assert.equal(opened.length, 0);
      socket.destroy();
    });
  }

  it("a program that leaves before its line, or is refused by the device, is closed", async () => {
    const { socket } = await program("CONNE");
    socket.end();
    await isOver(socket);
    isRefusing = true;
    const refused = await program("CONNECT 1\n");
    await isOver(refused.socket);
    assert.equal(refused.output(), "");
    refused.socket.destroy();
    assert.equal(opened.length, 0);
  });

  it("the guest reaches the program at PATH_<port>, both ways and to the end", async () => {
    const sockets = await listener(1234);
    const recorder = new Recorder();
    const stream = vsock.connect(1234, recorder);
    await until("connected", () => recorder.log.includes("connected") && sockets.length === 1);
    const [socket] = sockets;
    let input = "";
    socket?.on("data", (bytes: Buffer) => (input += bytes.toString("latin1")));
    stream.write(Buffer.from("ping"));
    await until("ping", () => input === "ping" && recorder.sentBytes === 4);
    stream.end();
    socket?.on("end", () => socket.end("pong after the end"));
    await until("pong", () => recorder.text === "pong after the end");
    await until("closed", () => recorder.log.includes("closed"));
    assert.deepEqual(recorder.log, ["connected", "ended", "closed"]);
  });

  it("nobody at PATH_<port>: a failure, not an exception", async () => {
    const recorder = new Recorder();
    vsock.connect(99, recorder);
    assert.deepEqual(recorder.log, []);
    await until("failed", () => recorder.log.length > 0);
    assert.deepEqual(recorder.log, ["failed"]);
  });

  it("a program that does not read: what was sent is counted, the rest waits in one piece, in order", async () => {
    const sockets = await listener(5);
    const recorder = new Recorder();
    const stream = vsock.connect(5, recorder);
    await until("connected", () => recorder.log.length > 0 && sockets.length === 1);
    const total = 2 ** 20;
    const [socket] = sockets;
    socket?.pause();
    for (let byte = 0; byte < total; byte += 1024) stream.write(new Uint8Array(1024).fill(byte / 1024));
    for (let count = 0; count < 300; count++) stream.write(Uint8Array.of(count));
    stream.end();
    await sleep(20);
    assert.ok(recorder.sentBytes < total, String(recorder.sentBytes));
    const received: Buffer[] = [];
    socket?.on("data", (bytes: Buffer) => received.push(bytes));
    await isOver(socket ?? assert.fail());
    const all = Buffer.concat(received);
    assert.equal(all.length, total + 300);
    assert.ok(all.subarray(0, total).every((byte, index) => byte === (index >> 10) % 256));
    assert.ok(all.subarray(total).every((byte, index) => byte === index % 256));
    assert.equal(recorder.sentBytes, total + 300);
    socket?.destroy();
  });

  it("paused: nothing is read but what was under way", async () => {
    const { socket } = await program("CONNECT 52\n");
    await until("opened", () => opened.length === 1);
    const [connection] = opened;
    connection?.stream.opened(1);
    connection?.stream.pause();
    socket.write(new Uint8Array(4 * 2 ** 20));
    await sleep(20);
    assert.equal(connection?.recorder.bytes.length, 0);
    connection.stream.resume();
    await until("all", () => connection.recorder.bytes.length === 4 * 2 ** 20);
    connection.stream.destroy();
    await isOver(socket);
    assert.equal(connection.recorder.log.length, 0);
  });

  it("says what is wrong with a path, and removes its file at the end", async () => {
    const used = await refusal(path);
    assert.match(used.message, /exists already$/);
    assert.match(used.cure ?? "", /another program listens there/);
    const file = join(folder, "file");
    writeFileSync(file, "mine");
    assert.match((await refusal(file)).message, /exists already$/);
    assert.equal(existsSync(file), true);
    const missing = await refusal(join(folder, "none", "v.sock"));
    assert.match(missing.message, /no such folder/);
    assert.match((await refusal(join(folder, "x".repeat(100)))).message, /bytes; 1 to 96 fit$/);
    assert.match((await refusal("")).message, /0 bytes/);
    assert.equal(existsSync(path), true);
    await vsock.close();
    assert.equal(existsSync(path), false);
    vsock = UnixVsock.listen(path, () => undefined);
  });
});
