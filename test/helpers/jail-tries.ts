// Needs: root. What somebody who owns a monitor's process tries (test/programs/attack.cjs), and what comes of it in the jail.
import { readFileSync } from "node:fs";
import { resolve } from "node:path";
import { koffiPath } from "../../vmm/sys/koffi.js";

const EACCES = "EACCES";

export interface Try {
  /** What the line of `strict` names. */
  readonly call: string;
  readonly thread?: string;
  /** Where `on` answers with an error: that, or the call that it comes to instead. */
  readonly on?: string;
  /** The error that both answer with. */
  readonly always?: string;
}

export const TRIES: Readonly<Record<string, Try>> = {
  "a file is read": { call: "openat", on: EACCES },
  "a file is opened by another call": { call: "open", on: "errno 13" },
  "a file is opened by openat2": { call: "openat2" },
  "a file is made": { call: "creat" },
  "a file gets other rights": { call: "chmod" },
  "a file is renamed": { call: "rename" },
  "a file is removed": { call: "unlink" },
  "a folder is made": { call: "mkdir" },
  "a link is made": { call: "symlink" },
  "memory of another process is opened": { call: "openat", on: EACCES },
  "memory of another process is read": { call: "process_vm_readv" },
  "a control group is read": { call: "openat", on: EACCES },
  "a descriptor of another process is taken": { call: "pidfd_open" },
  "a process is forked": { call: "fork" },
  "a process is cloned": { call: "clone" },
  "a program is started": { call: "openat", on: "socketpair is refused" },
  "this program becomes another": { call: "execve" },
  "another process is signalled": { call: "kill" },
  "all processes are signalled": { call: "kill" },
  "a thread of another process is signalled": { call: "tgkill" },
  "a signal is queued": { call: "rt_tgsigqueueinfo" },
  "another process is traced": { call: "ptrace" },
  "a socket is made": { call: "socket" },
  "a pair of sockets is made": { call: "socketpair" },
  "memory that is a file is made": { call: "memfd_create" },
  "a file becomes memory": { call: "mmap" },
  "machine code becomes memory": { call: "mmap" },
  "capabilities are set": { call: "capset" },
  "a user is set": { call: "setuid" },
  "a namespace is entered": { call: "unshare" },
  "something is mounted": { call: "mount" },
  "the root is changed": { call: "chroot" },
  "a key is looked for": { call: "keyctl" },
  "a program for the kernel is loaded": { call: "bpf" },
  "page faults are taken": { call: "userfaultfd" },
  "another ring of requests is made": { call: "io_uring_setup", always: "errno 38" },
  "the log of the kernel is read": { call: "syslog" },
  "a VM is made": { call: "ioctl" },
  "the terminal is typed into": { call: "ioctl" },
  "limits are raised": { call: "prlimit64" },
  "another filter is installed": { call: "prctl" },
  "dumps are allowed": { call: "prctl" },
  // Numbers of 32 bits are others: its getpid is writev here.
  "a call goes another way, of 32 bits": { call: "writev" },
  "a call goes another way, of x32": { call: "unknown" },
  "the handler of refused calls is taken away": { call: "socket" },
  "another thread makes a socket": { call: "socket", thread: "pool" },
  "a thread of the pool runs a vCPU": { call: "ioctl", thread: "pool" },
  "a thread of the pool signals another": { call: "tgkill", thread: "pool" },
  "a thread of the pool makes a timer": { call: "timer_create", thread: "pool" },
};

/** Its memory: 8 bytes at an address that is mapped in every program of ours. */
function addressOf(pid: number): string {
  const [line = ""] = readFileSync(`/proc/${String(pid)}/maps`, "latin1").split("\n");
  return String(Number(`0x${line.split("-")[0] ?? ""}`));
}

/** For a process that is attacked from inside as soon as it has written something. `file` may go. */
export function attackEnvironment(names: readonly string[], victim: number, file: string): NodeJS.ProcessEnv {
  return {
    ...process.env,
    NODE_OPTIONS: `--require ${resolve("test/programs/attack.cjs")}`,
    VMLET_KOFFI: koffiPath,
    VMLET_ATTACKS: JSON.stringify(names),
    VMLET_VICTIM: String(victim),
    VMLET_ADDRESS: addressOf(victim),
    VMLET_FILE: file,
  };
}

/** With `on`: the answer, or the call that is refused and the thread that made it. */
export function expectedOn(
  name: string,
): { readonly answer: string } | { readonly call: string; readonly thread: string } {
  const { call, thread = "main", on = "", always } = TRIES[name] ?? { call: "" };
  const [other = "", isRefused] = on.split(" is ");
  if (always !== undefined) return { answer: always };
  if (isRefused === "refused") return { call: other, thread };
  return on === "" ? { call, thread } : { answer: on };
}
