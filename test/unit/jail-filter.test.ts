// Needs: nothing; a C compiler for the numbers. Which system calls a sealed monitor may make: the filter as the kernel runs it.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { resolveConfig } from "../../vmm/config/resolve.js";
import { allowedCalls, NAME_SERVER_CALLS, writesTo, type Phase } from "../../vmm/jail/allowed.js";
import { NO_NEEDS, needsOf, type Needs } from "../../vmm/jail/needs.js";
import { SECCOMP_RET_TRAP, compileFilter } from "../../vmm/jail/filter.js";
import { refusalCode } from "../../vmm/jail/refusal.js";
import { SYSTEM_CALL_COUNT, SYSTEM_CALL_NAMES, numberOf } from "../../vmm/jail/system-calls.js";
import { runFilter } from "../helpers/bpf-machine.js";
import { skip } from "../helpers/skip.js";

const ALLOW = 0x7fff_0000;
const ERRNO = 0x0005_0000;
const EACCES = 13;
const EAGAIN = 11;
const ENOSYS = 38;
const PID = 1234;
const THREAD = 0x003d_0f00n;

describe("jail: filter", () => {
  const programs: Readonly<Record<Phase, Uint8Array>> = {
    running: compileFilter(allowedCalls("main", "running", PID, NO_NEEDS)),
    complete: compileFilter(allowedCalls("main", "complete", PID, NO_NEEDS)),
  };
  const withNeed = (need: keyof Needs): Uint8Array =>
    compileFilter(allowedCalls("main", "complete", PID, { ...NO_NEEDS, [need]: true }));
  const ioctlAnswer = (program: Uint8Array, request: number): number =>
    runFilter(program, { number: numberOf("ioctl"), arguments: [3n, BigInt(request)] });
  const answer = (phase: Phase, name: string, ...given: readonly (number | bigint)[]): number =>
    runFilter(programs[phase], { number: numberOf(name), arguments: given.map(BigInt) });
  const inBoth = (expected: number, name: string, ...given: readonly (number | bigint)[]): void => {
    for (const phase of ["running", "complete"] as const)
      assert.equal(answer(phase, name, ...given), expected, `${phase} ${name}`);
  };

  it("the numbers of system calls are the C library's", function () {
    const { status, stdout } = spawnSync("cc", ["-E", "-dM", "-include", "asm/unistd_64.h", "-xc", "/dev/null"], {
      encoding: "utf8",
    });
    if (status !== 0) skip(this, "no C compiler");
    const found = [...stdout.matchAll(/^#define __NR_(\w+) (\d+)$/gm)];
    assert.ok(found.length > 300);
    const names = SYSTEM_CALL_NAMES.split(" ");
    for (const [, name = "", number] of found) {
      // Of a header that is newer than the list.
      if (Number(number) < SYSTEM_CALL_COUNT && names[Number(number)] !== "unknown")
        assert.equal(numberOf(name), Number(number), name);
    }
    assert.equal(names.length, SYSTEM_CALL_COUNT + 2, "one for the others, and the text's end");
    for (const name of ["unknown", "", "reed"]) assert.throws(() => numberOf(name), /No system call/);
  });

  it("a call of another architecture is trapped, whatever its number", () => {
    for (const architecture of [0x4000_0003, 0xc000_00b7]) {
      for (let number = 0; number < SYSTEM_CALL_COUNT; number++) {
        assert.equal(runFilter(programs.running, { number, architecture }), SECCOMP_RET_TRAP);
      }
    }
    for (const number of [0x4000_0000, 0x4000_0001, 0x4000_0000 + 39, 0xffff_ffff]) {
      assert.equal(runFilter(programs.running, { number }), SECCOMP_RET_TRAP);
    }
  });

  it("what opens, makes or starts something is in no list", () => {
    const words = `execve execveat fork vfork ptrace process_vm_readv process_vm_writev socket socketpair connect bind listen accept
      accept4 sendmsg sendto creat unlink unlinkat rename renameat renameat2 link linkat symlink symlinkat mkdir mkdirat rmdir mknod
      mknodat chmod fchmod fchmodat chown fchown lchown truncate mount umount2 pivot_root chroot open_tree move_mount fsopen
      unshare setns setuid setgid setresuid setgroups capset keyctl add_key request_key bpf perf_event_open userfaultfd
      memfd_create memfd_secret open_by_handle_at openat2 pidfd_open pidfd_getfd pidfd_send_signal tkill rt_sigqueueinfo
      rt_tgsigqueueinfo kexec_load init_module finit_module personality setrlimit setpriority sched_setscheduler
      sched_setaffinity ioperm iopl swapon reboot sethostname acct quotactl syslog dup2 dup3 sendfile splice vmsplice tee
      process_madvise io_uring_enter io_uring_register shmget shmat semget msgget mq_open inotify_init1 fanotify_init
      modify_ldt arch_prctl setxattr fsetxattr utimensat landlock_create_ruleset landlock_restrict_self mseal`;
    for (const name of words.split(/\s+/)) inBoth(SECCOMP_RET_TRAP, name, 0, 0, 0);
  });

  it("paths are errors while threads are still to begin, and trapped then", () => {
    for (const name of ["open", "openat", "access", "faccessat2", "stat", "lstat", "newfstatat", "readlink"]) {
      assert.equal(answer("running", name), ERRNO | EACCES, name);
      assert.equal(answer("complete", name), SECCOMP_RET_TRAP, name);
    }
  });

  it("threads that begin later take calls from themselves, and from nobody else", () => {
    assert.equal(answer("running", "seccomp", 1, 4, 0), ALLOW);
    // SECCOMP_SET_MODE_STRICT, all threads at once, a log, somebody who answers for the kernel.
    for (const [operation, flags] of [
      [0, 0],
      [1, 0],
      [1, 1],
      [1, 5],
      [1, 2],
      [1, 8],
      [1, 12],
      [2, 0],
      [3, 0],
    ])
      assert.equal(answer("running", "seccomp", operation ?? 0, flags ?? 0, 0), SECCOMP_RET_TRAP);
    assert.equal(answer("running", "seccomp", 1, 0x1_0000_0004, 0), SECCOMP_RET_TRAP);
    assert.equal(answer("complete", "seccomp", 1, 4, 0), SECCOMP_RET_TRAP);
    for (const kind of ["vcpu", "pool", "node"] as const) {
      const program = compileFilter(allowedCalls(kind, "running", PID, NO_NEEDS));
      for (const name of ["seccomp", "clone"])
        assert.equal(runFilter(program, { number: numberOf(name), arguments: [1n, 4n, 0n] }), SECCOMP_RET_TRAP);
    }
  });

  it("a thread may begin while that is so, a process never", () => {
    const VFORK = 0x4000n | 0x100n | 17n;
    const NEW_USER = 0x1000_0000n;
    assert.equal(answer("running", "clone", THREAD), ALLOW);
    assert.equal(answer("running", "clone", THREAD | 0x0040_0000n), ALLOW);
    // A C library that makes one has blocked the signal of a trapped call.
    assert.equal(answer("complete", "clone", THREAD), ERRNO | EAGAIN);
    for (const flags of [17n, VFORK, THREAD & ~0x10000n, THREAD | NEW_USER, THREAD | 0x2000n, 0n])
      inBoth(SECCOMP_RET_TRAP, "clone", flags);
    inBoth(ERRNO | ENOSYS, "clone3");
  });

  it("signals go to this process alone", () => {
    for (const name of ["kill", "tgkill"]) {
      inBoth(ALLOW, name, PID, 40);
      for (const pid of [0, -1, 1, PID + 1, -PID]) inBoth(SECCOMP_RET_TRAP, name, pid, 40);
    }
  });

  it("memory comes from no file, and is not made executable with it", () => {
    inBoth(ALLOW, "mmap", 0, 4096, 3, 0x22, -1);
    inBoth(SECCOMP_RET_TRAP, "mmap", 0, 4096, 7, 0x22, -1);
    inBoth(SECCOMP_RET_TRAP, "mmap", 0, 4096, 4, 0x22, -1);
    inBoth(SECCOMP_RET_TRAP, "mmap", 0, 4096, 1, 2, 5);
    inBoth(SECCOMP_RET_TRAP, "mmap", 0, 4096, 3, 1, 5);
  });

  it("limits can be read and not set: the whole pointer counts", () => {
    inBoth(ALLOW, "prlimit64", 0, 7, 0, 0x7fff_0000_0000n);
    inBoth(SECCOMP_RET_TRAP, "prlimit64", 0, 7, 0x7fff_0000_1000n, 0);
    inBoth(SECCOMP_RET_TRAP, "prlimit64", 0, 7, 0x7fff_0000_0000n, 0);
  });

  it("ioctl: requests of a VM that runs, by number; nothing that makes one or types into a terminal", () => {
    const [RUN, CREATE_VM, CREATE_VCPU, SET_MEMORY, ENABLE_CAP] = [0xae80, 0xae01, 0xae41, 0x4020_ae46, 0x4068_aea3];
    inBoth(ALLOW, "ioctl", 3, RUN);
    // The kernel looks at the lower half alone.
    inBoth(ALLOW, "ioctl", 3, 0x5_0000_0000n + BigInt(RUN));
    const TIOCSTI = 0x5412;
    const TIOCLINUX = 0x541c;
    for (const request of [CREATE_VM, CREATE_VCPU, SET_MEMORY, ENABLE_CAP, TIOCSTI, TIOCLINUX])
      inBoth(SECCOMP_RET_TRAP, "ioctl", 3, request);
  });

  const trapsAll = (program: Uint8Array, requests: readonly number[]): void => {
    for (const request of requests) assert.equal(ioctlAnswer(program, request), SECCOMP_RET_TRAP, request.toString(16));
  };
  const onlyWith = (need: keyof Needs, requests: readonly number[]): void => {
    trapsAll(programs.running, requests);
    for (const request of requests) assert.equal(ioctlAnswer(withNeed(need), request), ALLOW, request.toString(16));
  };

  it("ioctl: a driver's queues are given to vhost and taken back; whose it is, its memory and its address stay", () => {
    const running = [
      0x4008_af00, 0x4008_af10, 0x4028_af11, 0x4008_af12, 0x4008_af20, 0x4008_af21, 0x4008_af30, 0x4004_af61,
    ];
    onlyWith("vhost", running);
    const [SET_OWNER, RESET_OWNER, SET_MEM_TABLE, SET_LOG_BASE, SET_GUEST_CID] = [
      0xaf01, 0xaf02, 0x4008_af03, 0x4008_af04, 0x4008_af60,
    ];
    trapsAll(withNeed("vhost"), [SET_OWNER, RESET_OWNER, SET_MEM_TABLE, SET_LOG_BASE, SET_GUEST_CID]);
  });

  it("ioctl: an assigned device interrupts, moves and is reset; no other device, group, container or memory comes to it", () => {
    const [SET_IRQS, RESET, UNMAP_DMA, IOAS_UNMAP, SET_MEMORY] = [0x3b6e, 0x3b6f, 0x3b72, 0x3b86, 0x4020_ae46];
    onlyWith("vfio", [SET_IRQS, RESET, UNMAP_DMA, IOAS_UNMAP, SET_MEMORY]);
    const [SET_IOMMU, GROUP_SET_CONTAINER, GET_DEVICE_FD, MAP_DMA, BIND_IOMMUFD, ATTACH, IOAS_MAP] = [
      0x3b66, 0x3b68, 0x3b6a, 0x3b71, 0x3b76, 0x3b77, 0x3b85,
    ];
    const CREATE_VM = 0xae01;
    trapsAll(withNeed("vfio"), [
      ...[SET_IOMMU, GROUP_SET_CONTAINER, GET_DEVICE_FD, MAP_DMA, BIND_IOMMUFD, ATTACH, IOAS_MAP],
      CREATE_VM,
    ]);
  });

  it("ioctl: offloads of an interface, and messages of interrupts, are those of VMs that have such devices", () => {
    onlyWith("tap", [0x4004_54d0]);
    onlyWith("messages", [0x4008_ae6a]);
    // An interface for somebody else.
    trapsAll(withNeed("tap"), [0x4004_54ca, 0x4004_54cb, 0x4004_54d2]);
  });

  it("messages go over connections that are open, for a VM that has helpers; none is made, and none has an address", () => {
    const answerWith = (name: string, ...given: readonly bigint[]): number =>
      runFilter(withNeed("helpers"), { number: numberOf(name), arguments: given });
    inBoth(SECCOMP_RET_TRAP, "sendmsg", 3, 0, 0);
    assert.equal(answerWith("sendmsg", 3n, 0n, 0n), ALLOW);
    inBoth(SECCOMP_RET_TRAP, "recvfrom", 3, 0, 0, 0, 0, 0);
    assert.equal(answerWith("recvfrom", 3n, 0n, 1n, 0n, 0n, 0n), ALLOW);
    assert.equal(answerWith("recvfrom", 3n, 0n, 1n, 0n, 0x7fff_0000_0000n, 0n), SECCOMP_RET_TRAP);
    for (const name of ["socket", "connect", "accept4", "sendto", "socketpair", "bind", "listen"])
      assert.equal(answerWith(name, 3n, 0n, 0n, 0n, 0n, 0n), SECCOMP_RET_TRAP, name);
  });

  it("whoever listens takes connections and descriptors; no socket is made, and none is connected", () => {
    for (const need of ["listens", "sockets"] as const) {
      const answerWith = (name: string): number =>
        runFilter(withNeed(need), { number: numberOf(name), arguments: [3n, 0n, 0n, 0n, 0n, 0n] });
      for (const name of ["accept4", "listen", "shutdown", "recvmsg"]) {
        inBoth(SECCOMP_RET_TRAP, name, 3, 0, 0);
        assert.equal(answerWith(name), ALLOW);
      }
      for (const name of ["socket", "connect", "accept", "sendto", "sendmsg", "socketpair", "bind"])
        assert.equal(answerWith(name), SECCOMP_RET_TRAP, name);
    }
    const [CHECK_EXTENSION, SUPPORTED_CPUID, CREATE_VM] = [0xae03, 0xc008_ae05, 0xae01];
    onlyWith("listens", [CHECK_EXTENSION, SUPPORTED_CPUID]);
    trapsAll(withNeed("listens"), [CREATE_VM]);
  });

  it("what a VM needs follows from its devices", () => {
    const needs = (config: object): Needs =>
      needsOf(resolveConfig({ kernel: "/kernel", memoryMib: 64, ...config }), false);
    const only = (...found: readonly (keyof Needs)[]): Needs => ({
      ...NO_NEEDS,
      ...Object.fromEntries(found.map((need) => [need, true])),
    });
    assert.deepEqual(needs({ disks: [{ path: "/disk" }], rng: true, pci: true, balloon: { targetMib: 1 } }), NO_NEEDS);
    assert.deepEqual(needsOf(resolveConfig({ kernel: "/kernel", memoryMib: 64 }), true), only("listens"));
    assert.deepEqual(needs({ nets: [{ tap: "auto", vhost: "off" }], pci: true }), only("tap"));
    assert.deepEqual(needs({ nets: [{ tap: "auto" }] }), only("tap", "vhost"));
    assert.deepEqual(needs({ nets: [{ tap: "auto" }], pci: true }), only("tap", "vhost", "messages"));
    assert.deepEqual(needs({ nets: [{ user: {} }] }), only("helpers"));
    assert.deepEqual(needs({ nets: [{ user: {}, vhost: "off" }] }), NO_NEEDS);
    assert.deepEqual(needs({ vsock: { cid: 3 } }), only("vhost"));
    assert.deepEqual(needs({ vsock: { cid: 3, path: "/socket" } }), only("sockets"));
    assert.deepEqual(needs({ shares: [{ path: "/" }], pci: true }), only("helpers", "messages"));
    assert.deepEqual(needs({ vfio: [{ device: "0000:01:00.0" }], pci: true }), only("vfio", "messages"));
  });

  it("only who asks a name server makes sockets, and those of the Internet alone", () => {
    const [AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_PACKET, AF_VSOCK] = [1n, 2n, 10n, 16n, 17n, 40n];
    const [SOCK_STREAM, SOCK_RAW] = [1n, 3n];
    const program = compileFilter([...allowedCalls("main", "running", PID, NO_NEEDS), ...NAME_SERVER_CALLS]);
    const asking = (name: string, ...given: readonly bigint[]): number =>
      runFilter(program, { number: numberOf(name), arguments: given });
    for (const family of [AF_INET, AF_INET6]) {
      inBoth(SECCOMP_RET_TRAP, "socket", family, SOCK_STREAM);
      assert.equal(asking("socket", family, SOCK_STREAM), ALLOW);
      // One that sees frames.
      assert.equal(asking("socket", family, SOCK_RAW), SECCOMP_RET_TRAP);
    }
    for (const family of [AF_UNIX, AF_NETLINK, AF_PACKET, AF_VSOCK])
      assert.equal(asking("socket", family, SOCK_STREAM), SECCOMP_RET_TRAP);
    assert.equal(asking("listen", 3n), SECCOMP_RET_TRAP);
  });

  it("the handler of refused calls stays, and whoever takes it away hears that it has gone", () => {
    inBoth(ERRNO, "rt_sigaction", 31);
    for (const signal of [1, 30, 32, 40, 64]) inBoth(ALLOW, "rt_sigaction", signal);
  });

  it("every kind of thread says its last words where they are asked for, and nothing else there", () => {
    const LOG = 25;
    for (const kind of ["main", "vcpu", "pool", "node", "any"] as const) {
      const program = compileFilter([...allowedCalls(kind, "running", PID, NO_NEEDS), writesTo(LOG)]);
      for (const fd of [2, LOG]) {
        const call = { number: numberOf("write"), arguments: [BigInt(fd), 0n, 100n] };
        assert.equal(runFilter(program, call), ALLOW, `${kind}, ${String(fd)}`);
      }
      const isFree = ["main", "pool", "any"].includes(kind);
      const other = { number: numberOf("write"), arguments: [BigInt(LOG + 1), 0n, 100n] };
      assert.equal(runFilter(program, other), isFree ? ALLOW : SECCOMP_RET_TRAP, kind);
    }
  });

  it("its code has room before the texts that follow it", () => {
    const log = { fd: 1023, before: "x".repeat(64), after: "x".repeat(64) };
    assert.ok(refusalCode(2 ** 22, log).length < 0x200);
  });
});
