// Reads a bundle's config.json and checks it: all that is wrong at once, each with its place, before anything is made.
import { readFileSync, statSync } from "node:fs";
import { isAbsolute, join } from "node:path";
import { show } from "../config/show.js";
import { ConfigError } from "../errors.js";
import { capabilityBit } from "./capabilities.js";
import { HOOK_KINDS, type OciProcess, type OciSpec } from "./runtime-spec.js";

const CONFIG_FILE = "config.json";
const MAX_CONFIG_BYTES = 16 * 1024 * 1024;
const MAX_ID = 0xffff_fffe;
/** setrlimit(2), as the agent numbers them. */
export const RLIMITS = [
  ...["RLIMIT_CPU", "RLIMIT_FSIZE", "RLIMIT_DATA", "RLIMIT_STACK", "RLIMIT_CORE", "RLIMIT_RSS", "RLIMIT_NPROC"],
  ...["RLIMIT_NOFILE", "RLIMIT_MEMLOCK", "RLIMIT_AS", "RLIMIT_LOCKS", "RLIMIT_SIGPENDING", "RLIMIT_MSGQUEUE"],
  ...["RLIMIT_NICE", "RLIMIT_RTPRIO", "RLIMIT_RTTIME"],
];
/** Beyond this a number of JSON is not exact; engines write 2^64-1 for "none". */
const UNLIMITED = 2 ** 63;

/** Throws ConfigError. */
export function readConfig(bundle: string): OciSpec {
  const path = join(bundle, CONFIG_FILE);
  const spec = readJson(path);
  const problems = checkSpec(spec, bundle);
  if (problems.length > 0) throw new ConfigError(problems.map((problem) => `${CONFIG_FILE}: ${problem}`));
  return spec as OciSpec;
}

/** Throws ConfigError; what is wrong has `what` in front. */
export function checkedProcess(process: unknown, what: string): OciProcess {
  const check = new Checker();
  checkProcess(check, process, what);
  if (check.problems.length > 0) throw new ConfigError(check.problems);
  return process as OciProcess;
}

/** Throws ConfigError. */
export function readJson(path: string): unknown {
  let text: string;
  try {
    const { size } = statSync(path);
    if (size > MAX_CONFIG_BYTES) {
      throw new ConfigError([`${path}: ${String(size)} bytes; the limit is ${String(MAX_CONFIG_BYTES)}`]);
    }
    text = readFileSync(path, "utf8");
  } catch (error) {
    if (error instanceof ConfigError) throw error;
    const { code } = error as NodeJS.ErrnoException;
    throw new ConfigError([
      code === "ENOENT" ? `open ${path}: no such file or directory` : `open ${path}: ${code ?? String(error)}`,
    ]);
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new ConfigError([`${path} is no JSON: ${(error as Error).message}`]);
  }
}

type Fields = Readonly<Record<string, unknown>>;

class Checker {
  readonly problems: string[] = [];

  say(where: string, value: unknown, expected: string): void {
    this.problems.push(`${where}: ${show(value)} is not ${expected}`);
  }

  object(where: string, value: unknown): Fields | undefined {
    if (value === undefined) return undefined;
    if (typeof value === "object" && value !== null && !Array.isArray(value)) return value as Fields;
    this.say(where, value, "an object");
    return undefined;
  }

  list(where: string, value: unknown): readonly unknown[] {
    if (value === undefined || value === null) return [];
    if (Array.isArray(value)) return value;
    this.say(where, value, "a list");
    return [];
  }

  text(where: string, value: unknown, { isNeeded = false } = {}): string | undefined {
    if (value === undefined && !isNeeded) return undefined;
    if (typeof value === "string" && !value.includes("\0") && (!isNeeded || value !== "")) return value;
    this.say(where, value, "a text without NUL");
    return undefined;
  }

  texts(where: string, value: unknown): string[] {
    return this.list(where, value).flatMap((one, index) => this.text(`${where}[${String(index)}]`, one) ?? []);
  }

  path(where: string, value: unknown): string | undefined {
    const path = this.text(where, value, { isNeeded: true });
    if (path !== undefined && !isAbsolute(path)) this.say(where, path, "an absolute path");
    return path;
  }

  flag(where: string, value: unknown): void {
    if (value !== undefined && typeof value !== "boolean") this.say(where, value, "true or false");
  }

  integer(where: string, value: unknown, minimum: number, maximum: number, { isNeeded = false } = {}): void {
    if (value === undefined && !isNeeded) return;
    if (typeof value === "number" && Number.isInteger(value) && value >= minimum && value <= maximum) return;
    this.say(where, value, `a number from ${String(minimum)} to ${String(maximum)}`);
  }
}

