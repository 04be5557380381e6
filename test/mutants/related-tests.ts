// Which tests can notice a change in a function: those that call it. Each test file is run once with
// V8's coverage, which tells the functions that were called, by name.
import { spawnSync } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { pathToFileURL } from "node:url";

export const MOCHA = "node_modules/.bin/mocha";
/** Limits of single tests are for a host that is not busy. */
export const MOCHA_OPTIONS = ["--no-config", "--timeout", "30000"];
const TEST_FOLDERS = ["test/unit", "test/fuzz"];
/** `ms`: what takes longer starts programs, and would be run for every change of a module that it loads. */
const SLOW_MS = 90_000;

interface ScriptCoverage {
  readonly url: string;
  readonly functions: readonly {
    readonly functionName: string;
    readonly ranges: readonly { readonly count: number }[];
  }[];
}

/** A test file, and the names of the functions of each module that it calls. */
export interface TestFile {
  readonly path: string;
  readonly ms: number;
  readonly called: ReadonlyMap<string, ReadonlySet<string>>;
}

/** Runs every test file of the build in `root`; those that fail, or are slow, are told and left out. */
export function coverTests(root: string, leftOut: (path: string, why: string) => void): TestFile[] {
  const paths = TEST_FOLDERS.flatMap((folder) =>
    readdirSync(join(root, folder), { recursive: true, encoding: "utf8" })
      .filter((name) => name.endsWith(".test.js"))
      .map((name) => join(root, folder, name)),
  );
  return paths.flatMap((path) => {
    const folder = mkdtempSync(join(tmpdir(), "vmlet-coverage-"));
    try {
      const start = performance.now();
      const { status } = spawnSync(MOCHA, [...MOCHA_OPTIONS, path], {
        stdio: "ignore",
        timeout: SLOW_MS * 2,
        env: { ...process.env, NODE_V8_COVERAGE: folder },
      });
      const ms = performance.now() - start;
      if (status !== 0 || ms > SLOW_MS) {
        leftOut(path, status === 0 ? "slow" : "fails as it is");
        return [];
      }
      return [{ path, ms, called: calledIn(folder, root) }];
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
}

/** By module, as a path in `root`. */
function calledIn(folder: string, root: string): Map<string, Set<string>> {
  const called = new Map<string, Set<string>>();
  const base = `${pathToFileURL(resolve(root)).href}/`;
  for (const name of readdirSync(folder)) {
    const { result } = JSON.parse(readFileSync(join(folder, name), "utf8")) as { result: readonly ScriptCoverage[] };
    for (const { url, functions } of result) {
      if (!url.startsWith(base)) continue;
      const module = url.slice(base.length);
      const names = called.get(module) ?? new Set();
      for (const { functionName, ranges } of functions) if ((ranges[0]?.count ?? 0) > 0) names.add(functionName);
      called.set(module, names);
    }
  }
  return called;
}

/** The quickest first. What stands outside all functions counts wherever one is called; in a module without any, wherever it is loaded. */
export function testsCalling(tests: readonly TestFile[], module: string, functionName: string | undefined): string[] {
  const hasFunctions = tests.some(({ called }) => (called.get(module)?.size ?? 0) > 1);
  return tests
    .filter(({ called }) => {
      const names = called.get(module);
      if (names === undefined) return false;
      return functionName === undefined ? names.size > 1 || !hasFunctions : names.has(functionName);
    })
    .sort((a, b) => a.ms - b.ms)
    .map(({ path }) => path);
}
