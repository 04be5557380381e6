// What is started to be killed: monitors with all that makes something on the host. One more is one more entry of STARTS.
import { chownSync, copyFileSync, mkdirSync, writeFileSync } from "node:fs";
import { createConnection } from "node:net";
import { join, resolve } from "node:path";
import { PROGRAM } from "./program.js";
import { shareProblem } from "./share-guard.js";
import { tapProblem } from "./tap-guard.js";
import { userNetProblem } from "./user-net-guard.js";

const LAUNCHER = resolve("dist/vmlet-jailer");
const FIRECRACKER = resolve("dist/vmlet-firecracker.js");
const JAILED_UID = 12_345;
const FORWARDED_PORT = 18_080;

/** Where all of it lies; each start finds what the one before has left. */
export interface Places {
  /** In the command line of each process. */
  readonly folder: string;
  /** A mini kernel that says "up", and then waits for input. */
  readonly kernel: string;
  /** One that counts in its memory, for ever. */
  readonly counting: string;
  /** Of a Linux guest that writes to its disk, which is `disk` in the folder. */
  readonly snapshot: string;
  /** The control groups above those of the launcher's. */
  readonly groups: string;
}

export interface Start {
  readonly name: string;
  /** Why this host has no such thing. */
  readonly why?: () => string | undefined;
  /** The whole command. */
  readonly command: (places: Places, jail: JailMode) => readonly string[];
  /** `vmlet boot --jail` is tried with it; where it does not go with that, it runs without. */
  readonly triesJail: boolean;
  /** Done before each start. */
  readonly prepare?: (places: Places) => void;
  /** Names in the folder that may stay: the user's own files, and socket files, which the next start takes over. */
  readonly files?: readonly string[];
  readonly sockets?: readonly string[];
  /** The folder of a snapshot that is asked for again and again, at the socket `control`. */
  readonly saves?: string;
  /** By `vmlet-jailer`: its folder and its control groups stay, without a process and without a mount. */
  readonly id?: string;
}

export type JailMode = "off" | "on" | "strict";

/** `vmlet boot` of a mini kernel with these devices. */
function boot(
  name: string,
  options: (at: (name: string) => string) => readonly string[],
  more: Partial<Start> & { readonly isCounting?: boolean } = {},
): Start {
  return {
    name: `boot ${name}`,
    triesJail: true,
    command: ({ folder, kernel, counting }, jail) => [
      ...[PROGRAM, "boot", "--accel", "kvm", "--no-initrd", "--memory", "32", "--quiet"],
      ...["--kernel", more.isCounting === true ? counting : kernel, "--jail", jail],
      ...options((file) => join(folder, file)),
    ],
    ...more,
  };
}

const share = { why: shareProblem };
const tap = { why: tapProblem };
const userNet = { why: userNetProblem };
const EVERYTHING = (at: (name: string) => string): string[] => [
  ...["--cpus", "2", "--disk", `path=${at("disk")}`, "--rng", "--balloon", "8", "--console", "virtio"],
  ...["--vsock", `cid=3,path=${at("vsock")}`, "--control", at("control")],
  ...["--metrics", at("metrics"), "--report", at("report")],
];

