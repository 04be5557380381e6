// Lines of a stream of bytes.
import { StringDecoder } from "node:string_decoder";

/** A longer line is cut here, so that a guest that never ends one fills no memory. */
const MAX_LINE = 2 ** 20;

/** Without their ends, "\n" or "\r\n"; a last line without an end is one, too. */
export async function* linesOf(chunks: AsyncIterable<unknown>): AsyncGenerator<string, void, undefined> {
  const decoder = new StringDecoder("utf8");
  let parts: string[] = [];
  let length = 0;
  const line = (): string => {
    const text = parts.join("");
    parts = [];
    length = 0;
    return text.endsWith("\r") ? text.slice(0, -1) : text;
  };
  for await (const chunk of chunks) {
    let text = decoder.write(chunk as Buffer);
    for (;;) {
      const end = text.indexOf("\n");
      const count = Math.min(end < 0 ? text.length : end, MAX_LINE - length);
      if (count > 0) parts.push(text.slice(0, count));
      length += count;
      if (count === end) {
        yield line();
        text = text.slice(end + 1);
      } else if (length === MAX_LINE) {
        yield line();
        text = text.slice(count);
      } else {
        break;
      }
    }
  }
  parts.push(decoder.end());
  const last = line();
  if (last !== "") yield last;
}
