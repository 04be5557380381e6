// What each thread of a sealed monitor may still ask of the kernel: descriptors that are open, memory, its own threads, clocks, and the requests
// that a running VM makes of KVM. No list of what is dangerous: what is not here is refused. Found by running the tests under strace, on
// Node 20.
import {
  KVM_CHECK_EXTENSION,
  KVM_GET_API_VERSION,
  KVM_GET_CLOCK,
  KVM_GET_DEBUGREGS,
  KVM_GET_IRQCHIP,
  KVM_GET_LAPIC,
  KVM_GET_MP_STATE,
  KVM_GET_MSR_INDEX_LIST,
  KVM_GET_MSRS,
  KVM_GET_PIT2,
  KVM_GET_REGS,
  KVM_GET_SREGS,
  KVM_GET_SUPPORTED_CPUID,
  KVM_GET_TSC_KHZ,
  KVM_GET_VCPU_EVENTS,
  KVM_GET_XCRS,
  KVM_GET_XSAVE,
  KVM_GET_XSAVE2,
  KVM_IOEVENTFD,
  KVM_IRQFD,
  KVM_IRQ_LINE,
  KVM_KVMCLOCK_CTRL,
  KVM_NMI,
  KVM_RUN,
  KVM_SET_CLOCK,
  KVM_SET_DEBUGREGS,
  KVM_SET_FPU,
  KVM_SET_GSI_ROUTING,
  KVM_SET_GUEST_DEBUG,
  KVM_SET_LAPIC,
  KVM_SET_MP_STATE,
  KVM_SET_MSRS,
  KVM_SET_REGS,
  KVM_SET_SREGS,
  KVM_SET_USER_MEMORY_REGION,
  KVM_SET_VCPU_EVENTS,
  KVM_SET_XCRS,
  KVM_SET_XSAVE,
  KVM_SIGNAL_MSI,
  KVM_TRANSLATE,
} from "../sys/kvm-abi.js";
import { IOMMU_IOAS_UNMAP } from "../sys/iommufd-abi.js";
import { VFIO_DEVICE_RESET, VFIO_DEVICE_SET_IRQS, VFIO_IOMMU_UNMAP_DMA } from "../sys/vfio-abi.js";
import {
  VHOST_NET_SET_BACKEND,
  VHOST_SET_FEATURES,
  VHOST_SET_VRING_ADDR,
  VHOST_SET_VRING_BASE,
  VHOST_SET_VRING_CALL,
  VHOST_SET_VRING_KICK,
  VHOST_SET_VRING_NUM,
  VHOST_VSOCK_SET_RUNNING,
} from "../sys/vhost-abi.js";
import type { Rule } from "./filter.js";
import type { Needs } from "./needs.js";
import { SECCOMP_FILTER_FLAG_SPEC_ALLOW, SECCOMP_SET_MODE_FILTER } from "./thread-filter.js";
import type { ThreadKind } from "./threads.js";

const EACCES = 13;
const EAGAIN = 11;
const ENOSYS = 38;

/** A vCPU's own, and interrupts. */
const VCPU_REQUESTS = [
  ...[KVM_RUN, KVM_GET_REGS, KVM_SET_REGS, KVM_GET_SREGS, KVM_SET_SREGS, KVM_GET_MP_STATE, KVM_SET_MP_STATE],
  ...[KVM_GET_MSRS, KVM_SET_MSRS, KVM_SET_FPU, KVM_GET_XSAVE, KVM_SET_XSAVE, KVM_GET_XSAVE2, KVM_GET_XCRS],
  ...[KVM_SET_XCRS, KVM_GET_LAPIC, KVM_SET_LAPIC, KVM_GET_DEBUGREGS, KVM_SET_DEBUGREGS, KVM_GET_VCPU_EVENTS],
  ...[KVM_SET_VCPU_EVENTS, KVM_SET_GUEST_DEBUG, KVM_GET_TSC_KHZ, KVM_KVMCLOCK_CTRL, KVM_TRANSLATE, KVM_NMI],
  ...[KVM_IRQ_LINE, KVM_SIGNAL_MSI],
];