export const STARTS: readonly Start[] = [
  boot("without devices", () => []),
  boot("--cpus 2 --pci", (at) => ["--cpus", "2", "--pci", "--disk", `path=${at("disk")}`]),
  boot("--metrics --report", (at) => ["--metrics", at("metrics"), "--report", at("report")], {
    files: ["metrics", "report"],
  }),
  boot("--control", (at) => ["--control", at("control")], { sockets: ["control"] }),
  boot("--vsock", (at) => ["--vsock", `cid=3,path=${at("vsock")}`], { sockets: ["vsock"] }),
  boot("--net tap=auto", () => ["--net", "tap=auto,ip=192.0.2.1/24"], tap),
  boot("--net user", () => ["--net", `user,forward=${String(FORWARDED_PORT)}:80`], userNet),
  boot("--share", (at) => ["--share", at("shared")], share),
  boot("--share ro", (at) => ["--share", `${at("shared")},ro`, "--share", at("shared/file")], share),
  boot("--disk", (at) => ["--disk", `path=${at("disk")}`, "--disk", `path=${at("other")},readonly`]),
  boot("while it is saved", (at) => ["--disk", `path=${at("disk")}`, "--control", at("control")], {
    sockets: ["control"],
    saves: "saved",
    isCounting: true,
  }),
  boot("with many devices", EVERYTHING, { files: ["metrics", "report"], sockets: ["control", "vsock"] }),
  boot(
    "with all networks and a share",
    (at) => [
      ...["--net", "tap=auto", "--net", "user", "--share", at("shared")],
      ...["--vsock", `cid=3,path=${at("vsock")}`],
    ],
    { sockets: ["vsock"], why: () => tapProblem() ?? userNetProblem() ?? shareProblem() },
  ),
  {
    name: "snapshot restore",
    triesJail: false,
    command: ({ folder, snapshot }: Places) => [
      ...[PROGRAM, "snapshot", "restore", "--quiet", "--control", join(folder, "control")],
      ...["--vsock", `path=${join(folder, "vsock")}`, snapshot],
    ],
    sockets: ["control", "vsock"],
    saves: "saved-again",
  },
  {
    name: "vmlet-firecracker",
    triesJail: false,
    command: ({ folder }: Places) => [
      ...[FIRECRACKER, "--api-sock", join(folder, "api"), "--config-file", join(folder, "vm.json")],
      ...["--log-path", join(folder, "log")],
    ],
    prepare: ({ folder, kernel }: Places): void => {
      writeFileSync(join(folder, "log"), "");
      writeMachine(folder, kernel, join(folder, "fc-vsock"));
    },
    files: ["log", "vm.json"],
    sockets: ["api", "fc-vsock"],
  },
  jailed("jailed", ["--cgroup", "pids.max=64", "--cgroup", "cpu.shares=512", "--new-net-ns"]),
  jailed("daemon", ["--cgroup", "memory.limit_in_bytes=256M", "--new-pid-ns", "--daemonize"]),
];

/** `vmlet-firecracker` by the launcher, in a folder of its own. */
function jailed(id: string, options: readonly string[]): Start {
  const rootOf = ({ folder }: Places): string => join(folder, "jails/vmlet-firecracker.js", id, "root");
  return {
    name: `vmlet-jailer ${options.filter((word) => word.startsWith("--new") || word.startsWith("--d")).join(" ")}`,
    why: () => (process.getuid?.() === 0 ? undefined : "no root"),
    triesJail: false,
    command: ({ folder, groups }) => [
      ...[LAUNCHER, "--id", id, "--exec-file", FIRECRACKER, "--uid", String(JAILED_UID), "--gid", String(JAILED_UID)],
      ...["--chroot-base-dir", join(folder, "jails"), "--parent-cgroup", groups, ...options],
      ...["--", "--config-file", "vm.json"],
    ],
    prepare: (places) => {
      const root = rootOf(places);
      mkdirSync(root, { recursive: true });
      copyFileSync(places.kernel, join(root, "vmlinux"));
      writeMachine(root, "vmlinux", "v.sock");
      for (const name of ["", "vmlinux", "vm.json"]) chownSync(join(root, name), JAILED_UID, JAILED_UID);
    },
    files: ["jails"],
    id,
  };
}

function writeMachine(folder: string, kernel: string, vsock: string): void {
  const machine = {
    "boot-source": { kernel_image_path: kernel },
    "machine-config": { vcpu_count: 1, mem_size_mib: 32 },
    drives: [],
    vsock: { guest_cid: 3, uds_path: vsock },
  };
  writeFileSync(join(folder, "vm.json"), JSON.stringify(machine));
}

/** Asks for snapshots, one after the other, until the result is called. */
export function keepSaving(control: string, folder: string): () => void {
  let isOver = false;
  const ask = (): void => {
    if (isOver) return;
    const socket = createConnection(control, () => socket.write(`${JSON.stringify({ snapshot: { folder } })}\n`));
    // It is not there yet, or has gone.
    socket.on("error", () => undefined).on("data", () => undefined);
    socket.on("close", () => setTimeout(ask, 5));
  };
  ask();
  return () => {
    isOver = true;
  };
}
