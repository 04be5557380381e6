// Needs: nothing. What each kind of thread of a sealed monitor may ask of the kernel, by the filters that they have.
import assert from "node:assert/strict";
import { allowedCalls, type Phase } from "../../vmm/jail/allowed.js";
import { compileFilter, SECCOMP_RET_TRAP } from "../../vmm/jail/filter.js";
import { NO_NEEDS, type Needs } from "../../vmm/jail/needs.js";
import { numberOf } from "../../vmm/jail/system-calls.js";
import type { ThreadKind } from "../../vmm/jail/threads.js";
import { runFilter } from "../helpers/bpf-machine.js";

const ALLOW = 0x7fff_0000;
const PID = 1234;
const ALL_NEEDS = Object.fromEntries(Object.keys(NO_NEEDS).map((need) => [need, true])) as unknown as Needs;
const OTHERS = ["vcpu", "pool", "node"] as const;
const PHASES = ["running", "complete"] as const;
const [RUN, GET_REGS, IRQ_LINE, IRQFD, IOEVENTFD, TCSETS, FIONBIO] = [
  0xae80, 0x8090_ae81, 0x4008_ae61, 0x4020_ae76, 0x4040_ae79, 0x5402, 0x5421,
];

describe("jail: kinds of threads", () => {
  const programs = new Map<string, Uint8Array>();
  const program = (kind: ThreadKind, phase: Phase): Uint8Array => {
    const key = `${kind} ${phase}`;
    const made = programs.get(key) ?? compileFilter(allowedCalls(kind, phase, PID, ALL_NEEDS));
    programs.set(key, made);
    return made;
  };
  type Call = readonly [name: string, ...given: readonly (number | bigint)[]];
  const answer = (kind: ThreadKind, phase: Phase, [name, ...given]: Call): number =>
    runFilter(program(kind, phase), { number: numberOf(name), arguments: given.map(BigInt) });
  const isAllowed = (kind: ThreadKind, call: Call): boolean => {
    const [first, second] = PHASES.map((phase) => answer(kind, phase, call) === ALLOW);
    assert.equal(first, second, `${kind} ${call.join(" ")}`);
    return first === true;
  };
  const only = (kinds: readonly ThreadKind[], ...calls: readonly Call[]): void => {
    for (const call of calls) {
      const found = (["main", ...OTHERS] as const).filter((kind) => isAllowed(kind, call));
      assert.deepEqual(found, kinds, call.join(" "));
    }
  };

  it("all have memory, time, turns, and an end", () => {
    const all = ["main", ...OTHERS] as const;
    only(all, ["futex"], ["mmap", 0, 4096, 3, 0x22, -1], ["munmap"], ["mprotect"], ["madvise"], ["clock_gettime"]);
    only(all, ["exit"], ["exit_group"], ["rt_sigreturn"], ["gettid"], ["close", 3]);
    only([], ["mmap", 0, 4096, 7, 0x22, -1], ["mmap", 0, 4096, 1, 2, 5], ["socket"], ["execve"], ["ptrace"]);
  });

  it("files are read and written by the main thread and the pool alone", () => {
    only(
      ["main", "pool"],
      ["pwrite64", 5],
      ["pread64", 5],
      ["preadv2", 5],
      ["pwritev2", 5],
      ["readv", 5],
      ["writev", 5],
    );
    only(
      ["main", "pool"],
      ["fdatasync", 5],
      ["fallocate", 5],
      ["ftruncate", 5],
      ["lseek", 5],
      ["fstat", 5],
      ["fstatfs", 5],
    );
    only(["main", "pool"], ["write", 5, 0, 512], ["read", 5, 0, 512], ["write", 5, 0, 0x1_0000_0008n]);
    // libuv's wake-ups, and a signal that it passes on.
    for (const length of [1, 8, 16]) only(["main", ...OTHERS], ["write", 5, 0, length]);
    for (const length of [1, 8, 1024]) only(["main", ...OTHERS], ["read", 5, 0, length]);
  });

  it("a vCPU is run by the main thread and those for vCPUs; what is wired to the VM, and its devices, are the main thread's", () => {
    only(["main", "vcpu"], ["ioctl", 5, RUN], ["ioctl", 5, GET_REGS], ["ioctl", 5, IRQ_LINE]);
    const [SET_GSI_ROUTING, SET_MEMORY, SET_IRQS, VRING_ADDR, SETOFFLOAD] = [
      0x4008_ae6a, 0x4020_ae46, 0x3b6e, 0x4028_af11, 0x4004_54d0,
    ];
    for (const request of [IRQFD, IOEVENTFD, SET_GSI_ROUTING, SET_MEMORY, SET_IRQS, VRING_ADDR, SETOFFLOAD, FIONBIO])
      only(["main"], ["ioctl", 5, request]);
    only(["main"], ["sendmsg", 5], ["recvfrom", 5], ["wait4"]);
  });

  it("descriptors, timers, handlers of signals and limits are the main thread's", () => {
    only(["main"], ["eventfd2"], ["pipe2"], ["epoll_create1"], ["timer_create"], ["timer_settime"], ["fcntl", 5, 3]);
    only(["main"], ["rt_sigaction", 15], ["prlimit64", 0, 7, 0]);
    only(["main", "vcpu", "node"], ["epoll_wait", 5], ["epoll_ctl", 5], ["poll"]);
  });

  it("signals are sent to this process by those who have to wake others", () => {
    only(["main", "vcpu"], ["tgkill", PID, PID, 40], ["kill", PID, 15]);
    only([], ["tgkill", 1, 1, 40], ["kill", 1, 15], ["kill", -1, 15]);
  });

  it("each can say which call it is refused, and put the terminal back", () => {
    for (const kind of OTHERS) {
      assert.ok(isAllowed(kind, ["write", 2, 0, 80]) && isAllowed(kind, ["ioctl", 0, TCSETS]), kind);
      assert.ok(isAllowed(kind, ["prctl", 16]) && isAllowed(kind, ["gettid"]), kind);
      for (const call of [
        ["write", 1, 0, 80],
        ["ioctl", 1, TCSETS],
        ["ioctl", 0, 0x5412],
      ] as const)
        assert.equal(isAllowed(kind, call), kind === "pool" && call[0] === "write", `${kind} ${call.join(" ")}`);
    }
  });

  it("none but the main thread's has anything that it has not", () => {
    for (const phase of PHASES) {
      for (const kind of OTHERS) {
        for (const name of ["io_uring_enter", "openat", "getcwd", "dup", "sendto", "setns", "sendfile", "splice"]) {
          if (answer(kind, phase, [name, 0]) === ALLOW) assert.equal(answer("main", phase, [name, 0]), ALLOW, name);
        }
      }
    }
    assert.equal(answer("node", "running", ["openat"]), SECCOMP_RET_TRAP);
  });

  it("where nobody knows which is which, they have what any of them has", () => {
    for (const phase of PHASES) {
      for (const name of [
        "socket",
        "sendmsg",
        "accept4",
        "eventfd2",
        "timer_create",
        "rt_sigaction",
        "seccomp",
        "clone",
      ])
        assert.equal(answer("any", phase, [name, 15]), SECCOMP_RET_TRAP, name);
      for (const call of [
        ["ioctl", 5, RUN],
        ["pwrite64", 5],
        ["epoll_wait", 5],
        ["tgkill", PID, PID, 40],
      ] as const)
        assert.equal(answer("any", phase, call), ALLOW, call.join(" "));
      assert.equal(answer("any", phase, ["ioctl", 5, IRQFD]), SECCOMP_RET_TRAP);
    }
  });

  it("a filter is no longer than what its VM needs", () => {
    const length = (kind: ThreadKind, needs: Needs): number => allowedCalls(kind, "running", PID, needs).length;
    assert.ok(length("main", NO_NEEDS) < length("main", ALL_NEEDS));
    for (const kind of OTHERS) assert.equal(length(kind, NO_NEEDS), length(kind, ALL_NEEDS), kind);
  });
});
