// `create`: a container without its program. All that is asked for is checked, then its control groups, its network namespace and
// its monitor are made; that makes the VM meanwhile, so that `start` finds it ready.
import { spawn, type ChildProcess } from "node:child_process";
import { closeSync, openSync, renameSync, writeFileSync } from "node:fs";
import { join, resolve } from "node:path";
import { steps } from "../agent/container-request.js";
import { ConfigError, HostError } from "../errors.js";
import { packageRoot } from "../host/guest-files.js";
import { identityOf, isAlive, ownIdentity, type ProcessIdentity } from "../sdk/process-identity.js";
import { CLONE_NEWNET, enterNamespace } from "../sys/namespaces.js";
import { setLimits } from "./cgroup-limits.js";
import { cgroupPaths, checkCgroups, joinCgroups, makeCgroups, removeCgroups } from "./cgroups.js";
import { onlyWord, parseOptions } from "./command-line.js";
import { openConsole, type Console } from "./console.js";
import type { Context } from "./context.js";
import { admit, EARLY_OPTION, earlyProcess, type EarlyProcess } from "./early-process.js";
import { enterNetwork, networkPath } from "./enter-network.js";
import { checkProgram } from "./find-program.js";
import { writeFrontFile } from "./front-file.js";
import { guestSetup, rootfs } from "./guest-setup.js";
import { hooksOfTheEnd, runHooks } from "./hooks.js";
import { containerJail } from "./jail-option.js";
import { endProcess } from "./left-processes.js";
import { machineSize } from "./machine-size.js";
import { podRole } from "./pod.js";
import { readConfig } from "./read-config.js";
import { refuseRootless } from "./rootless.js";
import type { OciSpec } from "./runtime-spec.js";
import { compileSeccomp } from "./seccomp/compile.js";
import { containerOf, MONITOR_COMMAND, type Container, type ContainerRecord } from "./state.js";

export const CREATE_OPTIONS = {
  values: ["bundle|b", "console-socket", "pid-file", "preserve-fds", EARLY_OPTION],
  flags: ["no-pivot", "no-new-keyring"],
};
/** From SIGKILL to the monitor's end, `ms`. */
const END_LIMIT_MS = 10_000;

export interface CreateOptions {
  readonly bundle: string;
  readonly consoleSocket: string | undefined;
  readonly pidFile: string | undefined;
  /** This process's streams are the container's, its terminal too, and it waits for the end. */
  readonly isForeground?: boolean;
  /** One that the front has started; otherwise it is started here. */
  readonly early?: EarlyProcess | undefined;
}

export interface CreatedContainer {
  readonly record: ContainerRecord;
  /** Undefined for one that the front has started. */
  readonly monitor: ChildProcess | undefined;
}

export async function create({ global, log, argv }: Context): Promise<number> {
  const { options, words } = parseOptions(argv, CREATE_OPTIONS);
  const container = containerOf(global.root, onlyWord(words, "create"));
  if (Number(options.value("preserve-fds") ?? 0) > 0) {
    throw new ConfigError(["--preserve-fds: a descriptor of the host's cannot be had in a VM"]);
  }
  await createContainer({ global, log }, container, {
    bundle: resolve(options.value("bundle") ?? "."),
    consoleSocket: options.value("console-socket"),
    pidFile: options.value("pid-file"),
    early: earlyProcess(options.value(EARLY_OPTION)),
  });
  return 0;
}

