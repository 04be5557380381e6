// Needs: nothing. Files that are written while a guest runs: which may be, and that none of them is in the way.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import {
  closeSync,
  constants,
  existsSync,
  linkSync,
  mkdtempSync,
  openSync,
  readFileSync,
  readSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { OutputFile } from "../../vmm/cli/output-file.js";
import { checkClashes, checkWritable } from "../../vmm/cli/output-paths.js";
import { writeWhole } from "../../vmm/cli/report.js";
import { ConfigError } from "../../vmm/errors.js";

describe("output files", function () {
  this.timeout(10_000);
  let folder: string;
  const at = (name: string): string => join(folder, name);

  beforeEach(() => (folder = mkdtempSync(join(tmpdir(), "vmlet-outputs-"))));
  afterEach(() => rmSync(folder, { recursive: true }));

  function open(path: string): { readonly file: OutputFile; readonly problems: string[] } {
    const problems: string[] = [];
    return { file: new OutputFile(path, { failed: (why) => problems.push(why) }), problems };
  }

  it("a file is emptied and filled", async () => {
    writeFileSync(at("file"), "what was there before, and longer");
    const { file, problems } = open(at("file"));
    file.write("one\n");
    await file.close("two\n");
    assert.deepEqual([readFileSync(at("file"), "utf8"), file.lost, problems], ["one\ntwo\n", 0, []]);
  });

  it("a full disk: one warning, everything counted, nothing thrown", async () => {
    const { file, problems } = open("/dev/full");
    for (let index = 0; index < 3; index++) {
      file.write("line\n");
      await sleep(20);
    }
    await file.close("last\n");
    assert.deepEqual([file.lost, problems], [4, ["no space left on the device (ENOSPC)"]]);
  });

  it("a FIFO that nobody reads is not waited for; once somebody does, whole pieces come", async () => {
    execFileSync("mkfifo", [at("fifo")]);
    const { file, problems } = open(at("fifo"));
    file.write("lost\n");
    const reader = openSync(at("fifo"), constants.O_RDONLY | constants.O_NONBLOCK);
    file.write("first\n");
    await sleep(20);
    const bytes = Buffer.alloc(100);
    assert.equal(bytes.toString("utf8", 0, readSync(reader, bytes)), "first\n");
    closeSync(reader);
    // The reader has gone.
    file.write("lost\n");
    await sleep(20);
    await file.close("lost\n");
    assert.equal(file.lost, 3);
    assert.equal(problems.length, 1);
    assert.match(problems[0] ?? "", /a FIFO that nobody reads/);
  });

  it("a FIFO that is full: what is begun is finished first", async () => {
    execFileSync("mkfifo", [at("fifo")]);
    const reader = openSync(at("fifo"), constants.O_RDONLY | constants.O_NONBLOCK);
    const { file, problems } = open(at("fifo"));
    const piece = `${"x".repeat(40_000)}\n`;
    for (let index = 0; index < 4; index++) {
      file.write(piece);
      await sleep(20);
    }
    const chunks: Buffer[] = [];
    const drain = (): void => {
      for (;;) {
        const chunk = Buffer.alloc(65_536);
        try {
          const count = readSync(reader, chunk);
          if (count === 0) return;
          chunks.push(chunk.subarray(0, count));
        } catch {
          return;
        }
      }
    };
    drain();
    await file.close("end\n");
    drain();
    closeSync(reader);
    const lines = Buffer.concat(chunks).toString("latin1").split("\n");
    assert.deepEqual([lines.map((line) => line.length), file.lost], [[40_000, 40_000, 3, 0], 2]);
    assert.deepEqual(problems, ["its reader does not keep up"]);
  });

  it("two VMs do not write one file", async () => {
    const first = open(at("file"));
    first.file.write('{"time_ms":1}\n');
    await sleep(20);
    assert.throws(
      () => checkWritable({ option: "--metrics", path: at("file"), begins: '{"time_ms":' }),
      /another vmlet is writing/,
    );
    const second = open(at("file"));
    assert.deepEqual(second.problems, ["another vmlet writes it"]);
    await first.file.close("");
    assert.equal(readFileSync(at("file"), "utf8"), '{"time_ms":1}\n');
    second.file.write("x");
    await second.file.close("y");
  });

  it("a report that cannot be written leaves the guest's status, unless that is 0", async () => {
    assert.equal(await writeWhole("--report", "/dev/full", "x", 7), 7);
    assert.equal(await writeWhole("--report", "/dev/full", "x", 0), 73);
    assert.equal(await writeWhole("--report", at("none/x"), "x", 7), 7);
    assert.equal(await writeWhole("--report", at("x"), "x", 7), 7);
    assert.equal(readFileSync(at("x"), "utf8"), "x");
  });

  it("an output that is an input, or another output, is refused, by whatever name", () => {
    writeFileSync(at("disk"), "contents");
    linkSync(at("disk"), at("hard"));
    symlinkSync("disk", at("soft"));
    symlinkSync("not-there", at("dangling"));
    const inputs = [{ option: "--disk", path: at("disk") }];
    for (const path of ["disk", "hard", "soft", "./disk"]) {
      assert.throws(() => checkClashes([{ option: "--metrics", path: join(folder, path) }], inputs), ConfigError, path);
    }
    for (const [one, other] of [
      ["new", "new"],
      ["new", "./new"],
      ["dangling", "not-there"],
    ] as const) {
      const outputs = [
        { option: "--report", path: at(one) },
        { option: "--control", path: `${folder}/${other}` },
      ];
      assert.throws(() => checkClashes(outputs, inputs), /the same file as --report/, other);
    }
    checkClashes(
      [
        { option: "--report", path: at("a") },
        { option: "--metrics", path: at("b") },
      ],
      inputs,
    );
    assert.equal(readFileSync(at("disk"), "utf8"), "contents");
  });

  it("what is there and not ours is refused, and left as it is", () => {
    const report = (path: string): void => checkWritable({ option: "--report", path, begins: '{\n  "vmlet":' });
    writeFileSync(at("mine"), "my work of a year");
    writeFileSync(at("ours"), '{\n  "vmlet": "0.1.0"\n}\n');
    writeFileSync(at("empty"), "");
    symlinkSync("loop", at("loop"));
    for (const [path, why] of [
      [at("mine"), /not an earlier one of vmlet's/],
      [folder, /a folder/],
      [at("loop"), /symbolic links/],
      [at("mine/x"), /not a folder/],
      ["/proc/report", /no such file|permission|not permitted/],
      ["/sys/report", /permission|not permitted/],
      [at("none/x"), /no such file or folder/],
      [at("x".repeat(300)), /name is too long/],
      ["/proc/version", /not an earlier one|permission denied/],
    ] as const) {
      assert.throws(() => report(path), why, path);
    }
    assert.equal(readFileSync(at("mine"), "utf8"), "my work of a year");
    for (const path of [at("ours"), at("empty"), at("new"), "/dev/null"]) report(path);
    assert.equal(existsSync(at("new")), false);
  });
});
