// Somebody who owns the monitor's process: loaded into it by NODE_OPTIONS=--require, waits until the guest has written, which is behind the
// seal, makes the calls that VMLET_ATTACKS names, and says "reached" or the error of each. VMLET_VICTIM: id of another process, VMLET_FILE: a file
// that may go. VMLET_MOMENT=seal: it does not wait for the guest, but for the seal.
"use strict";
const fs = require("node:fs");
const threads = require("node:worker_threads");

const koffi = { exports: {} };
process.dlopen(koffi, process.env.VMLET_KOFFI);
const libc = koffi.exports.load(null);
const words = ["int64_t", "int64_t", "int64_t", "int64_t", "int64_t", "int64_t", "int64_t"];
const call = libc.func("syscall", "int64_t", words);
const mmap = libc.func("mmap", "int64_t", ["int64_t", "size_t", "int", "int", "int", "int64_t"]);
const onThread = (number, ...given) =>
  new Promise((resolve) => call.async(number, ...fill(given), (_error, result) => resolve(result)));
const fill = (given) => [...given, ...Array(6 - given.length).fill(0)];

/** Memory that the kernel may read and write, and machine code. */
const page = mmap(0, 8192, 7, 0x22, -1, 0);
const bytes = Buffer.from(koffi.exports.view(page, 8192));
const text = (value, at = 0) => {
  bytes.write(`${value}\0`, at, "latin1");
  return page + at;
};
const words64 = (values, at = 0) => {
  values.forEach((value, i) => bytes.writeBigInt64LE(BigInt(value), at + 8 * i));
  return page + at;
};
const zeroFd = fs.openSync("/dev/zero", "r+");
const victim = Number(process.env.VMLET_VICTIM);
const victimFolder = `/proc/${victim}`;
const file = process.env.VMLET_FILE;
const AT_FDCWD = -100;
const [EPERM, ENOENT, EINTR, E2BIG, EFAULT, EINVAL, ENOTTY, ENOSYS] = [1, 2, 4, 7, 14, 22, 25, 38];
const kvm = fs.openSync("/dev/kvm", "r+");
const errno = () => koffi.exports.errno();
const raw = (number, ...given) => call(number, ...fill(given));
/** The kernel has looked at the call, and has said this of what it is given. */
const looked = (result, ...errors) => (result >= 0 || errors.includes(errno()) ? 0 : -1);
/** mov eax, number; xor ebx, ebx; int 0x80; ret */
const call32 = (number) => {
  bytes.set([0x53, 0xb8, number, 0, 0, 0, 0x31, 0xdb, 0xcd, 0x80, 0x5b, 0x48, 0x98, 0xc3], 4096);
  return Number(koffi.exports.call(BigInt(page + 4096), koffi.exports.proto("int64_t probe()")));
};

