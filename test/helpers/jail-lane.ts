// The lane in which `vmlet boot` runs in the jail, whichever test starts it: VMLET_TEST_JAIL is its mode, "on" or "strict".
import type { Context } from "mocha";
import { skip } from "./skip.js";

const VARIABLE = "VMLET_TEST_JAIL";
/** In place of dist/vmlet.js; it lies two folders below the package's own. */
export const IN_JAIL = "test/programs/vmlet-in-jail";

/** Undefined outside of that lane. */
export const jailMode = modeOf(process.env[VARIABLE]);

/** What that program needs where it is not started with this process's environment. */
export const jailEnvironment: Readonly<Record<string, string>> = jailMode === undefined ? {} : { [VARIABLE]: jailMode };

/** `reason`: what the jail refuses by a line of its own. */
export function skipInJail(context: Context, reason: string): void {
  if (jailMode !== undefined) skip(context, `not in the jail: ${reason}`);
}

function modeOf(text: string | undefined): string | undefined {
  if (text === undefined || text === "") return undefined;
  if (text === "on" || text === "strict") return text;
  throw new Error(`${VARIABLE}=${text}: on or strict`);
}
