// Hooks of Node's loader: the program's own modules are instrumented as they are loaded, tests and packages are not.
import type { LoadHook } from "node:module";
import { instrument } from "./instrument.js";

const OWN = /\/build\/((?:vmm|devices)\/.*\.js)$/;

export const load: LoadHook = async (url, context, nextLoad) => {
  const loaded = await nextLoad(url, context);
  const file = OWN.exec(url)?.[1];
  if (file === undefined || loaded.format !== "module" || loaded.source === undefined) return loaded;
  const { source } = loaded;
  const text = typeof source === "string" ? source : Buffer.from(source as Uint8Array).toString("utf8");
  return { ...loaded, source: instrument(text, file) };
};
