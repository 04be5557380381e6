// ffi-napi (the fork that still builds, @2060.io/ffi-napi) with ref-struct-di and ref-array-di.
// Its native parts are compiled at the first use, not by `npm ci`: without this bench nobody needs a
// compiler, and a machine that cannot compile them gets a row with the reason.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";

export type ForeignFunction = (...args: unknown[]) => number;

interface StructInstance {
  ref(): Buffer;
}
type StructType = new (fields: Readonly<Record<string, number>>) => StructInstance;

interface ArrayInstance {
  readonly buffer: Buffer;
}
type ArrayType = new (values: readonly number[]) => ArrayInstance;

export interface FfiNapi {
  /** Functions of a library by name; types as ffi-napi spells them. */
  readonly library: (
    path: string | null,
    functions: Record<string, [result: unknown, parameters: unknown[]]>,
  ) => Record<string, ForeignFunction>;
  readonly struct: (fields: Record<string, string>) => StructType;
  readonly array: (type: string) => ArrayType;
}

interface FfiModule {
  Library(path: string | null, functions: object): Record<string, ForeignFunction>;
}
interface RefModule {
  readonly types: Readonly<Record<string, unknown>>;
}

const PACKAGES = ["@2060.io/ref-napi", "ffi-napi"];
const require = createRequire(import.meta.url);

/** Throws with the first line that says why the binding cannot be had. */
export function loadFfiNapi(): FfiNapi {
  buildOnce();
  const ffi = require("ffi-napi") as FfiModule;
  const ref = require("@2060.io/ref-napi") as RefModule;
  const structDi = require("ref-struct-di") as (ref: RefModule) => (fields: object) => StructType;
  const arrayDi = require("ref-array-di") as (ref: RefModule) => (type: unknown) => ArrayType;
  return {
    library: (path, functions) => ffi.Library(path, functions),
    struct: structDi(ref),
    array: (type) => arrayDi(ref)(type),
  };
}

function buildOnce(): void {
  const isBuilt = PACKAGES.every((name) => existsSync(join("node_modules", name, "build/Release")));
  if (isBuilt) return;
  // Node's own headers are installed with it; without them node-gyp would download some.
  const prefix = dirname(dirname(process.execPath));
  const nodedir = existsSync(join(prefix, "include/node/node.h")) ? [`--nodedir=${prefix}`] : [];
  const argv = ["rebuild", "--ignore-scripts=false", "--foreground-scripts", ...nodedir, ...PACKAGES];
  const { status, stderr, stdout, error } = spawnSync("npm", argv, { encoding: "utf8" });
  if (status === 0) return;
  const reason = `${stdout}\n${stderr}`.split("\n").find((line) => /\berr(or|!)\b.*\S/i.test(line));
  throw new Error(`cannot be compiled: ${error?.message ?? reason ?? "npm rebuild has failed"}`);
}
