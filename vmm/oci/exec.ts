// `exec`: another program in the container, which is in the VM. On the host a process of its own stands for it: its streams are
// the program's, and so is its exit code.
import { spawn } from "node:child_process";
import { rmSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ConfigError, HostError } from "../errors.js";
import { forwardSignals } from "./forward-signals.js";
import { makeRaw } from "../sys/terminal.js";
import { capabilityBit } from "./capabilities.js";
import { parseOptions, type Options } from "./command-line.js";
import { openConsole } from "./console.js";
import type { Context } from "./context.js";
import { runtimeProgram, writePidFile } from "./create.js";
import { admit, EARLY_OPTION, earlyProcess, type EarlyProcess } from "./early-process.js";
import { checkedProcess, readJson } from "./read-config.js";
import type { OciProcess } from "./runtime-spec.js";
import { containerOf, type Container } from "./state.js";

export const RELAY_COMMAND = "relay";
const EXIT_FAILURE = 255;
/** The relay's descriptor by which it says how the start has gone. */
export const REPORT_FD = 3;
const MAX_REPORT = 65_536;
const OPTIONS = {
  values: [
    ...["console-socket", "cwd", "env|e", "user|u", "additional-gids|g", "process|p", "pid-file", "process-label"],
    ...["apparmor", "cap|c", "preserve-fds", "cgroup", EARLY_OPTION],
  ],
  flags: ["tty|t", "detach|d", "no-new-privs", "ignore-paused"],
};

export async function exec({ global, log, argv }: Context): Promise<number> {
  const { options, words } = parseOptions(argv, OPTIONS, { allowsMixed: false });
  const [id = "", ...command] = words;
  if (id === "") throw new ConfigError(['"exec" requires a minimum of 1 argument']);
  const container = containerOf(global.root, id);
  const { status } = container;
  if (status === "stopped") throw new ConfigError(["cannot exec in a stopped container"]);
  if (status === "paused") throw new ConfigError(["cannot exec in a paused container"]);
  if (status !== "running") throw new ConfigError([`cannot exec in a container that has not been started`]);
  if (Number(options.value("preserve-fds") ?? 0) > 0) {
    throw new ConfigError(["--preserve-fds: a descriptor of the host's cannot be had in a VM"]);
  }
  for (const name of ["process-label", "apparmor", "cgroup"]) {
    if (options.value(name) !== undefined) log.warn(`--${name} has no meaning in a VM`);
  }
  const process = wantedProcess(options, command, container);
  return run(container, process, options);
}

/** Throws ConfigError. */
function wantedProcess(options: Options, command: readonly string[], container: Container): OciProcess {
  const file = options.value("process");
  if (file !== undefined) return checkedProcess(readJson(file), "process");
  if (command.length === 0) throw new ConfigError(["process args cannot be empty"]);
  const own = container.config.process;
  if (own === undefined) throw new ConfigError(["config.json has no process"]);
  const [uid, gid] = (options.value("user") ?? "").split(":");
  const caps = options.all("cap");
  for (const name of caps) if (capabilityBit(name) === undefined) throw new ConfigError([`unknown capability ${name}`]);
  const { capabilities = {} } = own;
  const more = (set: readonly string[] | undefined): readonly string[] => [...(set ?? []), ...caps];
  return checkedProcess(
    {
      ...own,
      args: command,
      terminal: options.has("tty"),
      cwd: options.value("cwd") ?? own.cwd,
      env: [...(own.env ?? []), ...options.all("env")],
      user: {
        ...(uid === undefined || uid === "" ? own.user : { uid: Number(uid), gid: Number(gid ?? own.user.gid) }),
        additionalGids: [...(own.user.additionalGids ?? []), ...options.all("additional-gids").map(Number)],
      },
      noNewPrivileges: own.noNewPrivileges === true || options.has("no-new-privs"),
      capabilities: {
        ...capabilities,
        ...(caps.length === 0
          ? {}
          : {
              bounding: more(capabilities.bounding),
              effective: more(capabilities.effective),
              permitted: more(capabilities.permitted),
              inheritable: more(capabilities.inheritable),
              ambient: more(capabilities.ambient),
            }),
      },
    },
    "exec",
  );
}

async function run(container: Container, wanted: OciProcess, options: Options): Promise<number> {
  const early = earlyProcess(options.value(EARLY_OPTION));
  if (early !== undefined) return runEarly(container, wanted, options, early);
  const isDetached = options.has("detach");
  const consoleSocket = options.value("console-socket");
  if (wanted.terminal === true && isDetached && consoleSocket === undefined) {
    throw new ConfigError(["cannot allocate tty if runc will detach without setting console socket"]);
  }
  const order = orderOf(container);
  writeFileSync(order, JSON.stringify(wanted), { mode: 0o600 });
  const terminal = wanted.terminal === true && consoleSocket !== undefined ? openConsole(consoleSocket) : undefined;
  const stream = terminal?.slave;
  const restore = wanted.terminal === true && !isDetached && terminal === undefined ? makeRaw(0) : () => undefined;
  try {
    const child = spawn(runtimeProgram(), [RELAY_COMMAND, container.folder, order], {
      stdio: [stream ?? 0, stream ?? 1, stream ?? 2, "pipe"],
      // In the foreground it has this process's terminal, and hears of its size.
      detached: isDetached || terminal !== undefined,
      cwd: "/",
    });
    const { pid } = child;
    if (pid === undefined) throw new HostError(`${runtimeProgram()} cannot be started`);
    const ended = new Promise<number>((resolve) =>
      child.once("exit", (code) => {
        resolve(code ?? EXIT_FAILURE);
      }),
    );
    const said = await reportOf(child.stdio[REPORT_FD] as NodeJS.ReadableStream);
    if (said !== "ok") throw new HostError(said === "" ? "the process that stands for the program has ended" : said);
    const pidFile = options.value("pid-file");
    if (pidFile !== undefined) writePidFile(pidFile, pid);
    if (!isDetached) {
      const release = forwardSignals(pid);
      return await ended.finally(release);
    }
    child.unref();
    return 0;
  } finally {
    restore();
    terminal?.close();
    rmSync(order, { force: true });
  }
}

/** By a relay that the front has started: one that is detached, without a terminal. */
function runEarly(container: Container, wanted: OciProcess, options: Options, early: EarlyProcess): number {
  if (wanted.terminal === true) {
    throw new ConfigError(["cannot allocate tty if runc will detach without setting console socket"]);
  }
  const order = orderOf(container);
  writeFileSync(order, JSON.stringify(wanted), { mode: 0o600 });
  try {
    admit(early);
    const pidFile = options.value("pid-file");
    if (pidFile !== undefined) writePidFile(pidFile, early.pid);
    return 0;
  } finally {
    rmSync(order, { force: true });
  }
}

/** The file by which the relay is told what to start: the front knows its name, too. */
function orderOf({ folder }: Container): string {
  return join(folder, `exec-${String(process.pid)}.json`);
}

async function reportOf(stream: NodeJS.ReadableStream): Promise<string> {
  let text = "";
  stream.setEncoding("utf8");
  for await (const chunk of stream) {
    text += String(chunk);
    if (text.includes("\n") || text.length > MAX_REPORT) break;
  }
  return text.trim();
}
