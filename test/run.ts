// All tests but those on VT-x, in three processes at once: the files that share the lab, whose emulated host is
// slow and alone in its process, most of those that boot guests on this host, and everything else. The output of one waits
// until the one before has ended, so that all can be read; the last lines name what failed and count all.
//   node build/test/run.js [FILE...]
import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { addCounts, closingLine, failsForWantOfBoot, timeLines, type Counts } from "./helpers/counts.js";
import { withoutCertificates } from "./helpers/certificates.js";

const TESTS = "build/test";
/** Folders that are not for this run: they take minutes. */
const LEFT_OUT = /^(?:vtx|soak)\//;
/** For a test that sets none, `ms`: a busy host stops everything for a second now and then. */
const USUAL_LIMIT_MS = 20_000;
/** What all files that share the lab import. */
const SHARES_LAB = "helpers/guest-runner.js";
/** Boots in the lane of everything else, so that all lanes end at about the same time: the last lines of a run say when they did. */
const BALANCE = /\/boot\/(?:command|cpu-models|image|lab-state|ordinary-user|package|user-net)\.test\.js$/;

interface Lane {
  readonly name: string;
  readonly files: readonly string[];
}

/** What is built from a file that is no longer there does not count. */
function allTests(): string[] {
  return readdirSync(TESTS, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".test.js") && !LEFT_OUT.test(name))
    .filter((name) => existsSync(join("test", name.replace(/js$/, "ts"))))
    .sort()
    .map((name) => join(TESTS, name));
}

function lanes(files: readonly string[]): Lane[] {
  const inLab = files.filter((file) => readFileSync(file, "utf8").includes(SHARES_LAB));
  const booting = files.filter((file) => !inLab.includes(file) && file.includes("/boot/") && !BALANCE.test(file));
  const others = files.filter((file) => !inLab.includes(file) && !booting.includes(file));
  return [
    { name: "tests of this host, with some boots", files: others },
    { name: "tests of real kernels on this host", files: booting },
    { name: "tests of real kernels in the lab, or on this host's VT-x or AMD-V", files: inLab },
  ].filter((lane) => lane.files.length > 0);
}

function start({ files }: Lane, countsFile: string): ChildProcess {
  const color = process.stdout.isTTY ? ["--color"] : [];
  const reporter = ["--reporter", "build/test/helpers/reporter.js", "--reporter-option", `counts=${countsFile}`];
  // On a host with other work, an emulated processor can stand still; what fails twice is a failure.
  const limit = ["--timeout", String(USUAL_LIMIT_MS), "--retries", "1"];
  const argv = ["node_modules/mocha/bin/mocha.js", "--no-config", ...limit, ...color, ...reporter, ...files];
  return spawn(process.execPath, argv, { stdio: ["ignore", "pipe", "pipe"], env: withoutCertificates() });
}

/** A lane that died has no numbers: that is a failure. */
function countsOf(file: string, name: string): Counts {
  try {
    return JSON.parse(readFileSync(file, "utf8")) as Counts;
  } catch {
    const failure = `The process of the ${name} has ended before its tests.`;
    console.log(failure);
    return { passed: 0, failed: 1, failures: [failure], secondTries: [], skipped: 0, booted: 0, files: {} };
  }
}

const folder = mkdtempSync(join(tmpdir(), "vmlet-tests-"));
const files = process.argv.slice(2);
const started = performance.now();
const running = lanes(files.length === 0 ? allTests() : files).map((lane, index) => {
  const countsFile = join(folder, String(index));
  const child = start(lane, countsFile);
  const held: Buffer[] = [];
  let isHeld = index > 0;
  const write = (chunk: Buffer): void => {
    if (isHeld) held.push(chunk);
    else process.stdout.write(chunk);
  };
  child.stdout?.on("data", write);
  child.stderr?.on("data", write);
  return {
    name: lane.name,
    countsFile,
    child,
    closed: new Promise<number>((done) => child.once("close", () => done(performance.now() - started))),
    show: () => {
      isHeld = false;
      for (const chunk of held.splice(0)) process.stdout.write(chunk);
    },
  };
});
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.once(signal, () => {
    for (const { child } of running) child.kill(signal);
    rmSync(folder, { recursive: true, force: true });
    process.exitCode = 1;
  });
}

const times: { name: string; ms: number }[] = [];
for (const { name, show, closed } of running) {
  console.log(`\n== ${name}`);
  show();
  times.push({ name, ms: await closed });
}
const total = addCounts(running.map(({ countsFile, name }) => countsOf(countsFile, name)));
rmSync(folder, { recursive: true, force: true });
if (failsForWantOfBoot(total)) total.failed++;
console.log();
for (const line of timeLines(times, total)) console.log(line);
for (const retried of total.secondTries) console.log(retried);
for (const failure of total.failures) console.log(failure);
console.log(closingLine(total));
if (total.failed > 0) process.exitCode = 1;
