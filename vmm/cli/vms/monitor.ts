// The process of a VM, as launch.ts starts it: its order comes by standard input, whose end is also that of a bound VM.
import { read } from "node:fs";
import { UsageError } from "../usage-error.js";
import { runMonitor } from "../../sdk/monitor.js";
import type { MonitorOrder } from "../../sdk/monitor-messages.js";

const STDIN = 0;
const MAX_ORDER_BYTES = 4 * 1024 * 1024;
const NEWLINE = 10;

export async function monitor(): Promise<number> {
  const input = await readInput();
  const end = input.indexOf(NEWLINE);
  if (end < 0) throw new UsageError("vmlet monitor is started by vmlet alone");
  const order = JSON.parse(input.toString("utf8", 0, end)) as MonitorOrder;
  return runMonitor(order, endOfInput());
}

/** Up to the first line's end. */
async function readInput(): Promise<Buffer> {
  let all: Buffer = Buffer.alloc(0);
  while (!all.includes(NEWLINE) && all.length < MAX_ORDER_BYTES) {
    const bytes = await readSome();
    if (bytes.length === 0) break;
    all = Buffer.concat([all, bytes]);
  }
  return all;
}

async function endOfInput(): Promise<void> {
  while ((await readSome()).length > 0);
}

function readSome(): Promise<Buffer> {
  return new Promise((resolve) => {
    const buffer = Buffer.alloc(64 * 1024);
    read(STDIN, buffer, 0, buffer.length, null, (error, count) => {
      resolve(error === null ? buffer.subarray(0, count) : Buffer.alloc(0));
    });
  });
}
