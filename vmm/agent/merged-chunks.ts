// The pieces of two streams in the order in which they come.
import type { Readable } from "node:stream";

/** A piece of a command's output. */
export interface OutputChunk {
  readonly output: "stdout" | "stderr";
  readonly data: Buffer;
}

/** Leaving it early destroys both. Fails as soon as one of them does. */
export async function* mergedChunks(streams: {
  readonly stdout: Readable;
  readonly stderr: Readable;
}): AsyncGenerator<OutputChunk, void, undefined> {
  let wake = (): void => undefined;
  let problem: { readonly error: unknown } | undefined;
  const ready: OutputChunk[] = [];
  let open = 2;
  // One piece of each at a time: the next is asked for once this one has been taken.
  const ask = (output: "stdout" | "stderr", iterator: AsyncIterator<Buffer>): void => {
    iterator.next().then(
      ({ value, done }) => {
        if (done === true) open--;
        else ready.push({ output, data: value });
        wake();
      },
      (error: unknown) => {
        problem = { error };
        wake();
      },
    );
  };
  const iterators = {
    stdout: streams.stdout[Symbol.asyncIterator]() as AsyncIterator<Buffer>,
    stderr: streams.stderr[Symbol.asyncIterator]() as AsyncIterator<Buffer>,
  };
  try {
    ask("stdout", iterators.stdout);
    ask("stderr", iterators.stderr);
    while (open > 0 || ready.length > 0) {
      const chunk = ready.shift();
      if (chunk !== undefined) {
        yield chunk;
        ask(chunk.output, iterators[chunk.output]);
        continue;
      }
      if (problem !== undefined) throw problem.error;
      await new Promise<void>((resolve) => (wake = resolve));
    }
  } finally {
    streams.stdout.destroy();
    streams.stderr.destroy();
  }
}
