// Ends a VM that another process has: its program is asked, then killed; one without a program is turned off.
import { GuestFiles } from "../agent/files.js";
import { GuestControl } from "../agent/guest.js";
import { connectAgent } from "./agent-socket.js";
import { ConfigError, HostError } from "../errors.js";
import { timeLimit } from "../host/time-limit.js";
import { AttachClient } from "./attach-client.js";
import { isAlive } from "./process-identity.js";
import type { StateFolder } from "./state-folder.js";
import type { VmRecord } from "./vm-record.js";

const SIGKILL = 9;
/** From its program's end to its own, `ms`. */
const END_LIMIT_MS = 10_000;
const LOOK_MS = 20;

/** Sends a signal to its program. Rejects with ConfigError for a VM that does not run. */
export async function signalVm(state: StateFolder, record: VmRecord, signal: number): Promise<void> {
  refuseEnded(record);
  if (record.command.length === 0) {
    if (signal !== SIGKILL) throw new ConfigError([`VM ${record.name} has no program of its own that takes a signal`]);
    await powerOff(state, record);
    return;
  }
  const client = await AttachClient.connect(state.folderOf(record.id).attachSocket, {
    output: (_, __, done) => done(),
  });
  client.signal(signal);
  client.end();
  await client.ended;
}

/** Resolves once it has ended. `graceMs`: what its program may take for its end before it is killed. */
export async function stopVm(state: StateFolder, record: VmRecord, graceMs: number): Promise<void> {
  refuseEnded(record);
  if (record.command.length === 0) await powerOff(state, record);
  else {
    await signalVm(state, record, record.stopSignal);
    if (!(await hasEnded(state, record, graceMs))) {
      await signalVm(state, record, SIGKILL).catch((error: unknown) => {
        if (!(error instanceof HostError)) throw error;
      });
    }
  }
  if (await hasEnded(state, record, END_LIMIT_MS)) return;
  // Only then this host is asked how slow it is.
  if (await hasEnded(state, record, timeLimit("the VM's end", END_LIMIT_MS) - END_LIMIT_MS)) return;
  // Neither guest nor monitor answers.
  process.kill(record.owner.pid, "SIGKILL");
  await hasEnded(state, record, END_LIMIT_MS);
}

/** Waits; the exit code, or undefined if nobody has kept it. */
export async function waitForVm(state: StateFolder, { id, owner }: VmRecord): Promise<number | undefined> {
  for (;;) {
    const record = state.list().find((one) => one.id === id);
    if (record === undefined || record.status === "exited") return record?.exitCode;
    if (!isAlive(owner)) return undefined;
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}

function refuseEnded({ status, name }: VmRecord): void {
  if (status === "exited") throw new ConfigError([`VM ${name} has ended`]);
}

async function hasEnded(state: StateFolder, { id, owner }: VmRecord, withinMs: number): Promise<boolean> {
  const deadline = performance.now() + withinMs;
  for (;;) {
    const record = state.list().find((one) => one.id === id);
    if (record === undefined || record.status === "exited" || !isAlive(owner)) return true;
    if (performance.now() >= deadline) return false;
    await new Promise((resolve) => setTimeout(resolve, LOOK_MS));
  }
}

async function powerOff(state: StateFolder, { id }: VmRecord): Promise<void> {
  const agent = await connectAgent(state.folderOf(id).agentSocket);
  await agent.ready;
  await new GuestControl(agent, new GuestFiles(agent)).powerOff();
}
