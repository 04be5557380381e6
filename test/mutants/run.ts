// make mutants: changes one operator somewhere, runs the unit and fuzz tests that could notice, and says
// which changes nobody did: what is written there might as well be something else.
//   node build/test/mutants/run.js [--count N] [--seed N] [--only PATH] [--list]
import { spawn } from "node:child_process";
import { cpSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { parseArgs } from "node:util";
import { Random } from "../fuzz/random.js";
import { compile, mutate, mutationsOf, type Mutation } from "./mutations.js";
import { coverTests, MOCHA, MOCHA_OPTIONS, testsCalling } from "./related-tests.js";

/** What is changed: all that runs without KVM and without a process of its own. */
const FOLDERS = ["devices", "vmm/x86", "vmm/memory", "vmm/fixups", "vmm/config", "vmm/virtio/backends"];
/** A copy of the build, beside it because tests find files from where they lie. */
const COPY = `build-mutants.${String(process.pid)}`;
/** `ms` for the tests of one change; an endless loop is noticed by it. */
const TIME_LIMIT_MS = 180_000;

interface Mutant extends Mutation {
  readonly file: string;
}

const { values } = parseArgs({
  options: {
    count: { type: "string", default: "100" },
    seed: { type: "string" },
    only: { type: "string" },
    list: { type: "boolean", default: false },
  },
});

const only = values.only;
const files = FOLDERS.flatMap((folder) =>
  readdirSync(folder, { recursive: true, encoding: "utf8" })
    .filter((name) => name.endsWith(".ts"))
    .map((name) => join(folder, name)),
).filter((file) => only === undefined || file.includes(only));
const texts = new Map(files.map((file) => [file, readFileSync(file, "utf8")]));
const candidates = [...texts].flatMap(([file, text]) => mutationsOf(text).map((found): Mutant => ({ file, ...found })));

/** `count` of them, each at most once, decided by the seed. */
function draw(seed: number, count: number): Mutant[] {
  const random = new Random(seed);
  const left = [...candidates];
  const drawn: Mutant[] = [];
  while (drawn.length < count && left.length > 0) drawn.push(...left.splice(random.below(left.length), 1));
  return drawn;
}

/** Takes down the tests that run; an endless loop among them hears no signal. */
let killTests = (): void => undefined;

/** The file of the first test that fails; undefined if none does. */
async function firstFailure(tests: readonly string[]): Promise<string | undefined> {
  const args = [...MOCHA_OPTIONS, "--bail", "--reporter", "tap", ...tests];
  const child = spawn(MOCHA, args, { stdio: ["ignore", "pipe", "ignore"], detached: true });
  let output = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => (output += text));
  // The whole group: mocha runs the tests in a process of its own.
  killTests = (): void => {
    if (child.pid !== undefined) process.kill(-child.pid, "SIGKILL");
  };
  const timer = setTimeout(killTests, TIME_LIMIT_MS);
  const [code, signal] = await new Promise<[number | null, string | null]>((resolve) => {
    child.on("close", (...end) => resolve(end));
  });
  clearTimeout(timer);
  killTests = () => undefined;
  if (signal === "SIGKILL") return "the time limit";
  if (code === 0) return undefined;
  return /^not ok \d+ (.*)$/m.exec(output)?.[1] ?? "a crash";
}

function show({ file, line, what }: Mutant): string {
  return `${file}:${String(line)}: ${what}`;
}

async function main(): Promise<void> {
  const seed = values.seed === undefined ? Math.floor(performance.timeOrigin) % 2 ** 32 : Number(values.seed);
  const mutants = draw(seed, Number(values.count));
  console.log(`${String(mutants.length)} of ${String(candidates.length)} changes, seed ${String(seed)}`);
  if (values.list) {
    for (const mutant of mutants) console.log(show(mutant));
    return;
  }
  cpSync("build", COPY, { recursive: true, filter: (path) => !path.endsWith(".tsbuildinfo") });
  process.on("exit", () => {
    killTests();
    rmSync(COPY, { recursive: true, force: true });
  });
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) process.on(signal, () => process.exit(1));
  // A test that fails without a change would notice all of them.
  const tests = coverTests(COPY, (path, why) => console.log(`left out, ${why}: ${path}`));

  const survivors: string[] = [];
  for (const [index, mutant] of mutants.entries()) {
    const module = mutant.file.replace(/\.ts$/, ".js");
    const calling = testsCalling(tests, module, mutant.functionName);
    const built = readFileSync(join(COPY, module));
    writeFileSync(join(COPY, module), compile(mutate(texts.get(mutant.file) ?? "", mutant)));
    const noticed = calling.length === 0 ? undefined : await firstFailure(calling);
    writeFileSync(join(COPY, module), built);
    if (noticed === undefined) survivors.push(show(mutant));
    console.log(
      `${String(index + 1)} ${show(mutant)}: ${noticed === undefined ? (calling.length === 0 ? "NEVER RUN" : "NOT NOTICED") : `noticed by ${noticed}`}`,
    );
  }
  console.log(
    `\n${String(mutants.length - survivors.length)} of ${String(mutants.length)} noticed, seed ${String(seed)}`,
  );
  for (const survivor of survivors) console.log(`  ${survivor}`);
}

await main();
