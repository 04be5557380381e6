// Needs: root, gcc, cpio; each rung that is there. Every rung really starts and stops an instance;
// what hangs, crashes or lies does not stop the rest; nothing is left behind.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { samplesOf, type Measurements } from "../../bench/harness.js";
import { RUNGS } from "../../bench/ladder/all-rungs.js";
import { cgroupLayout, topGroups } from "../../bench/ladder/cgroup.js";
import { changes } from "../../bench/ladder/compare.js";
import { isRoot } from "../../bench/ladder/detect.js";
import { outliers, ratio } from "../../bench/ladder/figures.js";
import { page } from "../../bench/ladder/html/page.js";
import { runLadder } from "../../bench/ladder/ladder.js";
import type { Plan } from "../../bench/ladder/plan.js";
import { STAGES, type LadderResult, type RungResult, type StageName } from "../../bench/ladder/result.js";
import type { Rung } from "../../bench/ladder/rung.js";
import { plainProcess } from "../../bench/ladder/rungs/plain-process.js";
import { sweepStale } from "../../bench/ladder/workspace.js";
import { parseSurvey, reachableCalls, type Isolation } from "../../bench/ladder/survey.js";
import { formatLadder } from "../../bench/ladder/text.js";
import { summarize } from "../../bench/statistics.js";
import { isolation, madeUpResult } from "../helpers/ladder-result.js";
import { skip } from "../helpers/skip.js";

const SMOKE_LIMIT_MS = 240_000;
const NONE = { fast: 0, slow: 0 };

function plan(rounds: Partial<Plan["rounds"]>): Plan {
  return {
    rounds: { start: NONE, "at-once": NONE, work: NONE, network: NONE, memory: NONE, density: NONE, ...rounds },
    workBudgetMs: 1,
    atOnce: [2],
    atOnceSlow: [2],
    density: { share: 0.01, timeMs: 2000, instances: 3 },
    densitySlow: { share: 0.01, timeMs: 2000, instances: 1 },
  };
}

function climb(rungs: readonly Rung[], chosen: Plan, signal = new AbortController().signal): Promise<LadderResult> {
  return runLadder({
    rungs,
    plan: chosen,
    quick: true,
    rounds: 1,
    signal,
    resumed: undefined,
    progress: () => undefined,
    save: () => undefined,
  });
}

/** Text of a file of /proc; empty for a process that has ended. */
function procText(pid: string, file: string): string {
  try {
    return readFileSync(`/proc/${pid}/${file}`, "latin1");
  } catch {
    return "";
  }
}

/** Containers of an engine of the host's own that have the name. */
function containersOf(name: string): string[] {
  const { status, stdout } = spawnSync("docker", ["ps", "-a", "--format", "{{.Names}}"], { encoding: "utf8" });
  return status === 0 ? stdout.split("\n").filter((line) => line.includes(name)) : [];
}

/**
 * What carries the name of a run: files, control groups, mounts (and with them bound namespaces), network devices,
 * containers, and processes: launchers, engines, monitors by their arguments, what is in a container by its group.
 * A namespace that no process, mount or device holds is gone.
 */
function leftBy(pid: number): string[] {
  const name = `vmlet-ladder-${String(pid)}`;
  const processes = readdirSync("/proc").flatMap((entry) => {
    if (!/^\d+$/.test(entry)) return [];
    const words = procText(entry, "cmdline");
    const isOurs = words.includes(name) || procText(entry, "cgroup").includes(name);
    return isOurs && Number(entry) !== process.pid ? [`process ${words.replaceAll("\0", " ")}`] : [];
  });
  return [
    ...readdirSync(tmpdir()).filter((entry) => entry.startsWith(name)),
    ...[...topGroups(cgroupLayout())].filter((group) => group.includes(name)),
    ...readFileSync("/proc/self/mounts", "utf8")
      .split("\n")
      .filter((line) => line.includes(name)),
    ...readdirSync("/sys/class/net").filter((device) => new RegExp(`^vml${String(pid)}[a-z]$`).test(device)),
    ...containersOf(name),
    ...processes,
  ];
}

/** A rung whose instances are this shell script. */
function fake(name: string, script: string, timeoutMs = 5000): Rung {
  return {
    ...{ name, adds: "", family: "process", limits: "own", network: "host", timeoutMs },
    detect: () => ({ version: "1" }),
    open: () => ({ command: () => ["/bin/sh", "-c", script] }),
  };
}

