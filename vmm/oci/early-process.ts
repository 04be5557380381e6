// A process that the runtime's front has started together with the command that it is for, so that Node's two starts, and the reading
// of their programs, take the time of one: `create`'s monitor, which waits until the control groups and the state folder are made, and
// the relay of a detached `exec`, which waits for its order. Until it is admitted it ends with that command, and has done nothing.
import { closeSync, readSync, writeSync } from "node:fs";
import { show } from "../config/show.js";
import { ConfigError, HostError, VmmError } from "../errors.js";
import { outliveParent } from "../sys/parent-death.js";
import { messageOf } from "./log.js";

interface Environment {
  /** Set by the front: its end of a pair of sockets. */
  VMLET_EARLY?: string | undefined;
}

/** What it is told, a line of JSON. */
interface Admission {
  /** For a monitor, a path of a network namespace; empty: one of its own. */
  readonly network: string;
}

type Reply = { readonly ok: true } | { readonly error: string };

/** Of commands, from the front. */
export const EARLY_OPTION = "early";
const MAX_LINE_BYTES = 65_536;

export interface EarlyProcess {
  readonly pid: number;
  /** This process's end of the pair. */
  readonly fd: number;
}

/** Of the front's option: "PID,FD". Throws ConfigError. */
export function earlyProcess(word: string | undefined): EarlyProcess | undefined {
  if (word === undefined) return undefined;
  const [, pid, fd] = /^(\d{1,9}),(\d{1,9})$/.exec(word) ?? [];
  if (pid === undefined || fd === undefined) throw new ConfigError([`--early: ${show(word)}`]);
  return { pid: Number(pid), fd: Number(fd) };
}

/** From here on it does what it is for. Throws HostError with what it says against that. */
export function admit({ fd }: EarlyProcess, network = ""): void {
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
  if (line === undefined) throw new HostError("the process that was started early has ended");
  const reply = JSON.parse(line) as Reply;
  if ("error" in reply) throw new HostError(reply.error);
}

/** In that process, once it is admitted: from here on it goes on without the command. */
export interface Turn {
  readonly network: string;
  /** For `admit`; once. */
  answer(reply: Reply): void;
}

/** Waits for it. Undefined for a process that was not started early, "gone" where its command has ended before. */
export function awaitTurn(environment: Environment = process.env): Turn | "gone" | undefined {
  const variable = environment.VMLET_EARLY;
  if (variable === undefined) return undefined;
  delete environment.VMLET_EARLY;
  const fd = Number(variable);
  const line = readLine(fd);
  if (line === undefined) return "gone";
  outliveParent();
  const { network } = JSON.parse(line) as Admission;
  return {
    network,
    answer: (reply) => {
      try {
        writeSync(fd, `${JSON.stringify(reply)}\n`);
        closeSync(fd);
      } catch {
        // Whoever asked has gone.
      }
    },
  };
}

/**
 * For a monitor: waits for its turn, and calls `enter` with the path of its network namespace then. True at once for one that was
 * not started early; false: there is no container for it.
 */
export function isAdmitted(enter: (network: string) => void): boolean {
  const turn = awaitTurn();
  if (turn === undefined || turn === "gone") return turn === undefined;
  try {
    enter(turn.network);
  } catch (error) {
    turn.answer({ error: error instanceof VmmError ? messageOf(error) : String(error) });
    return false;
  }
  turn.answer({ ok: true });
  return true;
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
