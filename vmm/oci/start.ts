// `start`: the program of a container that has been created.
import { ConfigError, HostError } from "../errors.js";
import { onlyWord, parseOptions } from "./command-line.js";
import type { Context } from "./context.js";
import { runHooks } from "./hooks.js";
import { askMonitor, replyOf, type MonitorReply } from "./monitor-messages.js";
import { sendSignal } from "./signal.js";
import { containerOf, type Container } from "./state.js";

const SIGKILL = 9;

export async function start({ global, log, argv }: Context): Promise<number> {
  // Of the runtime's front, which has asked the monitor already: that one's answer.
  const { options, words } = parseOptions(argv, { values: ["answer"] });
  const container = containerOf(global.root, onlyWord(words, "start"));
  const answer = options.value("answer");
  if (answer === undefined) await startContainer(log, container);
  else checkReply(replyOf(answer));
  return 0;
}

/** Before its container's program had begun. */
export class MonitorEndedError extends HostError {
  constructor() {
    super("the container's monitor has ended before its program had begun");
  }
}

/** Rejects with ConfigError for a container that is not there to be started, with HostError for a program that cannot begin. */
export async function startContainer(log: Context["log"], container: Container): Promise<void> {
  const record = container.known;
  switch (container.status) {
    case "created":
      break;
    case "stopped":
      throw new ConfigError(["cannot start a container that has stopped"]);
    case "running":
      throw new ConfigError(["cannot start an already running container"]);
    default:
      throw new ConfigError([`cannot start a container in the ${container.status} state`]);
  }
  try {
    await runHooks("startContainer", container, record, "created");
  } catch (error) {
    // runtime.md: it is stopped then, and is only there to be deleted.
    await sendSignal(container, record, SIGKILL).catch(() => undefined);
    throw error;
  }
  const reply = await askMonitor(container, record, { start: true });
  checkReply(reply);
  try {
    await runHooks("poststart", container, record, "running");
  } catch (error) {
    // runtime.md: the container goes on.
    log.warn((error as Error).message);
  }
}

/** Throws HostError. */
function checkReply(reply: MonitorReply | undefined): void {
  if (reply === undefined) throw new MonitorEndedError();
  if ("error" in reply) throw new HostError(reply.error);
}
