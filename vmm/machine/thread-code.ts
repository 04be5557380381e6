// The program of a vCPU's thread as text, for a process that opens no file any more: read while it still does. That is the bundle's,
// one file for all; a checkout's modules are many, and threads of theirs have to be there before.
import { readFileSync } from "node:fs";
import { dirname } from "node:path";
import { fileURLToPath } from "node:url";
import { NATIVE_MODULE_PATH, nativeModulePath } from "../sys/native-module.js";

export const THREAD_URL = new URL("./vcpu-worker.js", import.meta.url);

let code: string | undefined;

/** Reads it, once. */
export function openThreadCode(): void {
  if (code !== undefined) return;
  const path = fileURLToPath(THREAD_URL);
  const text = readFileSync(path, "latin1");
  const names = [path, dirname(path)].map((name) => JSON.stringify(name)).join();
  code = `globalThis[Symbol.for(${JSON.stringify(NATIVE_MODULE_PATH.description)})]=${JSON.stringify(nativeModulePath)};
(function(exports,require,module,__filename,__dirname){${text}
})(exports,require,module,${names});`;
}

/** Undefined unless it has been read. */
export function threadCode(): string | undefined {
  return code;
}