function rowOf({ rungs }: LadderResult, name: string): RungResult {
  const found = rungs.find((rung) => rung.name === name);
  assert.ok(found, `no row for ${name}`);
  return found;
}

describe("bench: ladder", function () {
  this.timeout(SMOKE_LIMIT_MS);
  before(function () {
    if (!isRoot()) skip(this, "most rungs need root");
  });

  it("what hangs, crashes, prints garbage or is missing is a row with its error, and the rest goes on", async () => {
    const missing: Rung = { ...fake("missing", ""), detect: () => ({ missing: "not here" }) };
    const broken: Rung = {
      ...fake("broken", ""),
      open: () => {
        throw new Error("cannot be set up");
      },
    };
    const rungs = [
      fake("hangs", "sleep 1000", 500),
      fake("crashes", "echo dying >&2; kill -SEGV $$"),
      fake("garbage", "echo '{]'"),
      missing,
      broken,
      plainProcess,
    ];
    const result = await climb(rungs, plan({ start: { fast: 2, slow: 0 } }));
    assert.match(rowOf(result, "hangs").skipped ?? "", /^hangs: not done after \d+(\.\d)? s/);
    assert.match(rowOf(result, "crashes").skipped ?? "", /exit status 139: .*/);
    assert.match(rowOf(result, "garbage").skipped ?? "", /without its first line: \{\]/);
    assert.equal(rowOf(result, "missing").skipped, "not here");
    assert.equal(rowOf(result, "broken").skipped, "cannot be set up");
    assert.equal(rowOf(result, "process").skipped, null);
    assert.deepEqual(
      result.stages.start?.series.map(({ variant, metric, samples }) => [variant, metric, samples.length]),
      [
        ["process", "start_first_output_ms", 2],
        ["process", "start_whole_life_ms", 2],
      ],
    );
    assert.deepEqual(leftBy(process.pid), []);
  });

  it("a rung that fails later keeps its row, without figures of that stage", async () => {
    const silent = fake("no-survey", "echo vmlet-ladder-first");
    const result = await climb([plainProcess, silent], plan({ work: { fast: 1, slow: 0 } }));
    assert.match(result.stages.work?.failures[0]?.error ?? "", /said nothing of what it sees/);
    assert.ok(result.stages.work?.series.some(({ variant }) => variant === "process"));
    assert.match(formatLadder(result), /not measured: no-survey, work: /);
  });

  it("every rung that is here starts, runs and stops its instance; nothing is left", async () => {
    const once = { fast: 1, slow: 0 };
    const isVm = ({ family }: Rung): boolean => family === "vm";
    const [vms, others] = [RUNGS.filter(isVm), RUNGS.filter((rung) => !isVm(rung))];
    const result = await climb(others, plan({ work: once, network: once, memory: once, density: once }));
    // "memory" has an instance do all the work of "work".
    const ofVms = await climb(vms, plan({ memory: once, density: once }));
    const all = [...result.rungs, ...ofVms.rungs];
    for (const { name, skipped } of all) if (skipped !== null) console.log(`      ${name}: ${skipped}`);
    const absent = (reason: string): boolean => /is not installed|needs |no Debian kernel|no .*namespaces/.test(reason);
    assert.deepEqual(
      all.filter(({ skipped }) => skipped !== null && !absent(skipped)).map(({ name, skipped }) => [name, skipped]),
      [],
    );
    const failures = [result, ofVms].flatMap(({ stages }) => STAGES.flatMap((stage) => stages[stage]?.failures ?? []));
    assert.deepEqual(failures, []);
    assert.deepEqual(leftBy(process.pid), []);
    const isolation = (name: string): Isolation | null => rowOf(result, name).isolation;
    const fast = result.rungs.filter(({ skipped }) => skipped === null).map(({ name }) => name);
    const withFigures = (stage: StageName, metric: string): string[] =>
      result.stages[stage]?.series.filter((series) => series.metric === metric).map(({ variant }) => variant) ?? [];
    for (const name of fast) {
      assert.ok(withFigures("work", "file_create_stat_unlink_ns").includes(name), name);
      assert.ok(withFigures("memory", "after_work_pss_kib").includes(name), name);
      assert.ok((rowOf(result, name).density?.started ?? 0) >= 1, name);
      const { network } = rowOf(result, name).skipped_work;
      assert.equal(network === undefined, withFigures("network", "network_round_trip_ns").includes(name), name);
    }
    assert.equal(rowOf(result, "process").density?.started, 3);
    assert.equal(isolation("process")?.sees_host_processes, true);
    assert.equal(isolation("ns-pid")?.pid, 1);
    assert.equal(isolation("ns-pid")?.sees_host_processes, false);
    assert.deepEqual(isolation("namespaces")?.interfaces, ["lo"]);
    assert.deepEqual(rowOf(result, "ns-net").namespaces, ["net"]);
    assert.equal(rowOf(result, "namespaces").namespaces?.length, 8);
    for (const html of [result, ofVms].map((one) => page(one))) {
      assert.ok(
        html.includes("<svg") && !html.includes("<script") && !/(?:src|href)="(?!https:\/\/|data:,)/.test(html),
      );
    }
  });

  /** `isGroup`: as a terminal does it for Ctrl-C, to all processes in the foreground. */
  async function interrupted(signal: NodeJS.Signals, isGroup = false): Promise<{ pid: number; status: number | null }> {
    const argv = ["bench", "--only", "process,runc,podman,docker,vmlet"];
    const child = spawn("dist/vmlet.js", argv, { stdio: "ignore", detached: true });
    const ended = new Promise<number | null>((done) => child.once("close", done));
    // The engine runs by then, and a VM is on its way.
    await delay(6000);
    const { pid } = child;
    assert.ok(pid);
    assert.notDeepEqual(leftBy(pid), [], "there is nothing that could be left");
    process.kill(isGroup ? -pid : pid, signal);
    return { pid, status: await ended };
  }

  it("SIGTERM in the midst of it: 143, and nothing is left", async () => {
    const { pid, status } = await interrupted("SIGTERM");
    assert.equal(status, 143);
    assert.deepEqual(leftBy(pid), []);
  });

  it("Ctrl-C: 130, and nothing is left", async () => {
    const { pid, status } = await interrupted("SIGINT", true);
    assert.equal(status, 130);
    assert.deepEqual(leftBy(pid), []);
  });

  it("SIGKILL: the instances and the engine go with it, and the next run sweeps the rest", async () => {
    const { pid } = await interrupted("SIGKILL");
    assert.notDeepEqual(leftBy(pid), []);
    // The launchers get a signal and have to kill.
    const processes = (): string[] => leftBy(pid).filter((what) => what.startsWith("process"));
    for (let tries = 0; tries < 100 && processes().length > 0; tries++) await delay(200);
    assert.deepEqual(processes(), []);
    sweepStale();
    assert.deepEqual(leftBy(pid), []);
  });
});