/** Of a VM that runs: nothing that makes another one, or shows a guest other memory. */
const VM_REQUESTS = [KVM_IRQFD, KVM_IOEVENTFD, KVM_GET_IRQCHIP, KVM_GET_PIT2, KVM_GET_CLOCK, KVM_SET_CLOCK];

/** A driver has set its queues up, or lets go of them. Whose they are, and what memory they lie in, is settled. */
const VHOST_REQUESTS = [
  ...[VHOST_SET_FEATURES, VHOST_SET_VRING_NUM, VHOST_SET_VRING_BASE, VHOST_SET_VRING_ADDR, VHOST_SET_VRING_CALL],
  ...[VHOST_SET_VRING_KICK, VHOST_NET_SET_BACKEND, VHOST_VSOCK_SET_RUNNING],
];

/**
 * A guest moves registers of a device to another place, or has its interrupts set up; the device is reset and let go of at the end.
 * No other device, group, container or memory comes to it.
 */
const VFIO_REQUESTS = [
  ...[VFIO_DEVICE_SET_IRQS, VFIO_DEVICE_RESET, VFIO_IOMMU_UNMAP_DMA, IOMMU_IOAS_UNMAP],
  KVM_SET_USER_MEMORY_REGION,
];

// asm-generic/ioctls.h. Without TIOCSTI, which types into the user's terminal.
const TCGETS = 0x5401;
const TCSETS = 0x5402;
const TIOCGPGRP = 0x540f;
const TIOCGWINSZ = 0x5413;
const FIONBIO = 0x5421;
/** linux/if_tun.h: what a driver of a network device has agreed to. */
const TUNSETOFFLOAD = 0x4004_54d0;
const DESCRIPTOR_REQUESTS = [TCGETS, TCSETS, TIOCGPGRP, TIOCGWINSZ, FIONBIO];

// fcntl.h.
const F_GETFD = 1;
const F_SETFD = 2;
const F_GETFL = 3;
const F_SETFL = 4;
const F_OFD_GETLK = 36;
const F_OFD_SETLK = 37;

const PROT_EXEC = 4;
const MAP_ANONYMOUS = 0x20;

// linux/prctl.h.
const PR_SET_NAME = 15;
const PR_GET_NAME = 16;
/** A name for anonymous memory, which C libraries give to what they allocate. */
const PR_SET_VMA = 0x5356_4d41;

const SIGSYS = 31;
/** All signals but SIGSYS, whose handler ends the VM. */
const OTHER_SIGNALS = Array.from({ length: 64 }, (_, at) => at + 1).filter((signal) => signal !== SIGSYS);

/** CLONE_VM | FS | FILES | SIGHAND | THREAD | SYSVSEM | SETTLS | PARENT_SETTID | CHILD_CLEARTID: a thread of this process. */
const THREAD_FLAGS = 0x003d_0f00;
/** musl sets it, too; it means nothing. */
const CLONE_DETACHED = 0x0040_0000;

/** What a snapshot says of the host. */
const SNAPSHOT_REQUESTS = [
  ...[KVM_GET_API_VERSION, KVM_CHECK_EXTENSION, KVM_GET_SUPPORTED_CPUID, KVM_GET_MSR_INDEX_LIST],
];

function requestsOf({ tap, vhost, messages, vfio, listens }: Needs): number[] {
  return [
    ...VCPU_REQUESTS,
    ...VM_REQUESTS,
    ...DESCRIPTOR_REQUESTS,
    ...(tap ? [TUNSETOFFLOAD] : []),
    ...(vhost ? VHOST_REQUESTS : []),
    ...(messages ? [KVM_SET_GSI_ROUTING] : []),
    ...(vfio ? VFIO_REQUESTS : []),
    ...(listens ? SNAPSHOT_REQUESTS : []),
  ];
}

/** Whoever comes to a socket that listens, and descriptors that are sent. None is made, and none is connected to another. */
const LISTEN_CALLS: readonly Rule[] = [
  { calls: ["accept4", "listen", "shutdown", "getsockopt", "getsockname", "getpeername", "recvmsg"] },
];

/** Messages over a connection that is open. */
const HELPER_CALLS: readonly Rule[] = [
  { calls: ["sendmsg"] },
  // Without an address.
  { calls: ["recvfrom"], when: [{ argument: 4, values: [0], isWide: true }] },
];

