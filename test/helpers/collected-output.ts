// What a guest writes, for those who wait for some of it.
import type { VmHost } from "../../vmm/index.js";

export interface CollectedOutput {
  readonly host: VmHost;
  /** All of it so far. */
  readonly bytes: () => Buffer;
  /** Resolves once there are so many bytes, in all. */
  readonly until: (count: number) => Promise<void>;
}

export function collectOutput(): CollectedOutput {
  const pieces: Buffer[] = [];
  let length = 0;
  let waiting: { readonly count: number; readonly resolve: () => void }[] = [];
  return {
    host: {
      output: (bytes, done) => {
        pieces.push(Buffer.from(bytes));
        length += bytes.length;
        for (const { count, resolve } of waiting) if (length >= count) resolve();
        waiting = waiting.filter(({ count }) => length < count);
        setImmediate(done);
      },
    },
    bytes: () => Buffer.concat(pieces),
    until: (count) =>
      new Promise((resolve) => {
        if (length >= count) resolve();
        else waiting.push({ count, resolve });
      }),
  };
}
