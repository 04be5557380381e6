// `vmlet bench`: options -> run -> table, JSON, page. A bundle of its own, so that no other command loads it.
import { readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import {
  EXIT_CANNOT_WRITE,
  EXIT_HOST,
  EXIT_OUTPUT_LOST,
  EXIT_SIGNAL_BASE,
  EXIT_USAGE,
} from "../../vmm/host/exit-codes.js";
import { OutputError, print, say } from "../../vmm/host/say.js";
import { UnwritableError } from "../../vmm/cli/unwritable-error.js";
import { UsageError } from "../../vmm/cli/usage-error.js";
import { onEndSignals } from "../../vmm/sys/end-signals.js";
import { checkWritable } from "../../vmm/cli/output-paths.js";
import { formatColumns } from "../table.js";
import { formatChanges } from "./compare.js";
import { offerPackages } from "./install.js";
import { LeftBehindError, runLadder } from "./ladder.js";
import { markdownOf } from "./markdown.js";
import { BENCH_HELP, parseBench, type BenchOptions } from "./options.js";
import { planFor } from "./plan.js";
import { ProgressLine } from "./progress-line.js";
import { SCHEMA, type LadderResult } from "./result.js";
import { formatLadder } from "./text.js";

const SIGPIPE = 13;

/** The exit code. It prints its own errors: the caller's bundle has error classes of its own. */
export async function bench(argv: readonly string[]): Promise<number> {
  try {
    return await run(argv);
  } catch (error) {
    if (error instanceof OutputError) {
      if (!error.isBrokenPipe) say(error.message);
      return error.isBrokenPipe ? EXIT_SIGNAL_BASE + SIGPIPE : EXIT_OUTPUT_LOST;
    }
    if (!(error instanceof UsageError || error instanceof CannotWrite || error instanceof UnwritableError)) throw error;
    say(error.message);
    return error instanceof UsageError ? EXIT_USAGE : EXIT_CANNOT_WRITE;
  }
}

async function run(argv: readonly string[]): Promise<number> {
  const options = parseBench(argv);
  if (options.help) {
    print(BENCH_HELP);
    return 0;
  }
  if (options.list) {
    list(options);
    return 0;
  }
  // Report a file that cannot be read or written now, not after half an hour.
  for (const path of [options.json, options.html, options.svg, options.markdown, options.resume]) {
    if (path !== undefined) checkWritable({ option: "vmlet bench", path });
  }
  const old = options.compare === undefined ? undefined : read(options.compare);
  const resumed = options.resume !== undefined && holdsSomething(options.resume) ? read(options.resume) : undefined;
  if (resumed !== undefined && resumed.quick !== options.quick) {
    throw new UsageError(`--resume ${options.resume ?? ""}: that run was ${resumed.quick ? "" : "not "}a --quick one`);
  }
  if (options.from !== undefined) {
    return publish(options, read(options.from), old);
  }
  await offerPackages(options.rungs, options.yes);
  return measure(options, resumed, old);
}

/** An empty file is what a run leaves that is killed while it tries whether it can write there. */
function holdsSomething(path: string): boolean {
  return (statSync(path, { throwIfNoEntry: false })?.size ?? 0) > 0;
}

function list({ rungs }: BenchOptions): void {
  const rows = rungs.map((rung) => {
    const detected = rung.detect();
    return [rung.name, rung.adds, "missing" in detected ? `not here: ${detected.missing}` : detected.version];
  });
  print(`${formatColumns(rows, 3)}\n`);
}

function read(path: string): LadderResult {
  let value: unknown;
  try {
    // A FIFO or a device would be read for ever.
    if (!statSync(path).isFile()) throw new Error("not a regular file");
    value = JSON.parse(readFileSync(path, "utf8"));
  } catch (error) {
    throw new UsageError(`${path}: ${error instanceof Error ? error.message : String(error)}`);
  }
  if (!isResult(value)) throw new UsageError(`${path}: not a result of vmlet bench --json, schema ${String(SCHEMA)}`);
  return value;
}

/** The number and the parts that everything starts from; whoever writes the rest by hand gets what they wrote. */
function isResult(value: unknown): value is LadderResult {
  if (typeof value !== "object" || value === null) return false;
  const { schema, rungs, stages } = value as Partial<Record<keyof LadderResult, unknown>>;
  return schema === SCHEMA && Array.isArray(rungs) && typeof stages === "object" && stages !== null;
}

async function measure(
  options: BenchOptions,
  resumed: LadderResult | undefined,
  old: LadderResult | undefined,
): Promise<number> {
  const controller = new AbortController();
  let signal: number | undefined;
  const removeHandlers = onEndSignals((number) => {
    signal ??= number;
    controller.abort(new Error(`ended by signal ${String(number)}`));
  });
  const line = new ProgressLine();
  try {
    const plan = planFor(options.quick, options.rounds);
    const result = await runLadder({
      rungs: options.rungs,
      plan,
      quick: options.quick,
      rounds: plan.rounds.start.fast,
      signal: controller.signal,
      resumed,
      progress: (text) => {
        line.show(text);
      },
      save: (sofar) => {
        if (options.resume !== undefined) replace(options.resume, JSON.stringify(sofar));
      },
    });
    line.clear();
    return await publish(options, result, old);
  } catch (error) {
    line.clear();
    if (signal !== undefined) {
      if (error instanceof LeftBehindError) say(error.message);
      return EXIT_SIGNAL_BASE + signal;
    }
    if (
      error instanceof UsageError ||
      error instanceof CannotWrite ||
      error instanceof OutputError ||
      !(error instanceof Error)
    )
      throw error;
    say(error.message);
    return EXIT_HOST;
  } finally {
    line.clear();
    removeHandlers();
  }
}

class CannotWrite extends Error {}

function tryWriting(path: string, attempt: (path: string) => void): void {
  try {
    attempt(path);
  } catch (error) {
    throw new CannotWrite(`${path}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
}

function write(path: string, text: string): void {
  tryWriting(path, () => {
    writeFileSync(path, text);
  });
}

/** Replaces the file at once: it has all of the new text or all of the old, whenever this process ends. */
function replace(path: string, text: string): void {
  tryWriting(path, () => {
    writeFileSync(`${path}.new`, text);
    renameSync(`${path}.new`, path);
  });
}

async function publish(options: BenchOptions, result: LadderResult, old: LadderResult | undefined): Promise<number> {
  print(`${formatLadder(result)}\n`);
  if (old !== undefined) print(`\n${formatChanges(old, result)}\n`);
  if (options.json !== undefined) write(options.json, `${JSON.stringify(result)}\n`);
  if (options.markdown !== undefined) write(options.markdown, markdownOf(result));
  if (options.html !== undefined || options.svg !== undefined) {
    // The library that draws is bigger than all the rest.
    const { page, startSvg } = await import("./html/page.js");
    if (options.html !== undefined) write(options.html, page(result));
    if (options.svg !== undefined) write(options.svg, `${startSvg(result)}\n`);
  }
  return 0;
}
