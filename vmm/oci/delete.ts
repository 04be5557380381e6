// `delete`: nothing is left of the container, whatever has been left of it.
import { setTimeout as sleep } from "node:timers/promises";
import { ConfigError } from "../errors.js";
import { removeCgroups } from "./cgroups.js";
import { onlyWord, parseOptions } from "./command-line.js";
import type { Context } from "./context.js";
import { runHooks } from "./hooks.js";
import { messageOf } from "./log.js";
import { sendSignal } from "./signal.js";
import { containerOf, type Container } from "./state.js";

const SIGKILL = 9;
/** From SIGKILL to the monitor's end, `ms`. */
const END_LIMIT_MS = 10_000;
const LOOK_MS = 5;

export async function deleteCommand({ global, log, argv }: Context): Promise<number> {
  const { options, words } = parseOptions(argv, { flags: ["force|f"] });
  const container = containerOf(global.root, onlyWord(words, "delete"));
  const isForced = options.has("force");
  if (!container.exists && isForced) return 0;
  await deleteContainer(log, container, isForced);
  return 0;
}

/** Rejects with ConfigError for one that runs, unless it is forced. */
export async function deleteContainer(log: Context["log"], container: Container, isForced: boolean): Promise<void> {
  const { record, status } = container;
  if (status === "running" || status === "paused") {
    if (!isForced) throw new ConfigError([`cannot delete container ${container.id} that is not stopped: ${status}`]);
  }
  if (record?.monitor !== undefined && status !== "stopped") {
    await sendSignal(container, record, SIGKILL).catch((error: unknown) => {
      log.warn(messageOf(error));
    });
    await ended(container, record.monitor.pid);
  }
  if (record !== undefined) await removeCgroups(record.cgroups);
  container.remove();
  if (record === undefined) return;
  try {
    runHooks("poststop", record, "stopped");
  } catch (error) {
    // runtime.md: the rest goes on as if it had not failed.
    log.warn(messageOf(error));
  }
}

async function ended(container: Container, pid: number): Promise<void> {
  const begun = performance.now();
  while (container.status !== "stopped") {
    await sleep(LOOK_MS);
    if (performance.now() - begun < END_LIMIT_MS) continue;
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      // It has ended by itself.
    }
    return;
  }
}