describe("bench: ladder, interrupted", function () {
  this.timeout(120_000);
  let folder = "";
  beforeEach(() => (folder = mkdtempSync(join(tmpdir(), "vmlet-resume-"))));
  afterEach(() => {
    rmSync(folder, { recursive: true });
  });

  const ROUNDS = 40;

  it("killed within a stage, it goes on at the round after, with the samples that it had", async () => {
    const file = join(folder, "resume.json");
    const argv = ["bench", "--quick", "--only", "process,ns-user", "--rounds", String(ROUNDS), "--resume", file];
    const samplesIn = (measurements: Measurements | undefined): readonly number[] =>
      measurements === undefined ? [] : samplesOf(measurements, "process", "start_first_output_ms");
    // Empty while it is tried whether it can be written.
    const read = (): LadderResult | undefined => {
      const text = existsSync(file) ? readFileSync(file, "utf8") : "";
      return text === "" ? undefined : (JSON.parse(text) as LadderResult);
    };

    writeFileSync(file, "");
    const child = spawn("dist/vmlet.js", argv, { stdio: "ignore" });
    const ended = new Promise((done) => child.once("close", done));
    while ((read()?.unfinished?.rounds ?? 0) < 3) await delay(5);
    child.kill("SIGKILL");
    await ended;
    const unfinished = read()?.unfinished;
    assert.ok(unfinished);
    assert.equal(unfinished.stage, "start");
    const before = samplesIn(unfinished.measurements);
    assert.equal(before.length, unfinished.rounds);
    assert.ok(before.length < ROUNDS, "it was over before it could be killed");

    assert.equal(spawnSync("dist/vmlet.js", argv, { stdio: "ignore" }).status, 0);
    const result = read();
    assert.ok(result);
    assert.equal(result.unfinished, null);
    const after = samplesIn(result.stages.start);
    assert.equal(after.length, ROUNDS);
    assert.deepEqual(after.slice(0, before.length), before);
    sweepStale();
    assert.deepEqual(leftBy(child.pid ?? 0), []);

    assert.equal(
      spawnSync(
        "dist/vmlet.js",
        argv.filter((word) => word !== "--quick"),
        { stdio: "ignore" },
      ).status,
      64,
    );
  });
});

