// Options of `docker run` that `vmlet run` takes without doing anything for them, since a VM has it so anyway, and those that it
// refuses, each with what to do in its place. docs/run.md has the table.
import { UsageError } from "../usage-error.js";

/** As Node's parseArgs takes them. */
type Flag = { readonly type: "boolean" } | { readonly type: "string"; readonly multiple: true };

interface Taken {
  readonly flag: Flag;
  /** The values that a VM has anyway; undefined: any. */
  readonly values?: RegExp;
  /** What to do where another one is meant. */
  readonly otherwise?: string;
}

const FLAG: Flag = { type: "boolean" };
const TEXT: Flag = { type: "string", multiple: true };

const TAKEN: Readonly<Record<string, Taken>> = {
  "cap-add": { flag: TEXT },
  privileged: { flag: FLAG },
  "no-healthcheck": { flag: FLAG },
  "disable-content-trust": { flag: FLAG },
  "sig-proxy": { flag: FLAG },
  platform: {
    flag: TEXT,
    values: /^linux\/(?:amd64|x86_64)(?:\/v[1-4])?$/,
    otherwise: "the guest is linux/amd64, and so must the image be",
  },
  restart: {
    flag: TEXT,
    values: /^no$/,
    otherwise: "vmlet starts nothing by itself; let a service of systemd run vmlet run with Restart=",
  },
  "security-opt": {
    flag: TEXT,
    values: /^(?:(?:seccomp|apparmor|systempaths)[=:]unconfined|label[=:]disable)$/,
    otherwise: "the VM is the wall around a program, and its kernel has no such filter; take rights away by --user",
  },
};

const OWN = "a VM has a kernel, and so one of its own";
const NETWORK = "the network is none, user or a tap of this host (--network)";
const NETWORKS = "VMs have no networks in common but taps of this host (--network tap=NAME)";
const SHARES = "a VM has its vCPUs (--cpus) to itself; for less run vmlet under systemd-run -p CPUQuota= or CPUWeight=";
const PINNING = "run vmlet under taskset or numactl";
const MEMORY = "a VM has the memory that --memory says, and no swap";
const DEVICES = "a guest has no devices of this host; --volume shares folders and files, vmlet boot has disks and more";
const RATES = "run vmlet under systemd-run with IOWeight= or IOReadBandwidthMax=";
const HEALTH = "vmlet looks after no program's health; ask by vmlet exec VM COMMAND";
const LOGS = "what a detached program writes is kept for vmlet logs, the last 16 to 32 MiB";
const CGROUPS = "run vmlet itself in a cgroup, as by systemd-run";

const REFUSED: Readonly<Record<string, string>> = {
  attach: "without --detach all of a program's streams are here; -i is its input",
  annotation: "--label keeps what is to be known of a VM",
  "cap-drop": "the VM is the wall around a program; take rights away by --user",
  ...of(["cgroup-parent", "cgroupns", "device-cgroup-rule"], CGROUPS),
  ...of(
    ["cpu-count", "cpu-percent", "cpu-period", "cpu-quota", "cpu-rt-period", "cpu-rt-runtime", "cpu-shares"],
    SHARES,
  ),
  ...of(["cpuset-cpus", "cpuset-mems"], PINNING),
  ...of(["device", "gpus"], DEVICES),
  ...of(["blkio-weight", "blkio-weight-device", "device-read-bps", "device-read-iops"], RATES),
  ...of(["device-write-bps", "device-write-iops", "io-maxbandwidth", "io-maxiops"], RATES),
  domainname: "write it into the name: --hostname NAME.DOMAIN",
  ...of(["health-cmd", "health-interval", "health-retries", "health-start-interval"], HEALTH),
  ...of(["health-start-period", "health-timeout"], HEALTH),
  ...of(["ip", "ip6", "link-local-ip", "mac-address"], NETWORK),
  ...of(["ipc", "pid", "uts", "userns"], OWN),
  ...of(["isolation", "runtime"], "what runs a program here is always a VM"),
  ...of(["kernel-memory", "memory-reservation", "memory-swap", "memory-swappiness"], MEMORY),
  ...of(["link", "network-alias", "net-alias"], NETWORKS),
  ...of(["log-driver", "log-opt"], LOGS),
  ...of(["oom-kill-disable", "oom-score-adj"], "the guest's kernel looks after its own memory (--memory)"),
  "pids-limit": "--ulimit nproc=N limits a user's processes",
  "storage-opt": "the writable layer is in the guest's memory (--memory); --disk FILE is a disk that stays",
  "use-api-socket": "there is no engine whose socket could be given",
  ...of(["volume-driver", "volumes-from"], "a volume is a folder or a file of this host: --volume HOST:GUEST"),
};
/** Of those, what comes without a value. */
const REFUSED_FLAGS = ["oom-kill-disable", "use-api-socket"];
const LETTERS: Readonly<Record<string, string>> = { attach: "a", "cpu-shares": "c" };

function of(names: readonly string[], reason: string): Record<string, string> {
  return Object.fromEntries(names.map((name) => [name, reason]));
}

/** All of them, for the parser. */
export const DOCKER_FLAGS: Readonly<Record<string, Flag & { readonly short?: string }>> = {
  ...Object.fromEntries(Object.entries(TAKEN).map(([name, { flag }]) => [name, flag])),
  ...Object.fromEntries(
    Object.keys(REFUSED).map((name) => {
      const short = LETTERS[name];
      return [name, { ...(REFUSED_FLAGS.includes(name) ? FLAG : TEXT), ...(short === undefined ? {} : { short }) }];
    }),
  ),
};

/** Throws UsageError for the first that a VM does not have. */
export function refuseDockerOptions(command: string, values: Readonly<Record<string, unknown>>): void {
  for (const [name, given] of Object.entries(values)) {
    const reason = Object.hasOwn(REFUSED, name) ? REFUSED[name] : undefined;
    if (reason !== undefined) throw new UsageError(`${command}: there is no --${name}: ${reason}`);
    const { values: right, otherwise = "" } = (Object.hasOwn(TAKEN, name) ? TAKEN[name] : undefined) ?? {};
    const wrong = Array.isArray(given) ? (given as string[]).find((text) => right?.test(text) === false) : undefined;
    if (wrong !== undefined) throw new UsageError(`${command}: --${name} ${JSON.stringify(wrong)}: ${otherwise}`);
  }
}

/** Docker's way of switching a flag on and off: --rm=true, --rm=false. */
export function withoutSwitches(
  args: readonly string[],
  flags: Readonly<Record<string, { readonly type: string }>>,
): string[] {
  return args.flatMap((word) => {
    const [, name = "", value = ""] = /^--([^=]+)=(true|false|1|0)$/.exec(word) ?? [];
    if (!Object.hasOwn(flags, name) || flags[name]?.type !== "boolean") return [word];
    if (value === "true" || value === "1") return [`--${name}`];
    if (name === "sig-proxy") {
      throw new UsageError("--sig-proxy=false: a signal is always the program's; vmlet run --detach leaves it alone");
    }
    if (name === "init") throw new UsageError("--init=false: a guest always has an init");
    return [];
  });
}
