// `kill`, `pause` and `resume`: what is done to a running container.
import { signalNumber } from "../agent/signals.js";
import { show } from "../config/show.js";
import { ConfigError, HostError } from "../errors.js";
import { onlyWord, parseOptions } from "./command-line.js";
import type { Context } from "./context.js";
import { askMonitor } from "./monitor-messages.js";
import { containerOf, type Container, type ContainerRecord } from "./state.js";

const SIGKILL = 9;
/** A monitor whose guest pauses or is set up answers a little later, `ms`. */
const ANSWER_LIMIT_MS = 10_000;
/** What is to be killed is not waited for, `ms`. */
const KILL_LIMIT_MS = 500;

export async function kill({ global, argv }: Context): Promise<number> {
  const { options, words } = parseOptions(argv, { flags: ["all|a"] });
  const [id = "", word = "SIGTERM"] = words;
  if (id === "") throw new ConfigError(['"kill" requires a minimum of 1 argument']);
  if (words.length > 2) throw new ConfigError(['"kill" requires a maximum of 2 arguments']);
  const container = containerOf(global.root, id);
  const record = container.known;
  let number: number;
  try {
    number = signalNumber(word);
  } catch {
    throw new ConfigError([`unknown signal ${show(word)}`]);
  }
  if (container.status === "stopped") {
    // runc: what is left of a container that has ended is nobody's to complain about.
    if (options.has("all")) return 0;
    throw new ConfigError(["container not running"]);
  }
  await sendSignal(container, record, number);
  return 0;
}

/** Rejects with HostError. */
export async function sendSignal(container: Container, record: ContainerRecord, number: number): Promise<void> {
  const limitMs = number === SIGKILL ? KILL_LIMIT_MS : ANSWER_LIMIT_MS;
  const reply = await askMonitor(container, record, { signal: number }, limitMs).catch((error: unknown) => {
    // It has ended in this moment.
    if (container.status === "stopped") return { ok: true } as const;
    throw error;
  });
  if (reply !== undefined && "error" in reply) throw new HostError(reply.error);
  if (reply !== undefined) return;
  if (number !== SIGKILL) throw new HostError("the container's monitor does not answer");
  // Stopped, hung, or out of memory.
  const pid = record.monitor?.pid;
  if (pid !== undefined && container.status !== "stopped") process.kill(pid, "SIGKILL");
}

export async function pause(context: Context): Promise<number> {
  await change(context, "pause");
  return 0;
}

export async function resume(context: Context): Promise<number> {
  await change(context, "resume");
  return 0;
}

async function change({ global, argv }: Context, what: "pause" | "resume"): Promise<void> {
  const { words } = parseOptions(argv, {});
  const container = containerOf(global.root, onlyWord(words, what));
  const record = container.known;
  const { status } = container;
  if (what === "pause" && status !== "running") throw new ConfigError(["container not running"]);
  if (what === "resume" && status !== "paused") throw new ConfigError(["container not paused"]);
  const request = what === "pause" ? ({ pause: true } as const) : ({ resume: true } as const);
  const reply = await askMonitor(container, record, request, ANSWER_LIMIT_MS);
  if (reply === undefined) throw new HostError("the container's monitor does not answer");
  if ("error" in reply) throw new HostError(reply.error);
}
