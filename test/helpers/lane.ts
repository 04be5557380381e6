// A process of tests that cannot hold up the others: a test that does not turn the event loop any more, where mocha's
// own limits say nothing, is named and ended with all that it has started. The tests go on with its file, once more,
// and behind it if it hangs again.
import { spawn, type ChildProcess } from "node:child_process";
import { rmSync } from "node:fs";
import { join, relative, resolve } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { addCounts, type Counts } from "./counts.js";
import { withoutCertificates } from "./certificates.js";
import { readLaneState, type LaneState } from "./lane-state.js";
import { describeTree, killAll, processTree, processesWith } from "./process-tree.js";

/** For a test that sets none, `ms`: a busy host stops everything for a second now and then. */
const USUAL_LIMIT_MS = 20_000;
/** Beyond a test's own limit, `ms`: mocha's timer comes late on a busy host. */
const HANGS_AFTER_MS = Number(process.env["VMLET_TEST_HANGS_AFTER_MS"] ?? 60_000);
const LOOK_EVERY_MS = Math.min(2000, HANGS_AFTER_MS);
/** What ends with its parent may take a moment. */
const CLEAR_MS = 500;
const CLEAR_TRIES = 10;
const NOTHING: Counts = { passed: 0, failed: 0, failures: [], secondTries: [], skipped: 0, booted: 0, files: {} };

export class Lane {
  readonly name: string;
  /** When all its tests have ended. */
  readonly ended: Promise<void>;
  readonly #statePath: string;
  #child: ChildProcess | undefined;
  #held: Buffer[] | undefined;
  readonly #done: Counts[] = [];
  #isEnding = false;
  readonly #hungBefore = new Set<string>();
  readonly #choice: readonly string[];

  /**
   * `folder`: for the file in which the process says how far it is; `isHeld`: its output waits for show(); `titles`: only these
   * tests, each once.
   */
  constructor(name: string, files: readonly string[], folder: string, isHeld: boolean, titles?: readonly string[]) {
    this.name = name;
    // On a host with other work, an emulated processor can stand still; what fails twice is a failure.
    this.#choice = titles === undefined ? ["--retries", "1"] : ["--grep", patternOf(titles)];
    this.#statePath = join(folder, `${name.replaceAll(/\W/g, "-")}.json`);
    this.#held = isHeld ? [] : undefined;
    this.ended = this.#run(files);
  }

