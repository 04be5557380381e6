// What this host offers for walls around the monitor itself: `vmlet boot --jail`.
import type { Check, Observation } from "../checks.js";
import type { HostFiles } from "../host-view.js";
import { CAP_SYS_ADMIN, identity } from "../identity.js";
import { NO_USER_NAMESPACES } from "./shares.js";

const TITLE = "Jail";
function userNamespaces(files: HostFiles): string {
  const isSet = (name: string, value: string): boolean =>
    files.read(`/proc/sys/${name.replaceAll(".", "/")}`) === value;
  const obstacle = NO_USER_NAMESPACES.find(([name, value]) => isSet(name, value));
  if (obstacle === undefined) return "user namespaces";
  const [name, value] = obstacle;
  const who = identity(files).has(CAP_SYS_ADMIN) ? "user namespaces for root alone" : "no user namespaces";
  return `${who} (${name}=${value})`;
}

/** Whether this process may make control groups below its own of cgroup v2. */
function delegation(files: HostFiles): string {
  const own = /^0::(.*)$/m.exec(files.read("/proc/self/cgroup") ?? "")?.[1];
  const mount = (files.read("/proc/self/mounts") ?? "").split("\n").find((line) => line.split(" ")[2] === "cgroup2");
  const folder = own === undefined ? undefined : files.facts(`${mount?.split(" ")[1] ?? ""}${own}`);
  const { uid, has } = identity(files);
  if (folder === undefined) return "no cgroup v2";
  return folder.uid === uid || has(CAP_SYS_ADMIN) ? "a control group of its own" : "no control group delegated";
}

export const jail: Check = {
  code: "jail",
  area: "extra",
  worst: "note",
  look: ({ files, landlockAbi }): Observation => {
    const actions = files.read("/proc/sys/kernel/seccomp/actions_avail")?.split(" ") ?? [];
    if (!actions.includes("trap")) {
      const cure = "a kernel with CONFIG_SECCOMP_FILTER";
      return { status: "note", title: TITLE, detail: "the kernel has no filters of system calls: no --jail", cure };
    }
    const landlock = landlockAbi === 0 ? "no Landlock" : `Landlock ${String(landlockAbi)}`;
    return {
      status: "ok",
      title: TITLE,
      detail: ["seccomp", landlock, userNamespaces(files), delegation(files)].join(", "),
    };
  },
};
