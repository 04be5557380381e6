// All tests but those on VT-x and those of assigned devices, in three processes at once: the files that share the lab, whose emulated host is
// slow and alone in its process, most of those that boot guests on this host, and everything else. What needs the host for itself
// follows when they have ended. The output of one waits until the one before has ended, so that all can be read; the last
// lines name what failed and count all.
//   node build/test/run.js [FILE...]
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, relative } from "node:path";
import { testsToRunAgain, withThoseAlone } from "./helpers/alone.js";
import { addCounts, closingLine, failsForWantOfBoot, timeLines } from "./helpers/counts.js";
import { Lane } from "./helpers/lane.js";

const TESTS = "build/test";
/** Folders that are not for this run: they take minutes. */
const LEFT_OUT = /^(?:vtx|vfio|soak)\//;
/** What all files that share the lab import. */
const SHARES_LAB = "helpers/guest-runner.js";
/** Boots in the lane of everything else, so that all lanes end at about the same time: the last lines of a run say when they did. */
const WITH_OTHERS = /\/boot\/(?:command|cpu-models|image|lab-state|ordinary-user|package|user-net)\.test\.js$/;

/**
 * Twenty guests at once, which a software KVM emulates: beside other tests, the ticks of their clocks leave them no time for
 * anything else. And what engines ask of several containers one after another: it takes long enough alone.
 */
const ALONE = /\/boot\/oci-(?:containerd|docker)\.test\.js$/;

interface LaneFiles {
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

function lanes(files: readonly string[]): LaneFiles[] {
  const inLab = files.filter((file) => readFileSync(file, "utf8").includes(SHARES_LAB));
  const booting = files.filter((file) => !inLab.includes(file) && file.includes("/boot/") && !WITH_OTHERS.test(file));
  const others = files.filter((file) => !inLab.includes(file) && !booting.includes(file));
  return [
    { name: "tests of this host, with some boots", files: others },
    { name: "tests of real kernels on this host", files: booting },
    { name: "tests of real kernels in the lab, or on this host's VT-x or AMD-V", files: inLab },
  ].filter((lane) => lane.files.length > 0);
}

const folder = mkdtempSync(join(tmpdir(), "vmlet-tests-"));
const given = process.argv.slice(2);
const files = given.length === 0 ? allTests() : given;
const alone = files.filter((file) => ALONE.test(file));
const running: { readonly lane: Lane; readonly ended: Promise<number> }[] = [];
const times: { name: string; ms: number }[] = [];
const started = performance.now();

function begin({ name, files }: LaneFiles, titles?: readonly string[]): Lane {
  const lane = new Lane(name, files, folder, running.length > 0, titles);
  running.push({ lane, ended: lane.ended.then(() => performance.now() - started) });
  return lane;
}

/** Once all others have ended. */
function beginLast(): void {
  if (times.length < running.length || alone.length === 0) return;
  begin({ name: "tests that need this host for themselves", files: alone.splice(0) });
}

for (const lane of lanes(files.filter((file) => !alone.includes(file)))) begin(lane);
beginLast();
for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
  process.once(signal, () => {
    console.log(
      `\n${signal}: ended in the middle, after ${String(Math.round((performance.now() - started) / 1000))} s`,
    );
    for (const { lane } of running) console.log(lane.describe());
    void Promise.all(running.map(({ lane }) => lane.end(signal))).then(() => {
      rmSync(folder, { recursive: true, force: true });
      process.exit(1);
    });
  });
}

for (const { lane, ended } of running) {
  console.log(`\n== ${lane.name}`);
  lane.show();
  times.push({ name: lane.name, ms: await ended });
  beginLast();
}
let total = addCounts(running.map(({ lane }) => lane.counts));
for (const [file, titles] of testsToRunAgain(total, (name) => ALONE.test(name))) {
  const name = `tests that failed beside others: ${relative("", file)}`;
  console.log(`\n== ${name}`);
  const lane = begin({ name, files: [file] }, titles);
  lane.show();
  await lane.ended;
  total = withThoseAlone(total, file, lane.counts);
}
rmSync(folder, { recursive: true, force: true });
if (failsForWantOfBoot(total)) total.failed++;
console.log();
for (const line of timeLines(times, total)) console.log(line);
for (const retried of total.secondTries) console.log(retried);
for (const { text } of total.failures) console.log(text);
console.log(closingLine(total));
if (total.failed > 0) process.exitCode = 1;
