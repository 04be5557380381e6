// `vmlet logs VM`: what its program has written, byte by byte, each stream to its own.
import { setTimeout as sleep } from "node:timers/promises";
import { ConfigError } from "../../errors.js";
import { print, printBytes } from "../../host/say.js";
import { LogReader, type LogRecord } from "../../sdk/output-log.js";
import { StateFolder } from "../../sdk/state-folder.js";
import { parseOptions } from "../parse-options.js";
import { parseWhole } from "../numbers.js";
import { UsageError } from "../usage-error.js";

export const FLAGS = {
  follow: { type: "boolean", short: "f" },
  tail: { type: "string", short: "n" },
  timestamps: { type: "boolean", short: "t" },
  help: { type: "boolean", short: "h" },
} as const;
const LOOK_MS = 100;
const NEWLINE = 10;
const STREAMS = { stdout: 1, stderr: 2 } as const;

export async function logs(argv: readonly string[]): Promise<number> {
  const { values, positionals } = parseOptions([...argv], FLAGS, "vmlet logs", { allowPositionals: true });
  if (values.help === true) {
    const { LOGS_HELP } = await import("./help.js");
    print(LOGS_HELP);
    return 0;
  }
  const [word, ...more] = positionals;
  if (word === undefined || more.length > 0) throw new UsageError("vmlet logs: one VM is to be given");
  const state = new StateFolder();
  const record = state.find(word);
  if (!record.hasLog) {
    throw new ConfigError([`VM ${record.name}: what it writes is not kept; vmlet run --detach keeps it`]);
  }
  const withTime = values.timestamps === true;
  const reader = new LogReader(state.folderOf(record.id).log);
  try {
    for (const one of lastLines(reader.read(), values.tail)) write(one, withTime);
    while (values.follow === true) {
      // Asked before the rest is read: what comes last is read, too.
      const hasEnded = state.list().find(({ id }) => id === record.id)?.status !== "running";
      for (const one of reader.read()) write(one, withTime);
      if (hasEnded) break;
      await sleep(LOOK_MS);
    }
  } finally {
    reader.close();
  }
  return 0;
}

function write({ stream, time, bytes }: LogRecord, withTime: boolean): void {
  const all = withTime ? Buffer.concat([Buffer.from(`${new Date(time).toISOString()} `), bytes]) : bytes;
  printBytes(STREAMS[stream], all);
}

/** The records that hold the last lines; the first of them cut to where these begin. */
export function lastLines(records: Iterable<LogRecord>, tail: string | undefined): Iterable<LogRecord> {
  if (tail === undefined || tail === "all") return records;
  const wanted = parseWhole(tail);
  if (wanted === undefined)
    throw new UsageError(`vmlet logs: --tail ${JSON.stringify(tail)} is not a number of lines, or all`);
  const all = [...records];
  if (wanted === 0) return [];
  let left = wanted;
  // The last line has its own end, or none.
  let isLast = true;
  for (let at = all.length - 1; at >= 0; at--) {
    const { bytes } = all[at] as LogRecord;
    for (let byte = bytes.length - 1; byte >= 0; byte--) {
      if (bytes[byte] === NEWLINE && !isLast && --left <= 0) {
        const cut = { ...(all[at] as LogRecord), bytes: bytes.subarray(byte + 1) };
        return [...(cut.bytes.length === 0 ? [] : [cut]), ...all.slice(at + 1)];
      }
      isLast = false;
    }
  }
  return all;
}
