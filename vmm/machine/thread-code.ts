// The program of a vCPU's thread as text, for a process that opens no file any more: read while it still does. That is the bundle's,
// one file for all; a checkout's modules are many, and threads of theirs have to be there before.
import { dirname, join } from "node:path";
import { keepFile, keptFile, readKept } from "../host/kept-files.js";
import { NATIVE_MODULE_PATH, nativeModulePath } from "../sys/native-module.js";

const FOLDER = dirname(import.meta.filename);
export const THREAD_FILE = join(FOLDER, "vcpu-worker.js");

let code: string | undefined;

/** For a process that opens nothing later. Throws as openSync does. */
export function openThreadCode(): void {
  if (keptFile(THREAD_FILE) === undefined) keepFile(THREAD_FILE);
}

/** Undefined unless it has been opened. */
export function threadCode(): string | undefined {
  if (keptFile(THREAD_FILE) === undefined) return undefined;
  return (code ??= madeCode());
}

function madeCode(): string {
  const names = [THREAD_FILE, FOLDER].map((name) => JSON.stringify(name)).join();
  return `globalThis[Symbol.for(${JSON.stringify(NATIVE_MODULE_PATH.description)})]=${JSON.stringify(nativeModulePath)};
(function(exports,require,module,__filename,__dirname){${readKept(THREAD_FILE)}
})(exports,require,module,${names});`;
}
