// `delete`: nothing is left of the container, whatever has been left of it, and by whom.
import { readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ConfigError } from "../errors.js";
import { isAlive, ownIdentity, type ProcessIdentity } from "../sdk/process-identity.js";
import { removeCgroups } from "./cgroups.js";
import { onlyWord, parseOptions } from "./command-line.js";
import type { Context } from "./context.js";
import { hookFiles, hooksOfTheEnd } from "./hooks.js";
import { endFound, endProcess, monitorsOf, readersOf } from "./left-processes.js";
import { messageOf } from "./log.js";
import { askMonitor } from "./monitor-messages.js";
import { inMountsOf, leaveShare, removeShare } from "./pod-share.js";
import { sendSignal } from "./signal.js";
import { containerOf, NETWORK_STATE, RELAY_FILE, type Container, type ContainerRecord } from "./state.js";

const SIGKILL = 9;
/** From SIGKILL to a process's end, `ms`. */
const END_LIMIT_MS = 10_000;
const LOOK_MS = 5;
/** Who deletes it now. */
const DELETER = "deleter.json";
const DELETER_LIMIT_MS = 10_000;
/** A guest whose kernel is emulated takes its time for each, `ms`. */
const FORGET_LIMIT_MS = 20_000;

export async function deleteCommand({ global, log, argv }: Context): Promise<number> {
  const { options, words } = parseOptions(argv, { flags: ["force|f"] });
  const container = containerOf(global.root, onlyWord(words, "delete"));
  const isForced = options.has("force");
  if (!container.exists && isForced) return 0;
  await deleteContainer(log, container, isForced);
  return 0;
}

/** Rejects with ConfigError for one that runs, unless it is forced, and with HostError if something cannot be removed. */
export async function deleteContainer(log: Context["log"], container: Container, isForced: boolean): Promise<void> {
  const { record, status } = container;
  const isInUse = status === "running" || status === "paused" || isBeingCreated(record);
  if (isInUse && !isForced) {
    throw new ConfigError([`cannot delete container ${container.id} that is not stopped: ${status}`]);
  }
  if (!(await isOurTurn(container))) return;
  if (record?.creator !== undefined) await endProcess(record.creator, END_LIMIT_MS);
  // What its creator has written before its end.
  const last = container.record ?? record;
  await endHooks(container);
  if (last?.monitor === undefined) await endFound(() => monitorsOf(container), END_LIMIT_MS);
  else if (isAlive(last.monitor)) await endMonitor(log, container, last, last.monitor);
  await endRelays(container);
  if (last?.role.kind === "container") await leavePod(log, container, last);
  if (last !== undefined) {
    await removeCgroups(last.cgroups, last.monitor ?? last.creator);
    await removeNetwork(log, container);
    // Before the folder goes: a `delete` that is killed here is not the last.
    await hooksOfTheEnd(log, container, last);
  }
  container.remove();
}

function isBeingCreated(record: ContainerRecord | undefined): boolean {
  return record?.creator !== undefined && isAlive(record.creator);
}

/** False if another `delete` has done it meanwhile. One that is killed, or stuck, is not waited for. */
async function isOurTurn(container: Container): Promise<boolean> {
  const path = join(container.folder, DELETER);
  for (const begun = performance.now(); performance.now() - begun < DELETER_LIMIT_MS;) {
    try {
      writeFileSync(path, JSON.stringify(ownIdentity()), { flag: "wx", mode: 0o600 });
      return true;
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === "ENOENT" && !container.exists) return false;
      // A disk that is full, or can only be read, does not keep the rest from being removed.
      if (code !== "EEXIST") return true;
    }
    const other = identityIn(path);
    if (other !== undefined && !isAlive(other)) rmSync(path, { force: true });
    else await sleep(LOOK_MS);
  }
  return container.exists;
}

function identityIn(path: string): ProcessIdentity | undefined {
  try {
    return JSON.parse(readFileSync(path, "utf8")) as ProcessIdentity;
  } catch {
    // It is about to be written, or has been removed.
    return undefined;
  }
}

/** What was shared with the pod's VM is let go of there, if there is still one. */
async function leavePod(log: Context["log"], container: Container, record: ContainerRecord): Promise<void> {
  const sandbox = container.vmOwner(record);
  if (!sandbox.exists || sandbox.status === "stopped") return;
  const pid = sandbox.known.monitor?.pid ?? 0;
  const folder = join(sandbox.share, container.id);
  let names: readonly string[];
  try {
    names = inMountsOf(pid, () => leaveShare(folder));
  } catch {
    // The pod's VM has just ended.
    return;
  }
  const about = { forget: container.id, names };
  const reply = await askMonitor(sandbox, sandbox.known, about, FORGET_LIMIT_MS).catch(() => ({ ok: true }) as const);
  if (reply !== undefined && "error" in reply) {
    // The guest does not do it.
    try {
      inMountsOf(pid, () => {
        removeShare(folder, names);
      });
    } catch {
      // It has gone.
    }
  }
  if (reply === undefined) log.warn("the pod's VM does not answer: files of the container stay open until its end");
}

async function endMonitor(
  log: Context["log"],
  container: Container,
  record: ContainerRecord,
  monitor: ProcessIdentity,
): Promise<void> {
  await sendSignal(container, record, SIGKILL).catch((error: unknown) => {
    log.warn(messageOf(error));
  });
  const begun = performance.now();
  while (isAlive(monitor) && performance.now() - begun < END_LIMIT_MS) await sleep(LOOK_MS);
  await endProcess(monitor, END_LIMIT_MS);
}

async function endHooks(container: Container): Promise<void> {
  const files = hookFiles(container);
  if (files.length > 0) await endFound(() => readersOf(files), END_LIMIT_MS);
}

/** They end with the VM, unless they are stopped. */
async function endRelays({ folder }: Container): Promise<void> {
  for (const name of readdirSync(folder).filter((one) => RELAY_FILE.test(one))) {
    const relay = identityIn(join(folder, name));
    if (relay !== undefined) await endProcess(relay, END_LIMIT_MS);
  }
}

/** A monitor that was killed leaves its interfaces in a namespace that goes on. */
async function removeNetwork(log: Context["log"], container: Container): Promise<void> {
  const path = join(container.folder, NETWORK_STATE);
  let text: string;
  try {
    text = readFileSync(path, "utf8");
  } catch {
    return;
  }
  try {
    const { removeLeft } = await import("./network/left.js");
    removeLeft(container, text);
  } catch (error) {
    log.warn(messageOf(error));
  }
}
