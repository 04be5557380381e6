// A skip that says why; the reporter prints the reason.
import type { Context } from "mocha";

const reasons = new WeakMap<object, string>();

export function skip(context: Context, reason: string): never {
  const runnable = context.test ?? context.currentTest;
  if (runnable !== undefined) reasons.set(runnable, reason);
  // In a hook, every test of the suite is skipped: each gets the reason.
  if (runnable?.title.startsWith('"before') === true) runnable.parent?.eachTest((test) => reasons.set(test, reason));
  return context.skip();
}

export function skipReason(test: object): string {
  return reasons.get(test) ?? "no reason given";
}
