// What a process holds, apart from what it could give up.
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";

/** Returns once nothing is in V8's heap but what somebody holds. */
export function collectGarbage(): void {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc") as () => void;
  // The second one waits until the array buffers that the first one has found are freed.
  collect();
  collect();
}
