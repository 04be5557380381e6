// The one place that loads koffi: its native module directly, by process.dlopen,
// because the JavaScript wrapper's platform probing costs 7 ms of start-up.
import { existsSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { HostError } from "../errors.js";

type NativeArgument = number | bigint | string | ArrayBufferView | null;

/** A C function bound by koffi; arguments are checked by the wrappers in this folder. */
export type NativeFunction = (...args: NativeArgument[]) => number;

/** The same, which can also be called on one of Node's threads: the callback comes in a later turn, and finds its errno. */
interface BoundFunction extends NativeFunction {
  async(...args: [...NativeArgument[], (error: unknown, result: number) => void]): void;
}

interface Library {
  func(name: string, result: string, parameters: readonly string[]): BoundFunction;
  symbol(name: string): bigint;
}

interface PollHandle {
  /** Goes on after `stop`, for readability. */
  start(callback: () => void): void;
  stop(): void;
  close(): void;
  ref(): void;
  unref(): void;
}

export interface Koffi {
  load(path: string | null): Library;
  view(address: number, length: number): ArrayBuffer;
  errno(): number;
  /** A function's type, from its C declaration. */
  proto(declaration: string): unknown;
  /** Calls machine code at an address. */
  call(address: bigint, prototype: unknown, ...args: (number | ArrayBufferView)[]): unknown;
  readonly node: {
    poll(
      fd: number,
      options: { readable?: boolean; writable?: boolean; disconnect?: boolean },
      callback: (events: { readable: boolean; writable: boolean; disconnect: boolean }) => void,
    ): PollHandle;
  };
}

export type { PollHandle };

const PACKAGE = "@koromix/koffi-linux-x64";
/** Property of the global object: where it was found, for a thread that cannot look (vmm/machine/thread-code.ts). */
export const KOFFI_PATH = Symbol.for("vmlet.koffi");

/** Where Node would look first for the package, too, without the time to read its description. */
function findNearby(file: string): string | undefined {
  for (let folder = import.meta.dirname; ; folder = dirname(folder)) {
    const path = join(folder, "node_modules", PACKAGE, file);
    if (existsSync(path)) return path;
    if (folder === dirname(folder)) return undefined;
  }
}

function loadNative(): { readonly native: Koffi; readonly path: string } {
  const failures: unknown[] = [];
  const known = (globalThis as { readonly [KOFFI_PATH]?: string })[KOFFI_PATH];
  for (const file of ["linux_x64/koffi.node", "musl_x64/koffi.node"]) {
    const module = { exports: {} };
    try {
      const path = known ?? findNearby(file) ?? createRequire(import.meta.url).resolve(`${PACKAGE}/${file}`);
      process.dlopen(module, path);
      return { native: module.exports as Koffi, path };
    } catch (error) {
      failures.push(error);
    }
  }
  throw new HostError("Cannot load koffi's native module for linux-x64", {
    cause: failures[0],
    cure: "install the dependencies: npm ci",
  });
}

const loaded = loadNative();
export const koffi = loaded.native;
export const koffiPath = loaded.path;
/** The C library that node itself is linked to. */
export const libc = koffi.load(null);

/**
 * Binds a C function at its first call: a start-up that does not need it does not pay for it. Six
 * arguments, because a rest array would be made anew at each call until the code is hot; koffi takes
 * what the prototype names.
 */
export function lazy(name: string, result: string, parameters: readonly string[]): NativeFunction {
  let bound: NativeFunction | undefined;
  return (a, b, c, d, e, f) => (bound ??= libc.func(name, result, parameters))(a, b, c, d, e, f);
}