  get counts(): Counts {
    return addCounts(this.#done);
  }

  /** What it has to say, and from now on at once. */
  show(): void {
    const held = this.#held ?? [];
    this.#held = undefined;
    for (const chunk of held) process.stdout.write(chunk);
  }

  /** What it is at, for whoever ends it. */
  describe(): string {
    const running = readLaneState(this.#statePath)?.running;
    return `${this.name}: ${running === undefined ? "between two tests" : `${running.title} (${relative("", running.file)})`}`;
  }

  /** Resolves when nothing that it has started is left. */
  async end(signal: NodeJS.Signals): Promise<void> {
    this.#isEnding = true;
    this.#child?.kill(signal);
    for (let tries = 0; tries < CLEAR_TRIES && processesWith(this.#mark).length > 0; tries++) await sleep(CLEAR_MS);
    killAll(processesWith(this.#mark));
  }

  async #run(files: readonly string[]): Promise<void> {
    for (let left = files; left.length > 0;) left = await this.#runOnce(left);
  }

  /** Resolves with the files that are still to be run. */
  async #runOnce(files: readonly string[]): Promise<readonly string[]> {
    let hung: LaneState | undefined;
    rmSync(this.#statePath, { force: true });
    const child = this.#start(files);
    const watch = setInterval(() => {
      const state = readLaneState(this.#statePath);
      if (state?.running === undefined || Date.now() < state.running.limitAt + HANGS_AFTER_MS) return;
      hung = state;
      clearInterval(watch);
      this.#print(`\n      hangs: ${state.running.title}; its processes and what they wait for:\n`);
      for (const line of describeTree(child.pid ?? 0)) this.#print(`        ${line}\n`);
      killAll(processTree(child.pid ?? 0));
    }, LOOK_EVERY_MS);
    await new Promise((done) => child.once("exit", done));
    clearInterval(watch);
    if (this.#isEnding) return [];
    await this.#clear(child, hung !== undefined);
    const state = hung ?? readLaneState(this.#statePath);
    if (state?.isComplete === true) {
      this.#done.push(state.counts);
      return [];
    }
    return this.#after(files, state, hung !== undefined);
  }

  /** What the tests have started goes with them; if it holds the output, nobody would wait for the end of that. */
  async #clear(child: ChildProcess, hasHung: boolean): Promise<void> {
    const closed = new Promise((done) => child.once("close", done));
    for (let tries = 0; tries < CLEAR_TRIES && processesWith(this.#mark).length > 0; tries++) await sleep(CLEAR_MS);
    const left = killAll(processesWith(this.#mark));
    if (left.length > 0 && !hasHung) {
      const line = `left behind by the ${this.name}:\n${left.map((one) => `    ${one}`).join("\n")}`;
      this.#print(`${line}\n`);
      this.#done.push({ ...NOTHING, secondTries: [line] });
    }
    await Promise.race([closed, sleep(CLEAR_MS)]);
    child.stdout?.destroy();
    child.stderr?.destroy();
  }

  /** In the environment of all that the tests start. */
  get #mark(): string {
    return `VMLET_TEST_LANE=${this.#statePath}`;
  }

  /** Files are run once more from the one on in which the process has ended, and behind it the second time. */
  #after(files: readonly string[], state: LaneState | undefined, hangs: boolean): readonly string[] {
    const { file: path, title } = state?.running ?? { file: resolve(files[0] ?? ""), title: "before the first test" };
    const index = files.findIndex((name) => resolve(name) === path);
    const file = files[index] ?? path;
    const how = hangs ? "hangs" : "its process has ended";
    const line = `${title} (${file}): ${how}`;
    const isLast = this.#hungBefore.has(file) || index === -1;
    this.#hungBefore.add(file);
    const outcome: Counts = isLast
      ? { ...NOTHING, failed: 1, failures: [{ text: `failed: ${line}` }] }
      : { ...NOTHING, secondTries: [`at its second try: ${line}`] };
    this.#done.push(state?.countsOfEndedFiles ?? NOTHING, outcome);
    this.#print(`      ${isLast ? "given up" : "once more"}: ${line}\n`);
    return index === -1 ? [] : files.slice(isLast ? index + 1 : index);
  }

  #start(files: readonly string[]): ChildProcess {
    const color = process.stdout.isTTY ? ["--color"] : [];
    const reporter = ["--reporter", "build/test/helpers/reporter.js", "--reporter-option", `state=${this.#statePath}`];
    const limit = ["--timeout", String(USUAL_LIMIT_MS)];
    const options = ["--no-config", ...limit, ...this.#choice, ...color, ...reporter];
    const argv = ["node_modules/mocha/bin/mocha.js", ...options, ...files];
    const [name = "", value] = this.#mark.split("=");
    const child = spawn(process.execPath, argv, {
      stdio: ["ignore", "pipe", "pipe"],
      env: { ...withoutCertificates(), [name]: value },
    });
    this.#child = child;
    child.stdout.on("data", (chunk: Buffer) => {
      this.#print(chunk);
    });
    child.stderr.on("data", (chunk: Buffer) => {
      this.#print(chunk);
    });
    return child;
  }

  #print(text: Buffer | string): void {
    if (this.#held === undefined) process.stdout.write(text);
    else this.#held.push(Buffer.from(text));
  }
}

function patternOf(titles: readonly string[]): string {
  return `^(?:${titles.map((title) => title.replaceAll(/[$()*+.?[\\\]^{|}]/g, "\\$&")).join("|")})$`;
}
