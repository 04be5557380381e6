// Needs: libseccomp2. The filter in ranges says of every call what libseccomp's own says of it.
import assert from "node:assert/strict";
import { SeccompFilter, type FilterCondition } from "../../vmm/sys/seccomp.js";
import { shorten } from "../../vmm/oci/seccomp/shorten.js";
import { SIZEOF_SOCK_FILTER } from "../../vmm/sys/sock-filter.js";

const ALLOW = 0x7fff_0000;
const KILL = 0x8000_0000;
const X86_64 = 0xc000_003e;
const ARCHITECTURES = [X86_64, 0x4000_0003, 0xc000_00b7, 0];
const X32 = 0x4000_0000;
const errno = (number: number): number => 0x0005_0000 | number;

interface Rule {
  readonly name: string;
  readonly action: number;
  readonly conditions?: readonly FilterCondition[];
}

function compile(action: number, rules: readonly Rule[]): Buffer {
  const filter = new SeccompFilter(action);
  try {
    filter.refuseOtherArchitectures(38);
    for (const { name, action: own, conditions = [] } of rules) filter.addRule(name, own, conditions);
    return filter.program();
  } finally {
    filter.close();
  }
}

/** struct seccomp_data: number, architecture, the instruction's address, six arguments. */
function call(number: number, architecture: number, first = 0n, second = 0n): Buffer {
  const data = Buffer.alloc(64);
  data.writeUInt32LE(number, 0);
  data.writeUInt32LE(architecture, 4);
  data.writeBigUInt64LE(first, 16);
  data.writeBigUInt64LE(second, 24);
  return data;
}

/** As the kernel does. Linux: networking/filter.rst */
function run(program: Buffer, data: Buffer): number {
  let accumulator = 0;
  for (let at = 0; ; at++) {
    assert.ok((at + 1) * SIZEOF_SOCK_FILTER <= program.length, "it ends with an action");
    const from = at * SIZEOF_SOCK_FILTER;
    const k = program.readUInt32LE(from + 4);
    const jump = (is: boolean): number => program[from + (is ? 2 : 3)] ?? 0;
    switch (program.readUInt16LE(from)) {
      case 0x20:
        accumulator = data.readUInt32LE(k);
        break;
      case 0x54:
        accumulator = (accumulator & k) >>> 0;
        break;
      case 0x05:
        at += k;
        break;
      case 0x15:
        at += jump(accumulator === k);
        break;
      case 0x25:
        at += jump(accumulator > k);
        break;
      case 0x35:
        at += jump(accumulator >= k);
        break;
      case 0x06:
        return k;
      default:
        assert.fail(`instruction ${program.readUInt16LE(from).toString(16)}`);
    }
  }
}

const ARGUMENTS = [0n, 1n, 7n, 8n, 9n, 0x1fn, 0x20n, 0xffff_ffffn, 0x1_0000_0008n, 0x7e02_0000n, 2n ** 64n - 1n];

function assertSame(long: Buffer, short: Buffer): void {
  const numbers = Array.from({ length: 640 }, (_, number) => number);
  for (const edge of [X32 - 1, X32, X32 + 1, X32 + 39, X32 + 520, 2 ** 31, 2 ** 32 - 2, 2 ** 32 - 1])
    numbers.push(edge);
  for (const number of numbers) {
    for (const architecture of ARCHITECTURES) {
      for (const first of ARGUMENTS) {
        for (const second of architecture === X86_64 ? ARGUMENTS : [0n]) {
          const data = call(number, architecture, first, second);
          const where = `call ${String(number)} of ${architecture.toString(16)} with ${String(first)}, ${String(second)}`;
          if (run(long, data) !== run(short, data)) assert.equal(run(short, data), run(long, data), where);
        }
      }
    }
  }
}

const condition = (index: number, operator: number, value: bigint, valueTwo = 0n): FilterCondition => {
  return { index, operator, value, valueTwo };
};
const [NOT_EQUAL, LESS, EQUAL, GREATER_EQUAL, MASKED] = [1, 2, 4, 5, 7];
const names = (text: string): string[] => text.split(" ");
const MANY = names(
  "read write open close stat fstat lstat poll lseek mmap mprotect munmap brk rt_sigaction rt_sigprocmask ioctl pread64 pwrite64 " +
    "readv writev access pipe select sched_yield mremap msync mincore madvise dup dup2 pause nanosleep getpid socket connect accept " +
    "fork vfork execve exit wait4 kill uname fcntl flock fsync truncate getdents chdir rename mkdir rmdir link unlink symlink chmod " +
    "getuid getgid setuid setgid futex epoll_create getdents64 openat mkdirat newfstatat unlinkat exit_group statx close_range",
);

describe("oci: a shorter filter", function () {
  this.timeout(120_000);

  it("allows and refuses the same calls as the long one, whatever their arguments", () => {
    const rules: Rule[] = [
      ...MANY.map((name) => ({ name, action: ALLOW })),
      ...[0n, 8n, 0x1fn, 0xffff_ffffn].map((value) => ({
        name: "personality",
        action: ALLOW,
        conditions: [condition(0, EQUAL, value)],
      })),
      { name: "clone", action: ALLOW, conditions: [condition(0, MASKED, 0x7e02_0000n)] },
      { name: "clone3", action: errno(38) },
      { name: "setns", action: ALLOW, conditions: [condition(0, GREATER_EQUAL, 8n), condition(1, LESS, 0x20n)] },
      { name: "bpf", action: errno(7), conditions: [condition(1, NOT_EQUAL, 9n)] },
    ];
    const long = compile(errno(1), rules);
    const short = shorten(long);
    assert.ok(short.length < long.length, `${String(short.length)} of ${String(long.length)} bytes`);
    assertSame(long, short);
  });

  it("so where all is allowed but some, where one kills, and where there is no rule", () => {
    for (const rules of [
      names("mkdir mkdirat reboot kexec_load").map((name) => ({ name, action: errno(1) })),
      [{ name: "reboot", action: KILL }],
      [{ name: "personality", action: errno(7), conditions: [condition(0, MASKED, 0xf0n, 0x10n)] }],
      [],
    ]) {
      const long = compile(ALLOW, rules);
      const short = shorten(long);
      assert.ok(short.length <= long.length);
      assertSame(long, short);
    }
  });

  it("leaves a program of another form as it is", () => {
    const long = compile(ALLOW, [{ name: "mkdir", action: errno(1) }]);
    const other = Buffer.from(long);
    // JSET on the number
    other.writeUInt16LE(0x45, 3 * SIZEOF_SOCK_FILTER);
    assert.equal(shorten(other), other);
    const noArchitecture = long.subarray(SIZEOF_SOCK_FILTER);
    assert.equal(shorten(noArchitecture), noArchitecture);
  });
});
