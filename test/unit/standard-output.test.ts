// Needs: nothing. A guest's output on its way to a pipe, a file, a full disk: what waits, and that all of it comes.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { closeSync, constants, mkdtempSync, openSync, readFileSync, readSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { OutputQueue, OutputWriter } from "../../vmm/host/standard-output.js";

const PIPE_BYTES = 65_536;
const PATTERN = Buffer.from(Uint8Array.from({ length: 1_000_003 }, (_, index) => (index * 31) >>> 3));

describe("standard output", function () {
  this.timeout(30_000);
  let folder: string;
  let descriptors: number[];

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "vmlet-output-"));
    descriptors = [];
  });

  afterEach(() => {
    for (const fd of descriptors) closeSync(fd);
    rmSync(folder, { recursive: true });
  });

  function open(name: string, flags: number): number {
    const fd = openSync(join(folder, name), flags, 0o600);
    descriptors.push(fd);
    return fd;
  }

  /** A pipe that is read without waiting: its two ends. */
  function pipe(): readonly [reader: number, writer: number] {
    execFileSync("mkfifo", [join(folder, "pipe")]);
    return [open("pipe", constants.O_RDONLY | constants.O_NONBLOCK), open("pipe", constants.O_WRONLY)];
  }

  function closeNow(fd: number): void {
    descriptors.splice(descriptors.indexOf(fd), 1);
    closeSync(fd);
  }

  function writerOf(fd: number): { readonly writer: OutputWriter; readonly events: string[] } {
    const events: string[] = [];
    const writer = new OutputWriter(fd, {
      vanished: () => events.push("vanished"),
      failed: (why) => events.push(why),
    });
    return { writer, events };
  }

  const written = (writer: OutputWriter, bytes: Uint8Array): Promise<void> =>
    new Promise((resolve) => {
      writer.write(bytes, resolve);
    });

  /** All that comes until there are `length` bytes, in pieces. */
  async function readAll(fd: number, length: number): Promise<Buffer> {
    const pieces: Buffer[] = [];
    for (let count = 0; count < length;) {
      const piece = Buffer.alloc(10_000);
      let got = 0;
      try {
        got = readSync(fd, piece);
      } catch (error) {
        assert.equal((error as NodeJS.ErrnoException).code, "EAGAIN");
      }
      pieces.push(piece.subarray(0, got));
      count += got;
      if (got === 0) await sleep(1);
    }
    return Buffer.concat(pieces);
  }

  it("what fits into a pipe is there at once", () => {
    const [reader, fd] = pipe();
    const { writer } = writerOf(fd);
    let isDone = false as boolean;
    writer.write(PATTERN.subarray(0, PIPE_BYTES), () => (isDone = true));
    assert.ok(isDone);
    const bytes = Buffer.alloc(PIPE_BYTES);
    assert.equal(readSync(reader, bytes), PIPE_BYTES);
    assert.ok(bytes.equals(PATTERN.subarray(0, PIPE_BYTES)));
  });

  it("a full pipe is waited for, and nothing else waits", async () => {
    const [reader, fd] = pipe();
    const { writer, events } = writerOf(fd);
    const log: string[] = [];
    const waiting = written(writer, PATTERN).then(() => log.push("written"));
    // Timers of this thread go on.
    await sleep(50);
    log.push("read");
    assert.ok((await readAll(reader, PATTERN.length)).equals(PATTERN));
    await waiting;
    assert.deepEqual([log, events], [["read", "written"], []]);
  });

  it("the pipe stays as it is for others: a write to it waits", () => {
    const [, fd] = pipe();
    writerOf(fd);
    const [, flags = ""] = /^flags:\s*(\d+)$/m.exec(readFileSync(`/proc/self/fdinfo/${String(fd)}`, "latin1")) ?? [];
    assert.equal(Number.parseInt(flags, 8) & constants.O_NONBLOCK, 0);
  });

  for (const isFull of [false, true]) {
    it(`a reader that goes ${isFull ? "while a write waits" : "before a write"} is told once`, async () => {
      const [reader, fd] = pipe();
      const { writer, events } = writerOf(fd);
      if (isFull) {
        const waiting = written(writer, PATTERN);
        await sleep(20);
        closeNow(reader);
        await waiting;
      } else {
        closeNow(reader);
        await written(writer, PATTERN);
      }
      await written(writer, PATTERN);
      assert.deepEqual([events, writer.lostBytes], [["vanished"], 0]);
    });
  }

  it("a queue of many pieces at once: each once, in order, on one stack", async () => {
    const [reader, fd] = pipe();
    const { writer } = writerOf(fd);
    const queue = new OutputQueue(writer);
    const done: number[] = [];
    const count = 50_000;
    for (let index = 0; index < count; index++) {
      queue.push(Buffer.from(`${String(index)}\n`), () => done.push(index));
    }
    const expected = Array.from({ length: count }, (_, index) => `${String(index)}\n`).join("");
    assert.equal((await readAll(reader, expected.length)).toString(), expected);
    await queue.drained();
    assert.deepEqual(
      done,
      Array.from({ length: count }, (_, index) => index),
    );
  });

  it("what a piece's end pushes is written in its turn", async () => {
    const [reader, fd] = pipe();
    const { writer } = writerOf(fd);
    const queue = new OutputQueue(writer);
    queue.push(Buffer.from("a"), () => {
      queue.push(Buffer.from("c"));
    });
    queue.push(Buffer.from("b"));
    await queue.drained();
    // Nothing waits when the first is written at once: its end comes before the second is there.
    assert.equal((await readAll(reader, 3)).toString(), "acb");
  });

  it("a file is written in full", async () => {
    const fd = open("file", constants.O_WRONLY | constants.O_CREAT);
    const { writer, events } = writerOf(fd);
    await written(writer, PATTERN);
    assert.ok(readFileSync(join(folder, "file")).equals(PATTERN));
    assert.deepEqual(events, []);
  });

  it("on a full disk what is lost is counted, and said once", async () => {
    const fd = openSync("/dev/full", constants.O_WRONLY);
    descriptors.push(fd);
    const { writer, events } = writerOf(fd);
    await written(writer, Buffer.alloc(10));
    await written(writer, Buffer.alloc(7));
    assert.deepEqual([writer.lostBytes, events], [17, ["no space left on the device (ENOSPC)"]]);
  });
});
