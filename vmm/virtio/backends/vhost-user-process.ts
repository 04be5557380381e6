// A process that serves queues by vhost-user over one connection. It ends when that is closed, however this process ends, so
// nothing is left to remove.
import { spawn, type ChildProcess } from "node:child_process";
import { readFileSync, readSync } from "node:fs";
import { closeDescriptor } from "../../sys/descriptors.js";
import { processSeal } from "../../sys/process-seal.js";
import { streamPair } from "../../sys/sockets.js";
import { VhostUser } from "./vhost-user.js";

/** It answers after milliseconds; the longest wait for one that does not, `ms`. */
const START_LIMIT_MS = 10_000;
/** Of what it says on its way, for messages, `bytes`. */
const KEPT_WORDS = 4096;

/** One that runs; the caller closes it all. */
export interface VhostUserProcess {
  /** Of the program, for messages. */
  readonly name: string;
  readonly socket: number;
  readonly vhost: VhostUser;
  /** What it says on its standard error; never waits. */
  readonly wordsFd: number;
  /** What it always says. */
  readonly noise: RegExp;
  readonly process: ChildProcess;
}

export interface VhostUserCommand {
  readonly name: string;
  readonly argv: readonly string[];
  readonly noise: RegExp;
  /** In place of what is read as its words. */
  readonly wordsTo?: number | undefined;
}

/**
 * Starts it, and does not wait for it. It finds `others`, which is closed here in any case, as descriptor 3; `socket` is its
 * other end, or will be.
 */
export function launchVhostUser(command: VhostUserCommand, socket: number, others: number): VhostUserProcess {
  const { name, noise, wordsTo } = command;
  const [program = "", ...args] = command.argv;
  const [wordsFd, childWords] = streamPair();
  const vhost = new VhostUser(socket);
  let child: ChildProcess;
  try {
    // A session of its own: keys that end or stop vmlet are not meant for it.
    child = spawn(program, args, { stdio: ["ignore", "ignore", wordsTo ?? childWords, others], detached: true });
  } catch (error) {
    vhost.close();
    for (const fd of [socket, wordsFd]) closeDescriptor(fd);
    throw error;
  } finally {
    closeDescriptor(others);
    closeDescriptor(childWords);
  }
  // Without a listener it would end this process; that there is no process shows when it does not answer.
  child.on("error", () => undefined);
  child.unref();
  return { name, socket, vhost, wordsFd, noise, process: child };
}

/** Waits for its answer: what it knows of virtio, or why it is of no use. */
export function beginVhostUser(server: VhostUserProcess, neededFeatures: bigint): bigint | string {
  try {
    const features = server.vhost.begin(performance.now() + START_LIMIT_MS);
    if (features === undefined) return lastWords(server);
    const isEnough = (features & neededFeatures) === neededFeatures;
    return isEnough ? features : "this version lacks features of virtio that are needed";
  } catch {
    // It has ended before it was asked.
    return lastWords(server);
  }
}

/**
 * Closes its ends, and ends it: what it has answered is done, and what it has not the guest cannot rely on. In a namespace
 * of its own it is the child of a process that waits for it. A process that has been sealed signals no other: the server ends by
 * itself when its connection has gone, and one that does not, with this process.
 */
export function endVhostUser({ socket, vhost, wordsFd, process: child }: VhostUserProcess): void {
  vhost.close();
  for (const fd of [socket, wordsFd]) closeDescriptor(fd);
  if (processSeal.isSealed) return;
  const { pid, exitCode, signalCode } = child;
  // Until it has been waited for, the number is its own.
  if (pid === undefined || exitCode !== null || signalCode !== null) return;
  for (const own of childrenOf(pid)) {
    try {
      process.kill(own, "SIGKILL");
    } catch {
      // It has ended by itself.
    }
  }
  child.kill("SIGKILL");
}

function childrenOf(pid: number): number[] {
  try {
    const children = readFileSync(`/proc/${String(pid)}/task/${String(pid)}/children`, "latin1");
    return children
      .split(" ")
      .filter((word) => word !== "")
      .map(Number);
  } catch {
    // It has ended, or the kernel does not tell: then it ends with its connection.
    return [];
  }
}

/** What it has said, in one line. */
function lastWords({ wordsFd, noise }: VhostUserProcess): string {
  const lines = readWords(wordsFd)
    .split("\n")
    .filter((line) => !noise.test(line));
  return lines.length > 0 ? lines.join("; ") : "it ends without a word";
}

/** What is there to be read, at most the last of it. */
export function readWords(fd: number): string {
  const bytes = Buffer.alloc(KEPT_WORDS);
  let kept = Buffer.alloc(0);
  try {
    // A server that talks for ever has its own turn again later.
    for (let turn = 0; turn < 16; turn++) {
      const count = readSync(fd, bytes, 0, bytes.length, null);
      if (count === 0) break;
      kept = Buffer.concat([kept, bytes.subarray(0, count)]).subarray(-KEPT_WORDS);
    }
  } catch {
    // Nothing more for now.
  }
  return kept.toString("utf8");
}
