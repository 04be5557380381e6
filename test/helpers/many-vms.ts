// VMs of one process, some at a time, each started, used and closed: nothing of them is left in it.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { Vm } from "../../vmm/index.js";
import { settledResources, type OwnResources } from "./own-resources.js";

const AT_ONCE = 4;

interface Held extends OwnResources {
  /** Of child processes, the command lines. */
  readonly children: readonly string[];
}

export async function useManyVms(image: string, count: number): Promise<void> {
  const use = async (n: number): Promise<void> => {
    const vm = await Vm.start({ image });
    try {
      assert.equal((await vm.exec(["cat"], { stdin: String(n) })).stdout, String(n));
    } finally {
      await vm.close();
    }
  };
  // What the first one loads and opens stays.
  await use(0);
  const before = await held();
  let started = 0;
  const worker = async (): Promise<void> => {
    while (started < count) await use(++started);
  };
  await Promise.all(Array.from({ length: AT_ONCE }, worker));
  assert.deepEqual(await held(), before);
}

async function held(): Promise<Held> {
  const resources = await settledResources();
  return { ...resources, children: childrenOfThis() };
}

/** The command lines of this process's children, each behind its pid. */
export function childrenOfThis(): string[] {
  const pids = readFileSync(`/proc/self/task/${String(process.pid)}/children`, "latin1")
    .split(" ")
    .filter(Boolean);
  return pids.map(commandLine).filter((line) => line !== "");
}

function commandLine(pid: string): string {
  try {
    return `${pid} ${readFileSync(`/proc/${pid}/cmdline`, "latin1").replaceAll("\0", " ")}`;
  } catch {
    return "";
  }
}