describe("bench: ladder's words", () => {
  it("bad usage is 64, a file that cannot be written 73, both before anything is measured", () => {
    const status = (...argv: string[]): number | null =>
      spawnSync("dist/vmlet.js", ["bench", ...argv], { stdio: "ignore", timeout: 60_000 }).status;
    assert.equal(status("--rounds", "0"), 64);
    assert.equal(status("--only", "nonsense"), 64);
    assert.equal(status("--from", "package.json"), 64);
    assert.equal(status("--html", "/nonexistent/page.html"), 73);
    assert.equal(status("--list"), 0);
  });

  const EPERM = 1;
  const ENOSYS = 38;
  it("calls that a plain process reaches and a rung refuses are not reachable; what nobody has does not count", () => {
    const plain = isolation([0, 22, EPERM, ENOSYS, 14, -1]);
    assert.equal(reachableCalls(plain, plain), 3);
    assert.equal(reachableCalls(isolation([0, EPERM, EPERM, ENOSYS, 1000, -1]), plain), 1);
    assert.equal(reachableCalls(isolation([], true), plain), 0);
  });

  it("a survey: figures an operation, what is skipped, and no garbage", () => {
    const survey = parseSurvey('x\n{"metric":"a_ns","total_ns":50,"count":4}\r\n{"metric":"b_ns","skipped":"why"}\n');
    assert.deepEqual(survey, { work: { a_ns: 12.5 }, skipped: { b_ns: "why" }, isolation: undefined });
    assert.throws(() => parseSurvey('{"metric":'), /garbage/);
    assert.throws(() => parseSurvey("probe: fork: errno 11"), /errno 11/);
  });

  const stage = (samples: Readonly<Record<string, readonly number[]>>): LadderResult =>
    ({
      stages: {
        start: {
          failures: [],
          series: Object.entries(samples).map(([variant, values]) => ({
            variant,
            metric: "m",
            samples: values,
            summary: summarize(values),
          })),
        },
      } satisfies Partial<Record<StageName, unknown>>,
      stamp: { date: "d", commit: "c", cpu: "x", kernel: "k" },
    }) as unknown as LadderResult;

  it("a ratio pairs the rounds that both took part in; outliers are named", () => {
    const result = stage({ process: [1, 1, 1, 9, 9], vm: [10, 10, 10] });
    assert.deepEqual(ratio(result, "start", "m", "vm", "process"), { median: 10, low: 10, high: 10 });
    assert.equal(ratio(result, "start", "m", "vm", "runc"), undefined);
    const series = stage({ a: [1, 2, 3, 4, 100] }).stages.start?.series[0];
    assert.ok(series);
    assert.deepEqual(outliers(series), [100]);
  });

  it("a comparison names what changed beyond noise, and no more", () => {
    const before = stage({ same: [10, 11, 12, 11, 10], slower: [10, 11, 12, 11, 10], few: [1, 1] });
    const after = stage({ same: [11, 10, 12, 10, 11], slower: [20, 21, 22, 21, 20], few: [9, 9] });
    const { changed, compared } = changes(before, after);
    assert.deepEqual(changed, [{ rung: "slower", metric: "m", before: 11, after: 21 }]);
    assert.equal(compared, 2);
  });

  it("HISTORY.md is part of the page, and the rungs that it names in code exist", () => {
    const history = readFileSync("bench/ladder/HISTORY.md", "utf8");
    const html = page(madeUpResult());
    const [, ...paragraphs] = history.matchAll(/^\*\*(.+?)\*\*/gm);
    assert.ok(paragraphs.length >= 5, String(paragraphs.length));
    for (const [, title = ""] of paragraphs) assert.ok(html.includes(`<strong>${title}</strong>`), title);
    const named = [...history.matchAll(/`([a-z-]+)(…?)`/g)];
    assert.ok(named.length >= 2);
    for (const [, name = "", more] of named) {
      assert.ok(
        RUNGS.some((rung) => (more === "" ? rung.name === name : rung.name.startsWith(name))),
        name,
      );
    }
  });
});
