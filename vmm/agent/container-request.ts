// What makes a command of the guest's a process of a container: the steps that set the container up, or the process whose
// container it joins, and what it may. docs/agent-protocol.md, "Containers"; guest/init/agent/container.h.
import type { GuestBytes } from "./guest-bytes.js";

/** Sets of capabilities, a bit each. capabilities(7) */
export interface Capabilities {
  readonly bounding: bigint;
  readonly effective: bigint;
  readonly permitted: bigint;
  readonly inheritable: bigint;
  readonly ambient: bigint;
}

/** CLONE_NEW… of clone(2), by the names that config.json has for them. */
export const NAMESPACES = {
  mount: 0x0002_0000,
  cgroup: 0x0200_0000,
  uts: 0x0400_0000,
  ipc: 0x0800_0000,
  pid: 0x2000_0000,
  network: 0x4000_0000,
} as const;

export interface ContainerRequest {
  /** As the functions of `steps` make them, one behind the other. */
  readonly steps: readonly GuestBytes[];
  /** Namespaces that are new, of NAMESPACES: with a PID namespace the program is process 1 of it. */
  readonly made?: number | undefined;
  /** The guest's number of a process in a container; undefined: the steps make one. */
  readonly join?: number | undefined;
  /** Which of its namespaces this one enters; undefined: that of its mounts. */
  readonly joined?: number | undefined;
  readonly noNewPrivileges?: boolean | undefined;
  readonly oomScore?: number | undefined;
  readonly umask?: number | undefined;
  readonly capabilities?: Capabilities | undefined;
  /** The guest ends with the process: its end is told before its memory is taken apart, and nothing of it can be asked for behind that. */
  readonly endsGuest?: boolean | undefined;
}

const BYTES = 72;
const NO_NEW_PRIVILEGES = 1;
const OOM_SCORE = 2;
const UMASK = 4;
const CAPABILITIES = 8;
const ENDS_GUEST = 16;

export function encodeContainer(request: ContainerRequest): Buffer {
  const {
    steps,
    made = 0,
    join = 0,
    joined = NAMESPACES.mount,
    noNewPrivileges = false,
    oomScore,
    umask,
    capabilities,
    endsGuest = false,
  } = request;
  const bytes = Buffer.alloc(BYTES);
  bytes.writeUInt32LE(
    (noNewPrivileges ? NO_NEW_PRIVILEGES : 0) |
      (oomScore === undefined ? 0 : OOM_SCORE) |
      (umask === undefined ? 0 : UMASK) |
      (capabilities === undefined ? 0 : CAPABILITIES) |
      (endsGuest ? ENDS_GUEST : 0),
    0,
  );
  bytes.writeInt32LE(oomScore ?? 0, 4);
  bytes.writeUInt32LE(umask ?? 0, 8);
  bytes.writeUInt32LE(steps.length, 12);
  bytes.writeUInt32LE(join, 16);
  bytes.writeUInt32LE(join === 0 ? 0 : joined, 20);
  bytes.writeUInt32LE(made, 24);
  if (capabilities !== undefined) {
    const { bounding, effective, permitted, inheritable, ambient } = capabilities;
    let at = 32;
    for (const set of [bounding, effective, permitted, inheritable, ambient]) at = bytes.writeBigUInt64LE(set, at);
  }
  return bytes;
}

/** A device node. */
export interface NodeStep {
  readonly path: string;
  /** With its type: S_IFCHR, S_IFBLK or S_IFIFO. */
  readonly mode: number;
  readonly major: number;
  readonly minor: number;
  readonly uid: number;
  readonly gid: number;
}

/** Each is what the agent does next; paths are the container's, but for sources of binds, which are the guest's. */
export const steps = {
  /** Before all others: the control group `name` ("a/b") of the guest's is made if it is not there, and counts the process. */
  cgroup: (name: string) => ["g", name],
  /** Behind that: a limit of it, such as "pids.max". */
  cgroupLimit: (file: string, value: string) => ["q", file, value],
  /** The first: `root`, a folder of the guest's, is "/" from here on. */
  enter: (root: string) => ["c", root],
  bind: (source: string, target: string, flags: number, isFile: boolean) => [
    ...["b", source, target, String(flags), isFile ? "f" : "d"],
  ],
  mount: (type: string, source: string, target: string, flags: number, data: string) => [
    ...["m", type, source, target, String(flags), data],
  ],
  propagation: (target: string, flags: number) => ["p", target, String(flags)],
  link: (text: string, path: string) => ["l", text, path],
  node: ({ path, mode, major, minor, uid, gid }: NodeStep) => [
    ...["n", path, String(mode), String(major), String(minor), `${String(uid)}:${String(gid)}`],
  ],
  readonly: (path: string) => ["r", path],
  mask: (path: string) => ["k", path],
  /** `name` with slashes. */
  sysctl: (name: string, value: string) => ["s", name, value],
  hostname: (name: string) => ["h", name],
  domainname: (name: string) => ["d", name],
  /** Where the process has a terminal, it is there. */
  terminal: (path: string) => ["t", path],
  /** `flags` of seccomp(2), a program of struct sock_filter: it holds from when the process is what it is to be. */
  filter: (flags: number, program: Buffer) => ["f", String(flags), program.toString("hex").toUpperCase()],
  unmount: (path: string) => ["u", path],
} as const;