// What has no privileges to lose needs none: with the jail off, all of these go through.
const ATTACKS = {
  "a file is read": () => fs.readFileSync("/etc/passwd").length,
  "a file is opened by another call": () => raw(2, text("/etc/passwd"), 0),
  "a file is opened by openat2": () => raw(437, AT_FDCWD, text("/etc/passwd"), words64([0, 0, 0], 256), 24),
  "a file is made": () => raw(85, text(file), 0o600),
  "a file gets other rights": () => raw(90, text(file), 0o777),
  "a file is renamed": () => raw(82, text(file), text(`${file}.new`, 512)),
  "a file is removed": () => raw(87, text(`${file}.new`)),
  "a folder is made": () => raw(83, text(`${file}.folder`), 0o700),
  "a link is made": () => raw(88, text("/etc/passwd"), text(`${file}.link`, 512)),
  "memory of another process is opened": () => fs.openSync(`${victimFolder}/mem`, "r+"),
  "memory of another process is read": () =>
    raw(310, victim, words64([page + 2048, 8], 256), 1, words64([Number(process.env.VMLET_ADDRESS), 8], 512), 1, 0),
  "a control group is read": () => fs.readFileSync(`${victimFolder}/cgroup`).length,
  "a descriptor of another process is taken": () => raw(434, victim, 0),
  "a process is forked": () => raw(57) || raw(231, 0),
  "a process is cloned": () => raw(56, 17, 0, 0, 0, 0) || raw(231, 0),
  "a program is started": () => require("node:child_process").spawnSync("true").status ?? -1,
  // No such program: with the jail off, the kernel looks for it.
  "this program becomes another": () => looked(raw(59, text("/nonexistent"), 0, 0), ENOENT),
  "another process is signalled": () => raw(62, victim, 0),
  "all processes are signalled": () => raw(62, -1, 0),
  "a thread of another process is signalled": () => raw(234, victim, victim, 0),
  "a signal is queued": () => raw(297, victim, victim, 0, words64([0, 0xffff_ffff, 0, 0], 256)),
  "another process is traced": () => raw(101, 0x4206, victim, 0, 0),
  "a socket is made": () => raw(41, 2, 1, 0),
  "a pair of sockets is made": () => raw(53, 1, 1, 0, page),
  "memory that is a file is made": () => raw(319, text("name"), 0),
  "a file becomes memory": () => raw(9, 0, 4096, 1, 2, zeroFd, 0),
  "machine code becomes memory": () => raw(9, 0, 4096, 5, 0x22, -1, 0),
  "capabilities are set": () => {
    words64([0, 0, 0, 0], 256);
    bytes.writeUInt32LE(0x20080522, 256);
    raw(125, page + 256, page + 512);
    return raw(126, page + 256, page + 512);
  },
  "a user is set": () => raw(105, 0),
  "a namespace is entered": () => raw(272, 0x2_0000),
  "something is mounted": () => raw(165, text("none"), text("/", 64), 0, 0x4_4000, 0),
  "the root is changed": () => raw(161, text("/")),
  "a key is looked for": () => raw(250, 0, -3, 1),
  "a program for the kernel is loaded": () => looked(raw(321, 5, 0, 0), E2BIG, EINVAL, EFAULT, EPERM),
  "page faults are taken": () => raw(323, 1),
  "another ring of requests is made": () => raw(425, 1, words64(Array(15).fill(0), 256)),
  "the log of the kernel is read": () => raw(103, 10, 0, 0),
  "a VM is made": () => {
    const make = () => raw(16, kvm, 0xae01, 0);
    let result = make();
    // KVM gives up making one when a signal comes, and says EINTR.
    for (let tries = 0; result < 0 && errno() === EINTR && tries < 20; tries++) result = make();
    return result;
  },
  "the terminal is typed into": () => looked(raw(16, zeroFd, 0x5412, page), ENOTTY),
  "limits are raised": () => raw(302, 0, 7, words64([1024, 1024], 256), 0),
  "another filter is installed": () => looked(raw(157, 22, 2, 0), EFAULT),
  "dumps are allowed": () => raw(157, 4, 1),
  "a call goes another way, of 32 bits": () => call32(20),
  // A kernel without it says so.
  "a call goes another way, of x32": () => looked(raw(0x4000_0000 + 39), ENOSYS),
  "the handler of refused calls is taken away": () => {
    words64([1, 0x0400_0000, 0, 0], 256);
    raw(13, 31, page + 256, 0, 8);
    return raw(41, 2, 1, 0);
  },
  "another thread makes a socket": () => onThread(41, 2, 1, 0),
  // What another kind of thread does all the time, with an answer of the kernel's here.
  "a vCPU is run": () => looked(raw(16, zeroFd, 0xae80, 0), ENOTTY),
  "a thread of the pool runs a vCPU": () => onThread(16, zeroFd, 0xae80, 0).then((result) => Math.min(0, result + 1)),
  "a thread of the pool signals another": () => onThread(234, process.pid, process.pid, 0),
  "a thread of the pool makes a timer": () => onThread(222, 1, 0, words64([0], 256)),
  "a descriptor is made": () => raw(290, 0, 0),
  "a timer is made": () => raw(222, 1, 0, words64([0], 256)),
  "a file that is open is written": () => raw(18, zeroFd, page, 8, 0),
  "a file that is open is read": () => raw(17, zeroFd, page, 8, 0),
  "an interrupt is wired": () => looked(raw(16, zeroFd, 0x4020ae76, page), ENOTTY),
  "a handler of signals is set": () => raw(13, 40, 0, 0, 8),
};

async function attack(name) {
  let answer = "reached";
  try {
    const result = await ATTACKS[name]();
    if (result < 0) answer = `errno ${errno()}`;
  } catch (error) {
    answer = error.code ?? String(error);
  }
  fs.writeSync(1, `${name}: ${answer}\n`);
}

async function attackAll(names) {
  for (const name of names) await attack(name);
  raw(231, 0);
}

const names = JSON.parse(process.env.VMLET_ATTACKS);
if (process.env.VMLET_THREAD === "vcpu") {
  const { Worker } = threads;
  threads.Worker = class extends Worker {
    constructor(program, options) {
      super(program, { ...options, env: process.env, execArgv: ["--require", __filename] });
    }
  };
  // A thread that runs the first vCPU looks at the time when it begins.
  if (!threads.isMainThread)
    process.hrtime.bigint = () => {
      // It turns no loop any more.
      for (const name of names) {
        const result = ATTACKS[name]();
        fs.writeSync(1, `${name}: ${result < 0 ? `errno ${errno()}` : "reached"}\n`);
      }
      raw(231, 0);
    };
} else if (threads.isMainThread && process.env.VMLET_MOMENT === "seal") {
  const status = fs.openSync("/proc/self/status", "r");
  const look = () => {
    const length = fs.readSync(status, bytes, 0, 4096, 0);
    if (/^Seccomp:\t2/m.test(bytes.toString("latin1", 0, length))) void attackAll(names);
    else setImmediate(look).unref();
  };
  look();
} else if (threads.isMainThread) {
  const { write } = fs;
  fs.write = () => {
    fs.write = write;
    void attackAll(names);
  };
}
