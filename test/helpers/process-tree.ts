// A process and all that come from it: what each waits for, and their end.
import { readFileSync, readdirSync } from "node:fs";
import { statFields } from "../../vmm/sdk/process-identity.js";

const COMMAND_COLUMNS = 160;

/** The process and its descendants, parents first. */
export function processTree(root: number): number[] {
  const parents = new Map<number, number>();
  for (const name of readdirSync("/proc")) {
    const parent = /^\d+$/.test(name) ? statFields(Number(name))?.[1] : undefined;
    if (parent !== undefined) parents.set(Number(name), Number(parent));
  }
  const tree = [root];
  for (const pid of tree) for (const [child, parent] of parents) if (parent === pid) tree.push(child);
  return tree;
}

/** A line for each process, and for each thread of the first that does not only wait for work. */
export function describeTree(root: number): string[] {
  return processTree(root).flatMap((pid) => {
    const command = commandOf(pid);
    if (command === undefined) return [];
    const line = `${String(pid)} ${statFields(pid)?.[0] ?? "?"} ${waitsIn(`/proc/${String(pid)}`)}: ${command}`;
    return pid === root ? [line, ...threads(pid)] : [line];
  });
}

/** Processes that were started with this variable in their environment, wherever they have gone since. */
export function processesWith(variable: string): number[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name) && read(`/proc/${name}/environ`)?.split("\0").includes(variable) === true)
    .map(Number);
}

/** Whole command lines that have this in them. */
export function commandsWith(text: string): string[] {
  return readdirSync("/proc").flatMap((name) => {
    const command = /^\d+$/.test(name) ? read(`/proc/${name}/cmdline`)?.replaceAll("\0", " ") : undefined;
    return command?.includes(text) === true ? [`${name} ${command}`] : [];
  });
}

/** What is left of them, a line each. */
export function killAll(pids: readonly number[]): string[] {
  return pids.flatMap((pid) => {
    const command = commandOf(pid);
    try {
      process.kill(pid, "SIGKILL");
    } catch {
      return [];
    }
    return command === undefined || command === "" ? [] : [`${String(pid)} ${command}`];
  });
}

function commandOf(pid: number): string | undefined {
  return read(`/proc/${String(pid)}/cmdline`)
    ?.replaceAll("\0", " ")
    .slice(0, COMMAND_COLUMNS)
    .trim();
}

function threads(pid: number): string[] {
  const folder = `/proc/${String(pid)}/task`;
  return readdirSync(folder).map((tid) => {
    const name = read(`${folder}/${tid}/comm`)?.trim() ?? "";
    return `  thread ${tid} ${name}: ${waitsIn(`${folder}/${tid}`)}`;
  });
}

/** The kernel's function, and system call with its arguments, where they are told. */
function waitsIn(folder: string): string {
  const call = read(`${folder}/syscall`)?.trim().split(" ").slice(0, 3).join(" ");
  return `${read(`${folder}/wchan`) ?? "?"}${call === undefined ? "" : `, system call ${call}`}`;
}

function read(path: string): string | undefined {
  try {
    return readFileSync(path, "utf8");
  } catch {
    return undefined;
  }
}