/** What any code does: it takes turns, has memory, knows the time and itself, hears of signals, and ends. */
const EVERYBODY: readonly Rule[] = [
  { calls: ["futex", "sched_yield", "membarrier", "rseq", "set_robust_list", "set_tid_address", "restart_syscall"] },
  // V8 makes its machine code executable by mprotect. No file becomes memory any more.
  {
    calls: ["mmap"],
    when: [
      { argument: 3, mask: MAP_ANONYMOUS, values: [MAP_ANONYMOUS] },
      { argument: 2, mask: PROT_EXEC, values: [0] },
    ],
  },
  { calls: ["munmap", "mremap", "mprotect", "madvise", "brk", "pkey_alloc", "pkey_free", "pkey_mprotect"] },
  { calls: ["clock_gettime", "clock_getres", "clock_nanosleep", "nanosleep", "gettimeofday", "time"] },
  { calls: ["getrandom", "getpid", "gettid", "getppid", "getuid", "geteuid", "getgid", "getegid", "getpgrp"] },
  { calls: ["capget", "uname", "sysinfo", "getcpu", "sched_getaffinity", "getrusage", "getrlimit"] },
  { calls: ["rt_sigprocmask", "rt_sigreturn", "sigaltstack"] },
  { calls: ["prctl"], when: [{ argument: 0, values: [PR_SET_NAME, PR_GET_NAME, PR_SET_VMA] }] },
  { calls: ["close", "exit", "exit_group"] },
  // Whoever gets this asks another way: statx for fstat, clone3 for clone.
  { calls: ["statx", "clone3", "io_uring_setup"], errno: ENOSYS },
];

/**
 * libuv wakes another thread by 8 bytes for an eventfd, and hears of it by a read with room for 1024, or for 8. Whatever thread takes a
 * signal of this process's passes it on by 16 bytes, with one in a pipe before and after.
 */
const WAKE_UPS: readonly Rule[] = [
  { calls: ["write"], when: [{ argument: 2, values: [1, 8, 16], isWide: true }] },
  { calls: ["read"], when: [{ argument: 2, values: [1, 8, 1024], isWide: true }] },
];

/** Of a thread that does not otherwise write to descriptors: the line about a call that is refused, with the terminal as it was. */
const LAST_WORDS: readonly Rule[] = [
  writesTo(2),
  {
    calls: ["ioctl"],
    when: [
      { argument: 0, values: [0] },
      { argument: 1, values: [TCSETS] },
    ],
  },
];

/** For last words that go elsewhere, too. */
export function writesTo(fd: number): Rule {
  return { calls: ["write"], when: [{ argument: 0, values: [fd] }] };
}

const POLLING: readonly Rule[] = [{ calls: ["poll", "ppoll", "epoll_wait", "epoll_pwait", "epoll_ctl"] }];

const FILES: readonly Rule[] = [
  { calls: ["read", "write", "readv", "writev", "pread64", "pwrite64", "preadv", "pwritev", "preadv2", "pwritev2"] },
  { calls: ["lseek", "fsync", "fdatasync", "fallocate", "ftruncate", "fstat", "fstatfs"] },
];

/** Signals for this process alone. */
function ownSignals(pid: number): Rule[] {
  return [{ calls: ["tgkill", "kill"], when: [{ argument: 0, values: [pid] }] }];
}

function mainCalls(pid: number, needs: Needs): Rule[] {
  return [
    { calls: ["ioctl"], when: [{ argument: 1, values: requestsOf(needs) }] },
    ...FILES,
    ...POLLING,
    ...EVERYBODY,
    ...ownSignals(pid),
    { calls: ["eventfd2", "pipe2", "epoll_create1"] },
    {
      calls: ["fcntl"],
      when: [{ argument: 1, values: [F_GETFD, F_SETFD, F_GETFL, F_SETFL, F_OFD_GETLK, F_OFD_SETLK] }],
    },
    { calls: ["timer_create", "timer_settime", "timer_gettime", "timer_delete"] },
    { calls: ["prlimit64"], when: [{ argument: 2, values: [0], isWide: true }] },
    { calls: ["rt_sigaction"], when: [{ argument: 0, values: OTHER_SIGNALS }] },
    // Node gives every signal its default action when it ends: it hears that it has.
    { calls: ["rt_sigaction"], when: [{ argument: 0, values: [SIGSYS] }], errno: 0 },
    // For its own children.
    { calls: ["wait4"] },
    ...(needs.helpers ? HELPER_CALLS : []),
    ...(needs.listens || needs.sockets ? LISTEN_CALLS : []),
  ];
}

