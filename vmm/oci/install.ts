// The lines by which an engine knows the runtime: what they are, where they go, whether they are there already, how to undo them.
import { existsSync, mkdirSync, readFileSync, renameSync, statSync, writeFileSync } from "node:fs";
import { dirname } from "node:path";
import { ConfigError, HostError } from "../errors.js";
import { errnoText } from "../host/errno-text.js";
import { shellWord } from "../host/shell-word.js";

export const ENGINES = ["docker", "podman", "containerd"] as const;
export type EngineName = (typeof ENGINES)[number];

/** What engines call it. */
const NAME = "vmlet";
const BEGIN = "# vmlet oci install: begin";
const END = "# vmlet oci install: end";

export interface Installation {
  readonly path: string;
  /** What is to be there. */
  readonly lines: string;
  /** The file as it is to be. */
  readonly content: string;
  /** It is so already. */
  readonly isDone: boolean;
  /** Commands of a shell. */
  readonly then: string;
  readonly tryIt: string;
  readonly undo: string;
}

const FILES: Readonly<Record<EngineName, string>> = {
  docker: "/etc/docker/daemon.json",
  podman: "/etc/containers/containers.conf.d/vmlet.conf",
  containerd: "/etc/containerd/config.toml",
};

/** `program`: path of the runtime. Throws ConfigError for a file that cannot be added to, HostError for one that cannot be read. */
export function planInstallation(engine: EngineName, program: string, path = FILES[engine]): Installation {
  const old = readIfThere(path);
  switch (engine) {
    case "docker":
      return forDocker(program, path, old);
    case "podman":
      return forPodman(program, path, old);
    case "containerd":
      return forContainerd(program, path, old);
  }
}

function forDocker(program: string, path: string, old: string): Installation {
  const lines = { runtimes: { [NAME]: { path: program } } };
  const config = old.trim() === "" ? {} : parsed(path, old);
  const runtimes = "runtimes" in config ? config["runtimes"] : {};
  if (typeof runtimes !== "object" || runtimes === null || Array.isArray(runtimes)) {
    throw new ConfigError([`${path}: "runtimes" is not an object`]);
  }
  const own = (runtimes as Readonly<Record<string, unknown>>)[NAME];
  const isDone = (own as { readonly path?: unknown } | undefined)?.path === program;
  const content = isDone ? old : json({ ...config, runtimes: { ...runtimes, ...lines.runtimes } });
  return {
    path,
    lines: json(lines),
    content,
    isDone,
    then: "systemctl reload docker",
    tryIt: "docker run --rm --runtime=vmlet --network none alpine uname -a",
    undo: `take "${NAME}" out of "runtimes" in ${path}, then systemctl reload docker`,
  };
}

function json(value: unknown): string {
  return `${JSON.stringify(value, undefined, 2)}\n`;
}

function parsed(path: string, text: string): Readonly<Record<string, unknown>> {
  let config: unknown;
  try {
    config = JSON.parse(text);
  } catch (error) {
    throw new ConfigError([`${path} is no JSON, and stays as it is: ${(error as Error).message}`]);
  }
  if (typeof config === "object" && config !== null && !Array.isArray(config)) {
    return config as Readonly<Record<string, unknown>>;
  }
  throw new ConfigError([`${path}: its content is not an object, and stays as it is`]);
}

function forPodman(program: string, path: string, old: string): Installation {
  const lines = `[engine.runtimes]\n${NAME} = [${JSON.stringify(program)}]\n`;
  if (old.trim() !== "" && !old.startsWith("[engine.runtimes]\nvmlet = ")) {
    throw new ConfigError([`${path} has lines of somebody else's, and stays as it is: name another by --config`]);
  }
  return {
    path,
    lines,
    content: lines,
    isDone: old === lines,
    then: "",
    tryIt: "podman run --rm --runtime vmlet --network none alpine uname -a",
    undo: `rm ${shellWord(path)}`,
  };
}

function forContainerd(program: string, path: string, old: string): Installation {
  const version = /^\s*version\s*=\s*(\d+)/m.exec(old)?.[1] ?? "2";
  const table = Number(version) >= 3 ? `plugins.'io.containerd.cri.v1.runtime'` : `plugins."io.containerd.grpc.v1.cri"`;
  // A file that names runtimes names all of them: without its default one containerd would not serve Kubernetes at all.
  const others = withoutOwn(path, old);
  const runc = /runtimes\.["']?runc["']?\]/.test(others)
    ? []
    : [`[${table}.containerd.runtimes.runc]`, `  runtime_type = "io.containerd.runc.v2"`];
  const lines = [
    ...runc,
    `[${table}.containerd.runtimes.${NAME}]`,
    `  runtime_type = "io.containerd.runc.v2"`,
    `  pod_annotations = ["io.vmlet.*"]`,
    `[${table}.containerd.runtimes.${NAME}.options]`,
    `  BinaryName = ${JSON.stringify(program)}`,
    "",
  ].join("\n");
  if (new RegExp(`runtimes\\.["']?${NAME}["']?\\]`).test(others)) {
    throw new ConfigError([`${path} has a runtime ${NAME} of somebody else's, and stays as it is`]);
  }
  const before = others.trim() === "" ? `version = ${version}\n` : others;
  const content = `${before}${before.endsWith("\n") ? "" : "\n"}${BEGIN}\n${lines}${END}\n`;
  return {
    path,
    lines,
    content,
    isDone: old === content,
    then: "systemctl restart containerd",
    tryIt: `ctr run --rm --runc-binary ${shellWord(program)} docker.io/library/alpine:latest one uname -a`,
    undo: `take the lines from "${BEGIN}" to "${END}" out of ${path}, then systemctl restart containerd`,
  };
}

/** The file without what this command has written. Throws ConfigError. */
function withoutOwn(path: string, old: string): string {
  const begin = old.indexOf(BEGIN);
  const end = old.indexOf(END);
  if (begin < 0 !== end < 0 || end < begin) {
    throw new ConfigError([`${path}: of the lines ${JSON.stringify(BEGIN)} and ${JSON.stringify(END)} one is missing`]);
  }
  return begin < 0 ? old : old.slice(0, begin) + old.slice(end + END.length + 1);
}

function readIfThere(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    const { code = "" } = error as NodeJS.ErrnoException;
    if (code === "ENOENT") return "";
    throw new HostError(`${path}: cannot be read: ${errnoText(code)}`, { cause: error });
  }
}

/** All of it or nothing. Throws HostError. */
export function writeInstallation({ path, content }: Installation): void {
  const temporary = `${path}.vmlet-new`;
  try {
    mkdirSync(dirname(path), { recursive: true });
    const mode = statSync(path, { throwIfNoEntry: false })?.mode ?? 0o644;
    writeFileSync(temporary, content, { mode: mode & 0o777 });
    renameSync(temporary, path);
  } catch (error) {
    const why = errnoText((error as NodeJS.ErrnoException).code ?? "");
    throw new HostError(`${path}: cannot be written: ${why}`, { cause: error, cure: "run it as root" });
  }
}

/** What the runtime would miss on this host. */
export function missingFor(program: string): string[] {
  const missing: string[] = [];
  if (!existsSync(program)) missing.push(`${program} is not there: make build`);
  if (!existsSync("/dev/kvm")) missing.push("there is no /dev/kvm: vmlet doctor tells more");
  if (!existsSync("/usr/lib/qemu/virtiofsd"))
    missing.push("virtiofsd is not installed: apt-get install qemu-system-common");
  return missing;
}
