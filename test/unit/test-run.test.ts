// Needs: nothing. What `make test` runs: processes side by side, one account.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

const LIMIT_MS = 60_000;
/** What puts a file among those that share the lab. */
const SHARES_LAB = "// helpers/guest-runner.js\n";

describe("test run: lanes, one last line", function () {
  this.timeout(LIMIT_MS);
  let folder = "";
  beforeEach(() => (folder = mkdtempSync(join(tmpdir(), "vmlet-test-"))));
  afterEach(() => {
    rmSync(folder, { recursive: true });
  });

  function run(contents: readonly string[], variables: Record<string, string> = {}) {
    const files = contents.map((content, index) => {
      const file = join(folder, `${String(index)}.test.cjs`);
      writeFileSync(file, content);
      return file;
    });
    const { status, stdout } = spawnSync(process.execPath, ["build/test/run.js", ...files], {
      encoding: "utf8",
      timeout: LIMIT_MS,
      env: { ...process.env, ...variables },
    });
    return { status, stdout, last: stdout.trimEnd().split("\n").at(-1) };
  }
  const passes = (name: string): string => `it(${JSON.stringify(name)}, () => undefined);\n`;
  const booted = `require("node:module");\nconst counts = import(${JSON.stringify(new URL("../helpers/booted.js", import.meta.url).href)});\nit("boots", async () => (await counts).countBoot());\n`;

  it("both lanes' tests are shown, one after the other, and counted in the last line", () => {
    const skipped = 'it("not here", function () { this.skip(); });\n';
    const { status, stdout, last } = run([
      passes("on this host") + skipped,
      SHARES_LAB + passes("in the lab") + booted,
    ]);
    assert.equal(last, "3 passed, 0 failed, 1 skipped", stdout);
    assert.equal(status, 0);
    assert.ok(stdout.indexOf("on this host") < stdout.indexOf("in the lab"), stdout);
    assert.equal(stdout.match(/passed, /g)?.length, 1, "no other line looks like the last one");
  });

  it("a failure in either lane fails the run", () => {
    const fails = 'it("fails", () => { throw new Error("on purpose"); });\n';
    for (const contents of [
      [fails, SHARES_LAB + booted],
      [booted, SHARES_LAB + fails],
    ]) {
      const { status, stdout, last } = run(contents);
      assert.deepEqual([status, last], [1, "1 passed, 1 failed, 0 skipped"], stdout);
      assert.match(
        stdout,
        /\nfailed: fails\n {4}on purpose\n1 passed/,
        "it is named at the end, in whichever lane it was",
      );
    }
  });

  it("what passes at its second try passes, and is named at the end", () => {
    const once = 'let tries = 0;\nit("stumbles", () => { if (tries++ === 0) throw new Error("of a moment"); });\n';
    const { status, stdout, last } = run([booted + once]);
    assert.deepEqual([status, last], [0, "2 passed, 0 failed, 0 skipped"], stdout);
    assert.match(stdout, /\nat its second try: stumbles\n {4}of a moment\n2 passed/);
  });

  it("what fails twice beside others and passes alone passes, and is named at the end; what fails alone, too, is a failure", () => {
    const disturbed = `let isLeft = false;
      describe("a file", () => {
        it("leaves something", () => { isLeft = true; });
        it("is (dis)turbed? [$1]", () => { if (isLeft) throw new Error("by what is left"); });
      });\n`;
    const { status, stdout, last } = run([booted, disturbed]);
    assert.deepEqual([status, last], [0, "3 passed, 0 failed, 0 skipped"], stdout);
    assert.match(
      stdout,
      /\npassed alone, not beside others; it failed: a file is \(dis\)turbed\? \[\$1\]\n {4}by what is left\n3 passed/,
    );
    const fails = 'it("fails", () => { throw new Error("on purpose"); });\n';
    const other = run([booted, disturbed + fails]);
    assert.deepEqual([other.status, other.last], [1, "2 passed, 2 failed, 0 skipped"], other.stdout);
    assert.match(other.stdout, /\nfailed: fails\n {4}on purpose\nfailed: a file is .*\n.*\n2 passed/);
  });

  it("many failures are not run again, nor are hooks", () => {
    const fails = Array.from({ length: 9 }, (_, n) => `it("${String(n)}", () => { throw new Error("on purpose"); });`);
    const { last, stdout } = run([booted, fails.join("\n")]);
    assert.equal(last, "1 passed, 9 failed, 0 skipped", stdout);
    assert.doesNotMatch(stdout, /failed beside others/);
    const hook =
      'describe("a file", () => { before(() => { throw new Error("on purpose"); }); it("never", () => undefined); });\n';
    const other = run([booted, hook]);
    assert.equal(other.last, "1 passed, 1 failed, 0 skipped", other.stdout);
    assert.doesNotMatch(other.stdout, /failed beside others/);
  });

  it("a lane whose process dies is a failure", () => {
    const { status, stdout, last } = run([booted, `${SHARES_LAB}it("dies", () => process.exit(0));\n`]);
    assert.deepEqual([status, last], [1, "1 passed, 1 failed, 0 skipped"], stdout);
  });

  it("a test that blocks its process is named and ended, its file run once more, the files behind it too", () => {
    const sleeps = 'require("node:child_process").spawnSync("sleep", ["1000"]);';
    const once = `const marker = ${JSON.stringify(join(folder, "marker"))}; const fs = require("node:fs");
      it("before", () => undefined);
      it("stands still", function () { this.timeout(500); if (fs.existsSync(marker)) return; fs.writeFileSync(marker, ""); ${sleeps} });`;
    const { status, stdout, last } = run([passes("first"), once, booted], { VMLET_TEST_HANGS_AFTER_MS: "1000" });
    assert.deepEqual([status, last], [0, "4 passed, 0 failed, 0 skipped"], stdout);
    assert.match(stdout, /hangs: stands still; .*\n(.*\n)* +\d+ S .*: sleep 1000\n/);
    assert.match(stdout, /\nat its second try: stands still \(.*1\.test\.cjs\): hangs\n4 passed/);
  });

  it("one that blocks twice is a failure, and the files behind it are run", () => {
    const blocks = 'it("blocks", function () { this.timeout(200); for (;;); });\n';
    const { status, stdout, last } = run([passes("first"), blocks, booted], { VMLET_TEST_HANGS_AFTER_MS: "500" });
    assert.deepEqual([status, last], [1, "2 passed, 1 failed, 0 skipped"], stdout);
    assert.match(stdout, /\nfailed: blocks \(.*1\.test\.cjs\): hangs\n2 passed/);
  });

  it("what a test leaves behind is said, and not waited for", () => {
    const leaves = 'it("leaves", () => { require("node:child_process").spawn("sleep", ["1000"]); });\n';
    const { status, stdout, last } = run([booted + leaves]);
    assert.deepEqual([status, last], [0, "2 passed, 0 failed, 0 skipped"], stdout);
    assert.match(stdout, /\nleft behind by a test: .*ProcessWrap.*\n2 passed/);
  });

  it("a process that a test leaves with the run's output is ended and named", () => {
    const leaves = `it("leaves", () => {
      require("node:child_process").spawn("sleep", ["1000"], { stdio: "inherit", detached: true }).unref();
    });\n`;
    const { status, stdout, last } = run([booted + leaves]);
    assert.deepEqual([status, last], [0, "2 passed, 0 failed, 0 skipped"], stdout);
    assert.match(stdout, /\nleft behind by the tests of this host.*:\n {4}\d+ sleep 1000\n2 passed/);
  });

  it("a run that is ended in the middle says what it was at", async () => {
    const file = join(folder, "long.test.cjs");
    writeFileSync(
      file,
      'it("takes long", function (done) { require("node:child_process").spawn("sleep", ["1234"], { detached: true }); console.log("begun"); this.timeout(50_000); });\n',
    );
    const child = spawn(process.execPath, ["build/test/run.js", file], { stdio: ["ignore", "pipe", "inherit"] });
    let output = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      if (!output.includes("begun") && (output + text).includes("begun")) child.kill("SIGTERM");
      output += text;
    });
    const [status] = (await once(child, "close")) as [number | null];
    assert.equal(status, 1, output);
    assert.match(
      output,
      /\nSIGTERM: ended in the middle, after \d+ s\ntests of this host.*: takes long \(.*long\.test\.cjs\)\n/,
    );
  });

  it("a run without a boot is a failure, whatever else passed", () => {
    const { status, stdout, last } = run([passes("one"), SHARES_LAB + passes("two")]);
    assert.deepEqual([status, last], [1, "2 passed, 1 failed, 0 skipped"], stdout);
    assert.match(stdout, /No guest could be booted anywhere/);
  });

  it("the reporter names each test when it begins, and says what a long one is busy with", () => {
    const file = join(folder, "long.test.cjs");
    const running = new URL("../helpers/running.js", import.meta.url).href;
    const body = `(await import(${JSON.stringify(running)})).describeRunning(() => "the lab is starting"); await new Promise((done) => setTimeout(done, 700));`;
    writeFileSync(file, `${passes("short")}it("long", async () => { ${body} });\n`);
    const options = ["--reporter-option", "announce=1,still-running=300"];
    const argv = ["--no-config", "--reporter", "build/test/helpers/reporter.js", ...options, file];
    const { stdout } = spawnSync(process.execPath, ["node_modules/mocha/bin/mocha.js", ...argv], {
      encoding: "utf8",
      timeout: LIMIT_MS,
    });
    assert.match(
      stdout,
      /… 1 of 2: short\n[\s\S]*… 2 of 2: long\n[\s\S]*… long: running for \d+ s; the lab is starting\n/,
    );
    assert.match(stdout, /\n2 passed, 0 failed, 0 skipped\n$/);
  });
});
