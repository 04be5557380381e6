// Memory for a guest: what the host has, what the control group leaves, what the limits of the process leave.
import { here, onContainerHost, type Check } from "../checks.js";
import { containerEngine } from "../container.js";
import type { HostFiles } from "../host-view.js";

const MIB = 2 ** 20;
/** The default guest, and what the monitor itself takes beyond it, `MiB`. */
export const NEEDED_MIB = 128 + 64;

/** A field of a file such as /proc/meminfo, `kB` there, in `MiB`. */
function mibOf(text: string | undefined, field: string): number | undefined {
  const kb = new RegExp(`^${field}:\\s+(\\d+) kB`, "m").exec(text ?? "")?.[1];
  return kb === undefined ? undefined : Number(kb) / 1024;
}

export function availableMib(files: HostFiles): number | undefined {
  return mibOf(files.read("/proc/meminfo"), "MemAvailable");
}

interface GroupFiles {
  readonly mount: string;
  readonly controller: string;
  readonly limit: string;
  readonly usage: string;
  /** Of memory.stat: page cache that goes when memory is wanted. */
  readonly cache: string;
}

// Linux: Documentation/admin-guide/cgroup-v2.rst and cgroup-v1/memory.rst.
const GROUP_FILES: readonly GroupFiles[] = [
  {
    mount: "/sys/fs/cgroup",
    controller: "",
    limit: "memory.max",
    usage: "memory.current",
    cache: "inactive_file",
  },
  {
    mount: "/sys/fs/cgroup/memory",
    controller: "memory",
    limit: "memory.limit_in_bytes",
    usage: "memory.usage_in_bytes",
    cache: "total_inactive_file",
  },
];

/** What is left in the tightest control group above this process, `MiB`; undefined without a limit. */
export function groupLeftMib(files: HostFiles): number | undefined {
  const own = (files.read("/proc/self/cgroup") ?? "").split("\n").map((line) => line.split(":"));
  const left = GROUP_FILES.flatMap(({ mount, controller, limit, usage, cache }) => {
    const path = own.find(([, names]) => names?.split(",").includes(controller) === true)?.[2];
    if (path === undefined) return [];
    return ancestors(path).flatMap((group) => {
      const bytes = Number(files.read(`${mount}${group}/${limit}`));
      const used = Number(files.read(`${mount}${group}/${usage}`));
      // v1 says "no limit" with a number beyond all memory, v2 with "max", which is no number.
      if (!(bytes < 2 ** 60) || Number.isNaN(used)) return [];
      const stat = new RegExp(`^${cache} (\\d+)$`, "m").exec(files.read(`${mount}${group}/memory.stat`) ?? "");
      return [(bytes - used + Number(stat?.[1] ?? 0)) / MIB];
    });
  });
  return left.length === 0 ? undefined : Math.min(...left);
}

/** "/a/b" -> "/a/b", "/a", "". */
function ancestors(path: string): string[] {
  const parts = path.split("/").filter(Boolean);
  return parts.map((_, index) => `/${parts.slice(0, parts.length - index).join("/")}`).concat("");
}

/** A soft limit of /proc/self/limits in `bytes`; undefined if unlimited. */
export function softLimit(files: HostFiles, name: string): number | undefined {
  const value = new RegExp(`^${name}\\s+(\\S+)`, "m").exec(files.read("/proc/self/limits") ?? "")?.[1];
  return value === undefined || value === "unlimited" ? undefined : Number(value);
}

const inMib = (mib: number): string => `${String(Math.round(mib))} MiB`;

export const memoryFree: Check = {
  code: "memory-free",
  area: "host",
  worst: "bad",
  look: ({ files }) => {
    const mib = availableMib(files);
    if (mib === undefined) return undefined;
    const title = "Memory";
    if (mib >= NEEDED_MIB) return { status: "ok", title, detail: `${inMib(mib)} available` };
    return {
      status: "bad",
      title,
      detail: `${inMib(mib)} available, the default guest needs ${inMib(NEEDED_MIB)}`,
      cure: "stop something, or give the guest less: --memory 48",
      commands: [here("ps -eo rss,comm --sort=-rss | head")],
    };
  },
};

export const memoryCgroup: Check = {
  code: "memory-cgroup",
  area: "host",
  worst: "bad",
  look: (host) => {
    const mib = groupLeftMib(host.files);
    if (mib === undefined) return undefined;
    const title = "Memory limit";
    if (mib >= NEEDED_MIB) return { status: "ok", title, detail: `${inMib(mib)} left in the control group` };
    const isContained = containerEngine(host) !== undefined;
    return {
      status: "bad",
      title,
      detail: `${inMib(mib)} left in the control group, the default guest needs ${inMib(NEEDED_MIB)}`,
      cure: isContained
        ? "start the container with a larger --memory"
        : "raise MemoryMax= of the unit, or use --memory 48",
      commands: [
        isContained
          ? onContainerHost("docker update --memory 1g --memory-swap 1g <CONTAINER>")
          : here("systemctl set-property --runtime <UNIT> MemoryMax=1G"),
      ],
    };
  },
};

export const memoryRlimit: Check = {
  code: "memory-rlimit",
  area: "host",
  worst: "bad",
  look: ({ files }) => {
    const limit = softLimit(files, "Max address space");
    if (limit === undefined) return undefined;
    const left = limit / MIB - (mibOf(files.read("/proc/self/status"), "VmSize") ?? 0);
    const title = "Address space";
    if (left >= NEEDED_MIB) return { status: "ok", title, detail: `${inMib(left)} left of RLIMIT_AS` };
    return {
      status: "bad",
      title,
      detail: `RLIMIT_AS leaves ${inMib(left)}, the default guest needs ${inMib(NEEDED_MIB)}`,
      cure: "ulimit -v unlimited",
      commands: [here("ulimit -v unlimited")],
    };
  },
};

export const hugePages: Check = {
  code: "hugepages",
  area: "extra",
  worst: "note",
  look: ({ files }) => {
    const transparent = /\[(\w+)\]/.exec(files.read("/sys/kernel/mm/transparent_hugepage/enabled") ?? "")?.[1];
    const reserved = files.read("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages") ?? "0";
    const detail = `transparent: ${transparent ?? "not in this kernel"}; reserved: ${reserved} of 2 MiB`;
    const title = "Huge pages";
    if (transparent !== "never") return { status: "ok", title, detail };
    return {
      status: "note",
      title,
      detail,
      cure: "let programs ask for them: echo madvise >/sys/kernel/mm/transparent_hugepage/enabled",
      commands: [here("echo madvise | sudo tee /sys/kernel/mm/transparent_hugepage/enabled")],
    };
  },
};
