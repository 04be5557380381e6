// Needs: nothing.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, statSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { lastLines } from "../../vmm/cli/vms/logs.js";
import { LogReader, olderLog, OutputLog, type LogRecord } from "../../vmm/sdk/output-log.js";

function* readLog(path: string): Generator<LogRecord> {
  const reader = new LogReader(path);
  yield* reader.read();
  reader.close();
}

describe("sdk: what a VM's program has written", () => {
  let folder: string;
  let path: string;

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "vmlet-log-"));
    path = join(folder, "log");
  });

  afterEach(() => {
    rmSync(folder, { recursive: true });
  });

  it("every byte stays what it was, and whose it was", () => {
    const all = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
    const log = new OutputLog(path);
    log.write("stdout", all);
    log.write("stderr", Buffer.from('{"stream":"stdout","bytes":3}\n'));
    log.write("stdout", Buffer.alloc(200_000, 7));
    log.close();
    const records = [...readLog(path)];
    assert.deepEqual(
      records.map(({ stream, bytes }) => [stream, bytes.length]),
      [
        ["stdout", 256],
        ["stderr", 30],
        ["stdout", 200_000],
      ],
    );
    assert.ok(records[0]?.bytes.equals(all));
    assert.ok(records[2]?.bytes.every((byte) => byte === 7));
  });

  it("a reader that follows gets each record once, whole", () => {
    const log = new OutputLog(path);
    const reader = new LogReader(path);
    const seen: string[] = [];
    for (let i = 0; i < 5; i++) {
      log.write("stdout", Buffer.from(`line ${String(i)}\n`));
      for (const { bytes } of reader.read()) seen.push(bytes.toString());
    }
    log.close();
    reader.close();
    assert.equal(seen.join(""), "line 0\nline 1\nline 2\nline 3\nline 4\n");
  });

  it("a reader that follows loses nothing where the files turn, and goes on where it was too slow", () => {
    const log = new OutputLog(path, 1000);
    const reader = new LogReader(path);
    const take = (): string => [...reader.read()].map(({ bytes }) => bytes.toString()).join("");
    assert.equal(take(), "");
    let written = "";
    let seen = "";
    for (let i = 0; i < 200; i++) {
      const line = `${String(i).padStart(99)}\n`;
      log.write("stdout", Buffer.from(line));
      written += line;
      // Each time at another place of a file, and never two turns apart.
      if (i % 5 === 0) seen += take();
    }
    seen += take();
    assert.ok(seen === written);
    for (let i = 0; i < 50; i++) log.write("stdout", Buffer.from(`${String(i).padStart(99)}\n`));
    const rest = take();
    assert.ok(rest.endsWith(" 49\n") && rest.length >= 500, rest);
    assert.equal(take(), "");
    log.close();
    reader.close();
  });

  it("takes no more room than two files, and keeps the end", () => {
    const log = new OutputLog(path, 10_000);
    for (let i = 0; i < 1000; i++) log.write("stdout", Buffer.from(`${String(i).padStart(99)}\n`));
    log.close();
    assert.ok(statSync(path).size <= 10_000 && statSync(olderLog(path)).size <= 10_000);
    const text = Buffer.concat([...readLog(path)].map(({ bytes }) => bytes)).toString();
    assert.ok(text.endsWith("999\n"));
    assert.ok(text.length > 5000);
  });

  const texts = (records: Iterable<LogRecord>): string => [...records].map(({ bytes }) => bytes.toString()).join("|");
  const pieces = ["a\nb", "\nc\n", "d"].map((text): LogRecord => ({
    stream: "stdout",
    time: 0,
    bytes: Buffer.from(text),
  }));

  for (const [tail, expected] of [
    ["all", "a\nb|\nc\n|d"],
    ["1", "d"],
    ["2", "c\n|d"],
    ["3", "b|\nc\n|d"],
    ["9", "a\nb|\nc\n|d"],
    ["0", ""],
  ] as const) {
    it(`the last lines, across pieces: ${tail}`, () => {
      assert.equal(texts(lastLines(pieces, tail)), expected);
    });
  }

  it("a number of lines that is none is refused", () => {
    assert.throws(() => lastLines(pieces, "few"), /--tail "few" is not a number of lines, or all/);
  });
});