function checkSpec(spec: unknown, bundle: string): readonly string[] {
  const check = new Checker();
  const fields = check.object("its content", spec);
  if (fields === undefined) return check.problems.length > 0 ? check.problems : ["it is empty"];
  const version = check.text("ociVersion", fields["ociVersion"], { isNeeded: true });
  if (version !== undefined && !/^1\.\d+\.\d+/.test(version)) {
    check.say("ociVersion", version, "a version of the specification that is known: 1.0 to 1.2");
  }
  if (fields["process"] !== undefined) checkProcess(check, fields["process"], "process");
  const root = check.object("root", fields["root"]);
  if (root === undefined) check.problems.push("root: it is missing");
  else checkRoot(check, root, bundle);
  check.text("hostname", fields["hostname"]);
  check.text("domainname", fields["domainname"]);
  checkMounts(check, fields["mounts"]);
  checkHooks(check, fields["hooks"]);
  const annotations = check.object("annotations", fields["annotations"]) ?? {};
  for (const [name, value] of Object.entries(annotations)) check.text(`annotations.${name}`, value);
  const linux = check.object("linux", fields["linux"]);
  if (linux !== undefined) checkLinux(check, linux);
  return check.problems;
}

function checkRoot(check: Checker, root: Fields, bundle: string): void {
  check.flag("root.readonly", root["readonly"]);
  const path = check.text("root.path", root["path"], { isNeeded: true });
  if (path === undefined) return;
  const rootfs = isAbsolute(path) ? path : join(bundle, path);
  if (statSync(rootfs, { throwIfNoEntry: false })?.isDirectory() !== true) check.say("root.path", rootfs, "a folder");
}

function checkProcess(check: Checker, process: unknown, where: string): void {
  const fields = check.object(where, process);
  if (fields === undefined) {
    check.problems.push(`${where}: it is missing`);
    return;
  }
  const args = check.texts(`${where}.args`, fields["args"]);
  if (args.length === 0) check.problems.push(`${where}.args: it names no program`);
  for (const [index, variable] of check.texts(`${where}.env`, fields["env"]).entries()) {
    if (variable.indexOf("=") < 1) check.say(`${where}.env[${String(index)}]`, variable, "NAME=VALUE");
  }
  check.path(`${where}.cwd`, fields["cwd"]);
  for (const name of ["terminal", "noNewPrivileges"]) check.flag(`${where}.${name}`, fields[name]);
  check.integer(`${where}.oomScoreAdj`, fields["oomScoreAdj"], -1000, 1000);
  const user = check.object(`${where}.user`, fields["user"]) ?? {};
  for (const name of ["uid", "gid"]) check.integer(`${where}.user.${name}`, user[name], 0, MAX_ID);
  check.integer(`${where}.user.umask`, user["umask"], 0, 0o777);
  for (const [index, gid] of check.list(`${where}.user.additionalGids`, user["additionalGids"]).entries()) {
    check.integer(`${where}.user.additionalGids[${String(index)}]`, gid, 0, MAX_ID, { isNeeded: true });
  }
  const size = check.object(`${where}.consoleSize`, fields["consoleSize"]) ?? {};
  for (const name of ["height", "width"]) check.integer(`${where}.consoleSize.${name}`, size[name], 0, 0xffff);
  const sets = check.object(`${where}.capabilities`, fields["capabilities"] ?? undefined) ?? {};
  for (const [set, names] of Object.entries(sets)) {
    for (const name of check.texts(`${where}.capabilities.${set}`, names)) {
      if (capabilityBit(name) === undefined) check.say(`${where}.capabilities.${set}`, name, "a capability");
    }
  }
  checkRlimits(check, fields["rlimits"], `${where}.rlimits`);
}

function checkRlimits(check: Checker, limits: unknown, where: string): void {
  const seen = new Set<unknown>();
  for (const [index, one] of check.list(where, limits).entries()) {
    const at = `${where}[${String(index)}]`;
    const { type, soft, hard } = check.object(at, one) ?? {};
    if (typeof type !== "string" || !RLIMITS.includes(type)) check.say(`${at}.type`, type, RLIMITS.join(", "));
    if (seen.has(type)) check.say(`${at}.type`, type, "given once");
    seen.add(type);
    for (const [name, value] of Object.entries({ soft, hard })) {
      if (typeof value !== "number" || value < 0) check.say(`${at}.${name}`, value, "a number from 0 on");
    }
    if (typeof soft === "number" && typeof hard === "number" && soft > hard) {
      check.say(`${at}.soft`, soft, `at most the hard limit, ${String(hard)}`);
    }
  }
}

/** The agent's "unlimited", or the number itself. */
export function rlimitValue(value: number): number | "unlimited" {
  return value >= UNLIMITED ? "unlimited" : value;
}

function checkMounts(check: Checker, mounts: unknown): void {
  for (const [index, one] of check.list("mounts", mounts).entries()) {
    const at = `mounts[${String(index)}]`;
    const mount = check.object(at, one) ?? {};
    // Older specifications took a relative one, from the root on.
    check.text(`${at}.destination`, mount["destination"], { isNeeded: true });
    check.text(`${at}.type`, mount["type"]);
    check.text(`${at}.source`, mount["source"]);
    check.texts(`${at}.options`, mount["options"]);
  }
}