/** Rejects with ConfigError and HostError; nothing is left then. */
export async function createContainer(
  { global, log }: Pick<Context, "global" | "log">,
  container: Container,
  { bundle, consoleSocket, pidFile, isForeground = false, early }: CreateOptions,
): Promise<CreatedContainer> {
  refuseRootless();
  const spec = readConfig(bundle);
  const role = podRole(spec.annotations);
  if (role.kind === "container") checkSandbox(containerOf(global.root, role.sandbox));
  const setup = guestSetup(spec, bundle, role, container.id);
  const hasTerminal = spec.process?.terminal === true;
  if (hasTerminal && consoleSocket === undefined && !isForeground) {
    throw new ConfigError(["cannot allocate tty if runc will detach without setting console socket"]);
  }
  if (!hasTerminal && consoleSocket !== undefined) {
    throw new ConfigError(["cannot use console socket if runc will not detach or allocate tty"]);
  }
  checkProgram(spec, rootfs(spec, bundle));
  const size = machineSize(spec, role);
  for (const warning of [...setup.warnings, ...size.warnings]) log.warn(warning);
  const cgroups = cgroupPaths(spec.linux?.cgroupsPath, container.id, global.isSystemd);
  checkCgroups(cgroups);
  const filter = filterSteps(spec, log);
  const jail = containerJail(spec, global.jail);
  container.make();
  const base: ContainerRecord = {
    id: container.id,
    ociVersion: spec.ociVersion,
    bundle,
    rootfs: rootfs(spec, bundle),
    annotations: spec.annotations ?? {},
    created: new Date().toISOString(),
    owner: "root",
    role,
    cgroups,
    hooks: spec.hooks ?? {},
    memoryMib: size.memoryMib,
    cpus: size.cpus,
    shared: setup.shared,
    steps: setup.steps,
    namespaces: setup.namespaces,
    joined: setup.joined,
    group: setup.group,
    filter,
    jail,
    log: global.log === undefined ? undefined : { path: resolve(global.log), format: global.logFormat },
  };
  const creator = ownIdentity();
  let record: ContainerRecord = { ...base, creator };
  try {
    container.write(record);
    container.keepConfig(spec);
    makeCgroups(cgroups);
    setLimits(cgroups, size.resources, size.limitBytes);
    const child =
      early === undefined
        ? startMonitor(container, spec, {
            terminal: consoleSocket === undefined ? undefined : openConsole(consoleSocket),
            isDetached: !(hasTerminal && isForeground),
          })
        : undefined;
    const monitor = monitorOf(child ?? early);
    record = { ...record, monitor };
    container.write(record);
    joinCgroups(cgroups, monitor.pid);
    if (early !== undefined) admit(early, networkPath(spec));
    for (const kind of ["prestart", "createRuntime", "createContainer"] as const) {
      await runHooks(kind, container, record, "creating");
    }
    // What it says on its way is not heard before `start`; what it could not even begin with shows here.
    if (!isAlive(monitor)) throw new HostError("the container's monitor has ended before it was created");
    if (pidFile !== undefined) writePidFile(pidFile, monitor.pid);
    const created = { ...base, monitor };
    container.write(created);
    writeFrontFile(container, created);
    return { record: created, monitor: child };
  } catch (error) {
    if (record.monitor !== undefined) await endProcess(record.monitor, END_LIMIT_MS);
    await removeCgroups(cgroups, creator);
    if (record.monitor !== undefined) await hooksOfTheEnd(log, container, record);
    container.removeUnfinished(creator);
    throw error;
  }
}

/** Throws ConfigError where the pod has no VM. */
function checkSandbox(sandbox: Container): void {
  const status = sandbox.exists ? sandbox.status : "not there";
  if (status === "running") return;
  throw new ConfigError([`the pod's sandbox ${sandbox.id} is ${status}: its VM must run for a container in it`]);
}

function filterSteps({ linux }: OciSpec, log: Context["log"]): readonly string[] {
  const config = linux?.seccomp;
  if (config === undefined || config === null) return [];
  const { flags, program, unknown } = compileSeccomp(config);
  if (unknown.length > 0) log.debug(`linux.seccomp: no system calls: ${unknown.join(", ")}`);
  return steps.filter(flags, program);
}

/** In the container's network namespace from its first moment on. */
function startMonitor(container: Container, spec: OciSpec, streams: MonitorStreams): ChildProcess {
  const own = openSync("/proc/thread-self/ns/net", "r");
  try {
    enterNetwork(networkPath(spec));
    return spawnMonitor(container, streams);
  } finally {
    enterNamespace(own, CLONE_NEWNET);
    closeSync(own);
    streams.terminal?.close();
  }
}

interface MonitorStreams {
  /** In place of this process's streams. */
  readonly terminal: Console | undefined;
  /** It leads a session of its own, whose terminal is the container's. */
  readonly isDetached: boolean;
}

function spawnMonitor(container: Container, { terminal, isDetached }: MonitorStreams): ChildProcess {
  const stream = terminal?.slave;
  const child = spawn(runtimeProgram(), [MONITOR_COMMAND, container.folder], {
    stdio: [stream ?? 0, stream ?? 1, stream ?? 2],
    detached: isDetached,
    cwd: "/",
  });
  child.on("error", () => undefined);
  child.unref();
  return child;
}

/** Throws HostError for a process that could not be made. */
function monitorOf(child: { readonly pid?: number | undefined } | undefined): ProcessIdentity {
  const pid = child?.pid;
  if (pid === undefined)
    throw new HostError(`The monitor ${runtimeProgram()} cannot be started`, { cure: "make build" });
  return identityOf(pid);
}

export function runtimeProgram(): string {
  return join(packageRoot(), "dist/vmlet-runtime.js");
}

export function writePidFile(path: string, pid: number): void {
  const temporary = `${path}.${String(process.pid)}`;
  writeFileSync(temporary, String(pid), { mode: 0o644 });
  renameSync(temporary, path);
}
