// A monitor that the runtime's front has started together with `create`, so that Node's two starts, and the reading of their
// programs, take the time of one. It waits until `create` has made the control groups and the state folder; until then it ends
// with that process, and has done nothing.
import { closeSync, readSync, writeSync } from "node:fs";
import { ConfigError, HostError, VmmError } from "../errors.js";
import { outliveParent } from "../sys/parent-death.js";
import { messageOf } from "./log.js";

interface Environment {
  /** Set by the front: the monitor's end of a pair of sockets. */
  VMLET_EARLY_MONITOR?: string | undefined;
}

/** What it is told, a line of JSON. */
interface Admission {
  /** A path of a network namespace; empty: one of its own. */
  readonly network: string;
}

type Reply = { readonly ok: true } | { readonly error: string };

const MAX_LINE_BYTES = 65_536;

export interface EarlyMonitor {
  readonly pid: number;
  /** This process's end of the pair. */
  readonly fd: number;
}

/** Of `create`'s option: "PID,FD", from the front. Throws ConfigError. */
export function earlyMonitor(word: string | undefined): EarlyMonitor | undefined {
  if (word === undefined) return undefined;
  const [, pid, fd] = /^(\d{1,9}),(\d{1,9})$/.exec(word) ?? [];
  if (pid === undefined || fd === undefined) throw new ConfigError([`--early-monitor: ${JSON.stringify(word)}`]);
  return { pid: Number(pid), fd: Number(fd) };
}

/** From here on it is the container's, in the network namespace. Throws HostError if it cannot be; whoever made it ends it then. */
export function admit({ fd }: EarlyMonitor, network: string): void {
  let line: string | undefined;
  try {
    const admission: Admission = { network };
    writeSync(fd, `${JSON.stringify(admission)}\n`);
    line = readLine(fd);
  } catch {
    // It has ended.
  } finally {
    closeSync(fd);
  }
  if (line === undefined) throw new HostError("the container's monitor has ended before it was created");
  const reply = JSON.parse(line) as Reply;
  if ("error" in reply) throw new HostError(reply.error);
}

/**
 * In the monitor: waits for its turn, and calls `enter` with the path of its network namespace then. True at once for one that
 * was not started early; false: there is no container for it.
 */
export function awaitAdmission(enter: (network: string) => void, environment: Environment = process.env): boolean {
  const variable = environment.VMLET_EARLY_MONITOR;
  if (variable === undefined) return true;
  delete environment.VMLET_EARLY_MONITOR;
  const fd = Number(variable);
  const line = readLine(fd);
  if (line === undefined) return false;
  let reply: Reply = { ok: true };
  try {
    enter((JSON.parse(line) as Admission).network);
    outliveParent();
  } catch (error) {
    reply = { error: error instanceof VmmError ? messageOf(error) : String(error) };
  }
  writeSync(fd, `${JSON.stringify(reply)}\n`);
  closeSync(fd);
  return "ok" in reply;
}

/** Waits for it, and nothing else happens meanwhile. Undefined where the other side ends before. */
function readLine(fd: number): string | undefined {
  let text = "";
  const buffer = Buffer.alloc(MAX_LINE_BYTES);
  while (!text.endsWith("\n")) {
    const count = readSync(fd, buffer);
    if (count === 0 || text.length > MAX_LINE_BYTES) return undefined;
    text += buffer.toString("utf8", 0, count);
  }
  return text;
}