function vcpuCalls(pid: number): Rule[] {
  return [
    { calls: ["ioctl"], when: [{ argument: 1, values: VCPU_REQUESTS }] },
    ...WAKE_UPS,
    ...LAST_WORDS,
    ...POLLING,
    ...EVERYBODY,
    ...ownSignals(pid),
  ];
}

const POOL_CALLS: readonly Rule[] = [...FILES, ...LAST_WORDS, ...EVERYBODY];

const NODE_CALLS: readonly Rule[] = [...WAKE_UPS, ...LAST_WORDS, ...POLLING, ...EVERYBODY];

/** What Node and V8 look for when a thread begins: they do without. */
const PATHS: Rule = {
  calls: ["openat", "open", "access", "faccessat", "faccessat2", "readlink", "newfstatat", "stat", "lstat"],
  errno: EACCES,
};

const NEW_THREAD: Rule = {
  calls: ["clone"],
  when: [{ argument: 0, mask: ~CLONE_DETACHED, values: [THREAD_FLAGS] }],
};

/**
 * Who may begin no thread is told that there are no more. The C library blocks all signals meanwhile, and the kernel would end the process without the
 * line about a call that is refused.
 */
const NO_THREAD: Rule = { ...NEW_THREAD, errno: EAGAIN };

/** What begins a thread, and takes from it what it does not need. */
const THREAD_START: readonly Rule[] = [
  NEW_THREAD,
  // Node does not begin a thread without the name of the current folder.
  { calls: ["getcwd"] },
  // One filter more, for the calling thread, without a descriptor that would answer for the kernel: calls can only become fewer.
  {
    calls: ["seccomp"],
    when: [
      { argument: 0, values: [SECCOMP_SET_MODE_FILTER], isWide: true },
      { argument: 1, values: [SECCOMP_FILTER_FLAG_SPEC_ALLOW], isWide: true },
    ],
  },
];

const AF_INET = 2;
const AF_INET6 = 10;
const SOCK_STREAM = 1;
const SOCK_DGRAM = 2;
const SOCK_NONBLOCK = 0o4000;
const SOCK_CLOEXEC = 0o2000000;

/** Of a process that asks a name server, in the network namespace of all of its threads. */
export const NAME_SERVER_CALLS: readonly Rule[] = [
  {
    calls: ["socket"],
    when: [
      { argument: 0, values: [AF_INET, AF_INET6] },
      { argument: 1, mask: ~(SOCK_NONBLOCK | SOCK_CLOEXEC), values: [SOCK_STREAM, SOCK_DGRAM] },
    ],
  },
  {
    calls: ["connect", "bind", "setsockopt", "getsockopt", "getpeername", "sendmsg", "recvmsg", "sendmmsg", "recvmmsg"],
  },
];

/**
 * - `running`: for a process whose vCPU threads are still to start. Files cannot be opened, and the attempt is an error.
 * - `complete`: for one that has all its threads.
 */
export type Phase = "running" | "complete";

/** Of a thread of that kind. A thread that begins later has what `main` has until it gives it up. `pid` is this process's. */
export function allowedCalls(kind: ThreadKind, phase: Phase, pid: number, needs: Needs): readonly Rule[] {
  const later = phase === "running" ? [PATHS] : [];
  switch (kind) {
    case "main":
      return [...mainCalls(pid, needs), ...(phase === "running" ? THREAD_START : [NO_THREAD]), ...later];
    case "vcpu":
      return [...vcpuCalls(pid), NO_THREAD, ...later];
    case "pool":
      return [...POOL_CALLS, NO_THREAD, ...later];
    case "node":
      return [...NODE_CALLS, NO_THREAD];
    case "any":
      return [...FILES, ...vcpuCalls(pid), NO_THREAD, ...later];
  }
}
