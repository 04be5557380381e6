// `features`, `spec` and `--version`: what the runtime is.
import { SECCOMP_ACTIONS, SECCOMP_ARCHITECTURES, SECCOMP_FLAGS, SECCOMP_OPERATORS } from "./seccomp/names.js";
import { existsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { ConfigError } from "../errors.js";
import { print } from "../host/say.js";
import { VERSION } from "../host/version.js";
import { CAPABILITIES } from "./capabilities.js";
import { parseOptions } from "./command-line.js";
import type { Context } from "./context.js";
import { JAIL_ANNOTATION } from "./jail-option.js";
import { CPUS_ANNOTATION, MEMORY_ANNOTATION } from "./machine-size.js";
import { MOUNT_OPTIONS } from "./mount-options.js";
import { HOOK_KINDS, type OciSpec } from "./runtime-spec.js";

const NEWEST_SPEC = "1.2.0";

export function version(): number {
  print(`vmlet-runtime version ${VERSION}\nspec: ${NEWEST_SPEC}\n`);
  return 0;
}

/** runtime-spec, features.md */
export function features(): number {
  const described = {
    ociVersionMin: "1.0.0",
    ociVersionMax: NEWEST_SPEC,
    hooks: HOOK_KINDS,
    mountOptions: MOUNT_OPTIONS,
    linux: {
      namespaces: ["cgroup", "ipc", "mount", "network", "pid", "uts"],
      capabilities: CAPABILITIES,
      cgroup: { v1: true, v2: true, systemd: true, systemdUser: false },
      seccomp: {
        enabled: true,
        actions: SECCOMP_ACTIONS,
        operators: SECCOMP_OPERATORS,
        archs: SECCOMP_ARCHITECTURES,
        knownFlags: SECCOMP_FLAGS,
        supportedFlags: SECCOMP_FLAGS,
      },
      apparmor: { enabled: false },
      selinux: { enabled: false },
    },
    annotations: { "io.vmlet.version": VERSION },
    potentiallyUnsafeConfigAnnotations: [MEMORY_ANNOTATION, CPUS_ANNOTATION, JAIL_ANNOTATION],
  };
  print(`${JSON.stringify(described, undefined, 4)}\n`);
  return 0;
}

/** Throws ConfigError where there is a config.json. */
export function spec({ argv }: Context): number {
  const { options, words } = parseOptions(argv, { values: ["bundle|b"], flags: ["rootless"] });
  if (words.length > 0) throw new ConfigError(['"spec" takes no arguments']);
  if (options.has("rootless")) throw new ConfigError(["--rootless: a user namespace cannot be had in a VM"]);
  const path = join(options.value("bundle") ?? ".", "config.json");
  if (existsSync(path)) throw new ConfigError(["File config.json exists. Remove it first"]);
  writeFileSync(path, `${JSON.stringify(exampleSpec(), undefined, "\t")}\n`);
  return 0;
}

function exampleSpec(): OciSpec {
  const caps = ["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"];
  return {
    ociVersion: NEWEST_SPEC,
    process: {
      terminal: true,
      user: { uid: 0, gid: 0 },
      args: ["sh"],
      env: ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "TERM=xterm"],
      cwd: "/",
      capabilities: { bounding: caps, effective: caps, permitted: caps },
      rlimits: [{ type: "RLIMIT_NOFILE", hard: 1024, soft: 1024 }],
      noNewPrivileges: true,
    },
    root: { path: "rootfs", readonly: true },
    hostname: "vmlet",
    mounts: [
      { destination: "/proc", type: "proc", source: "proc" },
      {
        destination: "/dev",
        type: "tmpfs",
        source: "tmpfs",
        options: ["nosuid", "strictatime", "mode=755", "size=65536k"],
      },
      {
        destination: "/dev/pts",
        type: "devpts",
        source: "devpts",
        options: ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"],
      },
      {
        destination: "/dev/shm",
        type: "tmpfs",
        source: "shm",
        options: ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"],
      },
      { destination: "/dev/mqueue", type: "mqueue", source: "mqueue", options: ["nosuid", "noexec", "nodev"] },
      { destination: "/sys", type: "sysfs", source: "sysfs", options: ["nosuid", "noexec", "nodev", "ro"] },
    ],
    linux: {
      namespaces: ["pid", "network", "ipc", "uts", "mount"].map((type) => ({ type })),
      maskedPaths: [
        ...["/proc/acpi", "/proc/asound", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list"],
        ...["/proc/timer_stats", "/proc/sched_debug", "/sys/firmware", "/proc/scsi"],
      ],
      readonlyPaths: ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
    },
  };
}