function checkHooks(check: Checker, hooks: unknown): void {
  const fields = check.object("hooks", hooks ?? undefined) ?? {};
  for (const kind of HOOK_KINDS) {
    for (const [index, one] of check.list(`hooks.${kind}`, fields[kind]).entries()) {
      const at = `hooks.${kind}[${String(index)}]`;
      const hook = check.object(at, one) ?? {};
      check.path(`${at}.path`, hook["path"]);
      check.texts(`${at}.args`, hook["args"]);
      check.texts(`${at}.env`, hook["env"]);
      check.integer(`${at}.timeout`, hook["timeout"], 1, 2 ** 31 / 1000);
    }
  }
}

function checkLinux(check: Checker, linux: Fields): void {
  const seen = new Set<unknown>();
  for (const [index, one] of check.list("linux.namespaces", linux["namespaces"]).entries()) {
    const at = `linux.namespaces[${String(index)}]`;
    const { type, path } = check.object(at, one) ?? {};
    if (seen.has(type)) check.say(`${at}.type`, type, "given once");
    seen.add(type);
    if (path !== undefined && path !== "") check.path(`${at}.path`, path);
  }
  for (const name of ["maskedPaths", "readonlyPaths"]) {
    for (const [index, path] of check.texts(`linux.${name}`, linux[name]).entries()) {
      check.path(`linux.${name}[${String(index)}]`, path);
    }
  }
  const sysctl = check.object("linux.sysctl", linux["sysctl"] ?? undefined) ?? {};
  for (const [name, value] of Object.entries(sysctl)) {
    check.text(`linux.sysctl.${name}`, value);
    if (!/^[\w./-]+$/.test(name) || name.includes(".."))
      check.say("linux.sysctl", name, "a name such as net.core.somaxconn");
  }
  check.text("linux.cgroupsPath", linux["cgroupsPath"]);
  for (const [index, one] of check.list("linux.devices", linux["devices"]).entries()) {
    check.path(
      `linux.devices[${String(index)}].path`,
      (check.object(`linux.devices[${String(index)}]`, one) ?? {})["path"],
    );
  }
  const resources = check.object("linux.resources", linux["resources"] ?? undefined);
  if (resources !== undefined) checkResources(check, resources, "linux.resources");
}

function checkBlockIo(check: Checker, fields: Fields, where: string): void {
  check.integer(`${where}.weight`, fields["weight"], 0, 1000);
  for (const kind of ["ReadBps", "WriteBps", "ReadIOPS", "WriteIOPS"]) {
    const name = `throttle${kind}Device`;
    for (const [index, one] of check.list(`${where}.${name}`, fields[name]).entries()) {
      const at = `${where}.${name}[${String(index)}]`;
      const device = check.object(at, one) ?? {};
      for (const part of ["major", "minor", "rate"]) {
        check.integer(`${at}.${part}`, device[part], 0, Number.MAX_SAFE_INTEGER, { isNeeded: true });
      }
    }
  }
}

/** Of config.json, and of `update`. */
export function checkResources(check: Checker, fields: Fields, where: string): void {
  const MAX = Number.MAX_SAFE_INTEGER;
  const memory = check.object(`${where}.memory`, fields["memory"] ?? undefined) ?? {};
  for (const name of ["limit", "reservation", "swap"]) check.integer(`${where}.memory.${name}`, memory[name], -1, MAX);
  check.integer(`${where}.memory.swappiness`, memory["swappiness"], 0, 100);
  const cpu = check.object(`${where}.cpu`, fields["cpu"] ?? undefined) ?? {};
  check.integer(`${where}.cpu.shares`, cpu["shares"], 0, 262_144);
  check.integer(`${where}.cpu.quota`, cpu["quota"], -1, MAX);
  check.integer(`${where}.cpu.period`, cpu["period"], 0, 1_000_000);
  for (const name of ["cpus", "mems"]) check.text(`${where}.cpu.${name}`, cpu[name]);
  check.integer(`${where}.cpu.burst`, cpu["burst"], 0, MAX);
  check.integer(`${where}.cpu.idle`, cpu["idle"], 0, 1);
  checkBlockIo(check, check.object(`${where}.blockIO`, fields["blockIO"] ?? undefined) ?? {}, `${where}.blockIO`);
  for (const [index, rule] of check.list(`${where}.devices`, fields["devices"]).entries()) {
    check.object(`${where}.devices[${String(index)}]`, rule);
  }
  const unified = check.object(`${where}.unified`, fields["unified"] ?? undefined) ?? {};
  for (const [file, value] of Object.entries(unified)) {
    check.text(`${where}.unified.${file}`, value);
    if (!/^\w+(\.\w+)+$/.test(file) || file.startsWith("cgroup."))
      check.say(`${where}.unified`, file, "a file such as memory.high");
  }
  const pids = check.object(`${where}.pids`, fields["pids"] ?? undefined) ?? {};
  check.integer(`${where}.pids.limit`, pids["limit"], -1, MAX);
}

/** Throws ConfigError. */
export function checkedResources(resources: unknown, what: string): void {
  const check = new Checker();
  const fields = check.object(what, resources);
  if (fields !== undefined) checkResources(check, fields, what);
  if (check.problems.length > 0) throw new ConfigError(check.problems);
}
