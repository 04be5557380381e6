// Each kind of namespace alone, and all of them: util-linux's unshare, in the same root directory.
import { existsSync } from "node:fs";
import { detectProgram, detectRootProgram, program as hostProgram } from "../detect.js";
import { entering } from "../network.js";
import { CONTAINER_TIMEOUT_MS } from "../limits.js";
import type { Rung } from "../rung.js";

interface Kind {
  /** Name in /proc/PID/ns, without "_for_children". */
  readonly file: string;
  readonly flags: readonly string[];
  readonly adds: string;
}

// --fork where the process that unshares does not itself enter, and the child is to be in.
const KINDS: Readonly<Record<string, Kind>> = {
  uts: { file: "uts", flags: ["--uts"], adds: "host and domain name" },
  ipc: { file: "ipc", flags: ["--ipc"], adds: "System V IPC, POSIX message queues" },
  pid: { file: "pid", flags: ["--pid", "--fork", "--kill-child"], adds: "process ids, a PID 1" },
  mount: { file: "mnt", flags: ["--mount"], adds: "mount points" },
  net: { file: "net", flags: ["--net"], adds: "interfaces, routes, ports" },
  user: { file: "user", flags: ["--user", "--map-root-user"], adds: "user and group ids" },
  cgroup: { file: "cgroup", flags: ["--cgroup"], adds: "the cgroup root" },
  time: { file: "time", flags: ["--time", "--fork", "--kill-child"], adds: "monotonic and boot clocks" },
};

function rung(name: string, adds: string, kinds: readonly Kind[]): Rung {
  const flags = [...new Set(kinds.flatMap((kind) => kind.flags))];
  return {
    name,
    adds,
    family: "namespaces",
    limits: "group",
    network: flags.includes("--net") ? "veth" : "host",
    debianPackage: "util-linux",
    timeoutMs: CONTAINER_TIMEOUT_MS,
    detect: () => {
      const absent = kinds.find(({ file }) => !existsSync(`/proc/self/ns/${file}`));
      if (absent !== undefined) return { missing: `the kernel has no ${absent.file} namespaces` };
      // In a user namespace of its own, a process is root, whoever made it.
      return flags.includes("--user")
        ? detectProgram("unshare", "util-linux")
        : detectRootProgram("unshare", "util-linux");
    },
    open: (workspace) => ({
      command: ({ program, network }) => [
        ...entering(network),
        hostProgram("unshare"),
        ...(network?.kind === "veth" ? flags.filter((flag) => flag !== "--net") : flags),
        ...[`--root=${workspace.root}`, "--", ...program],
      ],
    }),
  };
}

export const eachNamespace: readonly Rung[] = Object.entries(KINDS).map(([name, kind]) =>
  rung(`ns-${name}`, `${kind.adds} of its own`, [kind]),
);

export const allNamespaces: Rung = rung("namespaces", "all eight namespaces", Object.values(KINDS));
