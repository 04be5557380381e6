// Needs: virtiofsd (Debian package qemu-system-common) and the right to start it for most tests; skipped without. A shared
// folder's server, asked by a driver that sends what it likes.
import assert from "node:assert/strict";
import {
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readSync,
  rmSync,
  statSync,
  symlinkSync,
  unlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { FsDevice } from "../../devices/virtio/fs/device.js";
import { MappedGuestMemory } from "../../vmm/memory/guest-memory.js";
import { MIB } from "../../vmm/memory/layout.js";
import { sharedMemory } from "../../vmm/sys/shared-memory.js";
import { SharedFolder } from "../../vmm/virtio/backends/shared-folder.js";
import { findFolders, startVirtiofsd } from "../../vmm/virtio/backends/virtiofsd.js";
import type { VirtiofsdFolder } from "../../vmm/virtio/backends/virtiofsd-command.js";
import { unguarded } from "../../vmm/virtio/guard.js";
import { FakeLoop } from "../helpers/fake-loop.js";
import {
  fields,
  FuseDriver,
  FUSE_CREATE,
  FUSE_LINK,
  FUSE_LOOKUP,
  FUSE_READ,
  FUSE_MKDIR,
  FUSE_MKNOD,
  FUSE_FORGET,
  FUSE_OPEN,
  FUSE_READLINK,
  FUSE_RELEASE,
  FUSE_RENAME,
  FUSE_SETATTR,
  FUSE_SYMLINK,
  FUSE_UNLINK,
  FUSE_WRITE,
  ROOT,
} from "../helpers/fuse-driver.js";
import { restoreSaved, saveQuiet } from "../helpers/restored.js";
import { shareProblem } from "../helpers/share-guard.js";
import { serversOf } from "../helpers/share-servers.js";
import { skip } from "../helpers/skip.js";
import { virtioMachine } from "../helpers/virtio-machine.js";

const ENOENT = -2;
const EROFS = -30;
const ENOTCONN = -107;
const O_WRONLY_TRUNC = 0o1001;
const S_IFBLK = 0o60000;

async function until(what: string, isTrue: () => boolean): Promise<void> {
  const end = performance.now() + 20_000;
  while (!isTrue()) {
    assert.ok(performance.now() < end, what);
    await sleep(5);
  }
}

/** proc(5): T in /proc/PID/task/TID/stat. */
function isStopped(pid: number): boolean {
  const tasks = `/proc/${String(pid)}/task`;
  return readdirSync(tasks).every((thread) => readFileSync(`${tasks}/${thread}/stat`, "latin1").includes(") T "));
}

describe("virtiofsd: what cannot be shared", () => {
  const find = (...paths: string[]): unknown =>
    findFolders(paths.map((path) => ({ path, tag: "x", isReadonly: false })));

  before(function () {
    const reason = shareProblem();
    if (reason !== undefined) skip(this, reason);
  });

  it("folders that are not there, or are none: says so of all, and leaves nothing", () => {
    const before = readdirSync("/proc/self/fd").length;
    const message =
      "Shared folder /nowhere/x: no such file or folder (ENOENT)\nShared folder /dev/null is neither a folder nor a file";
    assert.throws(() => find("/nowhere/x", "/tmp", "/etc/passwd", "/dev/null"), { code: "ERR_CONFIG", message });
    assert.equal(readdirSync("/proc/self/fd").length, before);
  });
});

describe("virtiofsd: a shared folder", () => {
  let top: string;
  /** With what options, and a shell, would take for something else. */
  let folder: string;
  const closes: (() => void)[] = [];

  before(function () {
    const reason = shareProblem();
    if (reason !== undefined) skip(this, reason);
  });
  beforeEach(() => {
    top = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    folder = join(top, "a,b \\ ü'$(x)");
    mkdirSync(join(folder, "sub"), { recursive: true });
    writeFileSync(join(top, "secret"), "secret");
    writeFileSync(join(folder, "file"), "content");
    symlinkSync(join(top, "secret"), join(folder, "link"));
    symlinkSync("..", join(folder, "up"));
  });
  afterEach(() => {
    for (const close of closes.splice(0)) close();
    rmSync(top, { recursive: true });
  });

  function share(isReadonly = false, file?: string, isJournaled = false) {
    const memory = MappedGuestMemory.mapShared(sharedMemory("test", 16 * MIB), 16 * MIB);
    closes.push(() => {
      memory.unmap();
    });
    const shared = shareOver(memory, { path: file ?? folder, isReadonly, isFile: file !== undefined }, isJournaled);
    return { ...shared, fuse: new FuseDriver(shared.machine.driver, memory) };
  }

  function shareOver(memory: MappedGuestMemory, what: VirtiofsdFolder, isJournaled = false) {
    const server = startVirtiofsd(what, isJournaled);
    const log: string[] = [];
    const wired: string[] = [];
    const callFds: number[] = [];
    /** How often the driver would have been interrupted since this was last asked. */
    const signals = (): number => {
      const count = Buffer.alloc(8);
      return callFds.reduce((all, fd) => {
        try {
          return readSync(fd, count) === 8 ? all + Number(count.readBigUInt64LE()) : all;
        } catch {
          return all;
        }
      }, 0);
    };
    const backend = new SharedFolder(server, {
      memory,
      guard: unguarded,
      events: {
        connectKick: (queueIndex) => wired.push(`kick ${String(queueIndex)}`),
        connectInterrupt: (queueIndex, fd) => {
          wired.push(`interrupt ${String(queueIndex)}`);
          callFds.push(fd);
        },
      },
      ended: (why) => log.push(why),
    });
    const device = new FsDevice({ name: "share0", tag: Buffer.from("x"), backend });
    const machine = virtioMachine(device, new FakeLoop(), memory);
    closes.unshift(() => {
      device.reset();
      backend.close();
    });
    return {
      server,
      machine,
      device,
      log,
      wired,
      memory,
      backend,
      signals,
    };
  }

  it("is read and written, and is itself all that can be reached", async () => {
    const { fuse, wired, log } = share();
    assert.equal((await fuse.init()).error, 0);
    assert.deepEqual(wired, ["kick 0", "kick 1", "interrupt 0", "interrupt 1"]);
    const file = await fuse.lookUp(ROOT, "file");
    assert.equal((await fuse.read(file, 100)).body.toString(), "content");
    assert.equal(await fuse.lookUp(ROOT, "none"), BigInt(ENOENT));
    // A name is one name, and the folder above the shared one is not there.
    for (const name of ["../secret", "sub/../../secret", "/etc/passwd", `${"../".repeat(20)}etc/passwd`]) {
      assert.ok((await fuse.lookUp(ROOT, name)) < 0n, name);
    }
    const root = await fuse.lookUp(ROOT, "..");
    if (root > 0n) assert.equal(await fuse.lookUp(root, "secret"), BigInt(ENOENT));
    // Links are the guest's to follow: here they are only read.
    const link = await fuse.lookUp(ROOT, "link");
    assert.equal((await fuse.ask(FUSE_READLINK, link, fields())).body.toString(), join(top, "secret"));
    assert.ok((await fuse.read(link, 100)).error < 0);
    assert.ok((await fuse.ask(FUSE_OPEN, link, fields(O_WRONLY_TRUNC, 0))).error < 0);
    assert.ok((await fuse.lookUp(await fuse.lookUp(ROOT, "up"), "secret")) < 0n);
    for (const node of [0n, 77n, 2n ** 63n]) assert.ok((await fuse.lookUp(node, "file")) < 0n, String(node));
    const made = await fuse.ask(FUSE_CREATE, ROOT, fields(0o101, 0o644, 0, 0, "new"));
    const [node, handle] = [made.body.readBigUInt64LE(), made.body.readBigUInt64LE(128)];
    await fuse.ask(FUSE_WRITE, node, fields(handle, 0n, 3, 0, 0n, 0, 0, Buffer.from("abc")));
    assert.equal(readFileSync(join(folder, "new"), "utf8"), "abc");
    for (const name of ["../new", "sub/new"]) {
      assert.ok((await fuse.ask(FUSE_CREATE, ROOT, fields(0o101, 0o644, 0, 0, name))).error < 0, name);
    }
    // No device of this host.
    assert.equal((await fuse.ask(FUSE_MKNOD, ROOT, fields(S_IFBLK | 0o666, 0x800, 0, 0, "disk"))).error, -1);
    assert.deepEqual(readdirSync(folder).sort(), ["file", "link", "new", "sub", "up"]);
    assert.deepEqual(readdirSync(top).length, 2);
    assert.deepEqual(log, []);
  });

  it("its socket needs no place: there may be none for temporary files", async () => {
    const { TMPDIR } = process.env;
    try {
      process.env["TMPDIR"] = "/nowhere";
      const { fuse } = share();
      await fuse.init();
      assert.equal((await fuse.read(await fuse.lookUp(ROOT, "file"), 100)).body.toString(), "content");
    } finally {
      if (TMPDIR === undefined) delete process.env["TMPDIR"];
      else process.env["TMPDIR"] = TMPDIR;
    }
  });

  it("nodes and handles of a driver that is saved are another server's, too, as long as what it has found is the same", async () => {
    writeFileSync(join(folder, "own"), "one");
    const { memory, machine, fuse, backend } = share(false, undefined, true);
    await fuse.init();
    const sub = await fuse.lookUp(ROOT, "sub");
    const file = await fuse.lookUp(ROOT, "file");
    const link = await fuse.lookUp(ROOT, "link");
    const own = await fuse.lookUp(ROOT, "own");
    assert.equal(await fuse.lookUp(sub, "odd \\ ) -> 7"), BigInt(ENOENT));
    assert.equal((await fuse.ask(FUSE_READLINK, link, fields())).error, 0);
    const opened = async (node: bigint) => (await fuse.ask(FUSE_OPEN, node, fields(0, 0))).body.readBigUInt64LE();
    const [first, second] = [await opened(own), await opened(file)];
    assert.notEqual(first, second);
    await fuse.ask(FUSE_RELEASE, own, fields(first, 0, 0, 0n));
    assert.equal(await opened(file), first, "the place that became free");
    assert.equal((await fuse.ask(FUSE_FORGET, link, fields(1n))).error, 0);
    const state = await saveQuiet(machine);
    backend.close();
    const goOn = (path: string) => {
      const next = shareOver(memory, { path, isReadonly: false, isFile: false });
      restoreSaved(next.machine, state);
      next.machine.transport.unquiesce();
      machine.driver.notify = (queueIndex) => {
        next.machine.transport.notify(queueIndex);
      };
      return next;
    };
    const next = goOn(folder);
    for (const handle of [first, second]) {
      const { body } = await fuse.ask(FUSE_READ, file, fields(handle, 0n, 100, 0, 0n, 0, 0));
      assert.equal(body.toString(), "content");
    }
    assert.equal(await fuse.lookUp(ROOT, "file"), file);
    assert.equal(await fuse.lookUp(sub, "new"), BigInt(ENOENT));
    assert.notEqual(next.device.whyNotSaved(), undefined, "this server writes nothing down");
    next.backend.close();
    const why = { name: "SnapshotError", message: /is not what it was when the guest was saved/ };
    // Nobody had opened it: what is in a folder's top is another guest's own.
    writeFileSync(join(folder, "link2"), "");
    goOn(folder).backend.close();
    writeFileSync(join(folder, "sub", "odd \\ ) -> 7"), "there now");
    assert.throws(() => goOn(folder), why);
    unlinkSync(join(folder, "sub", "odd \\ ) -> 7"));
    goOn(folder).backend.close();
    writeFileSync(join(folder, "file"), "contenT");
    assert.throws(() => goOn(folder), why);
  });

  it("a driver whose requests cannot be repeated is not saved", async () => {
    const changing = share(false, undefined, true);
    await changing.fuse.init();
    await changing.fuse.ask(FUSE_CREATE, ROOT, fields(0o101, 0o644, 0, 0, "new"));
    assert.match(changing.device.whyNotSaved() ?? "", /the guest has used it/);
    const twice = share(false, undefined, true);
    await twice.fuse.init();
    const file = await twice.fuse.lookUp(ROOT, "file");
    const handles: bigint[] = [];
    for (let i = 0; i < 2; i++) {
      handles.push((await twice.fuse.ask(FUSE_OPEN, file, fields(0, 0))).body.readBigUInt64LE());
    }
    assert.equal(twice.device.whyNotSaved(), undefined);
    // Which of them it is, nobody has said.
    await twice.fuse.ask(FUSE_RELEASE, file, fields(handles[1] ?? 0n, 0, 0, 0n));
    assert.match(twice.device.whyNotSaved() ?? "", /the guest has used it/);
  });

  it("a driver that goes on from a saved state finds another server of another folder, at the entry where it was", async () => {
    const first = share();
    const { memory, machine, device, fuse } = first;
    const other = join(top, "other");
    mkdirSync(other);
    writeFileSync(join(other, "file"), "of another folder");
    assert.equal(device.whyNotSaved(), undefined);
    const state = await saveQuiet(machine);
    first.backend.close();
    const goOn = (saved: typeof state) => {
      const next = shareOver(memory, { path: other, isReadonly: true, isFile: false });
      restoreSaved(next.machine, saved);
      next.machine.transport.unquiesce();
      machine.driver.notify = (queueIndex) => {
        next.machine.transport.notify(queueIndex);
      };
      return next;
    };
    const second = goOn(state);
    assert.deepEqual(second.wired, []);
    assert.equal(second.device.whyNotSaved(), undefined, "the server alone changes nothing");
    const begun = await fuse.init();
    assert.equal(begun.error, 0);
    // Nothing but that: another server begins the session again by itself.
    assert.equal(second.device.whyNotSaved(), undefined);
    const after = await saveQuiet(second.machine);
    second.backend.close();
    const third = goOn(after);
    assert.deepEqual(third.wired, ["kick 0", "kick 1", "interrupt 0", "interrupt 1"]);
    const file = await fuse.lookUp(ROOT, "file");
    assert.equal((await fuse.read(file, 100)).body.toString(), "of another folder");
    assert.equal((await fuse.ask(FUSE_OPEN, file, fields(O_WRONLY_TRUNC, 0))).error, EROFS);
    assert.ok(third.signals() > 0);
    assert.notEqual(third.device.whyNotSaved(), undefined);
    third.backend.close();

    // A state that says so of a session that was used: the server takes up the queue behind what is answered.
    const fourth = goOn(after);
    assert.ok((await fuse.lookUp(ROOT, "file")) > 0n);
    assert.equal(await fuse.lookUp(ROOT, "none"), BigInt(ENOENT));
    const log = [first, second, third, fourth].flatMap((one) => one.log);
    assert.deepEqual(log, []);
    fourth.backend.close();

    // One that does not begin as it should is no server.
    const odd = Buffer.from((after.device as { init: string }).init, "base64");
    odd.writeUInt32LE(6, 40);
    const fifth = goOn({ ...after, device: { init: odd.toString("base64") } });
    assert.equal(fifth.log.length, 1);
    assert.match(fifth.log[0] ?? "", /^virtiofsd does not take up what the guest has begun/);
    assert.equal((await fuse.ask(FUSE_LOOKUP, ROOT, fields("file"))).error, ENOTCONN);
  });

  it("read-only: nothing can be changed in it, whatever the driver asks for", async () => {
    const before = statSync(join(folder, "file"));
    const { fuse, log } = share(true);
    assert.equal((await fuse.init()).error, 0);
    const file = await fuse.lookUp(ROOT, "file");
    const sub = await fuse.lookUp(ROOT, "sub");
    assert.equal((await fuse.read(file, 100)).body.toString(), "content");
    const setMode = Buffer.alloc(88);
    setMode.writeUInt32LE(1, 0);
    setMode.writeUInt32LE(0o100777, 68);
    const setSize = Buffer.alloc(88);
    setSize.writeUInt32LE(8, 0);
    const requests: [what: string, opcode: number, node: bigint, body: Buffer][] = [
      ["create", FUSE_CREATE, ROOT, fields(0o101, 0o644, 0, 0, "new")],
      ["open to write", FUSE_OPEN, file, fields(1, 0)],
      ["truncate", FUSE_OPEN, file, fields(O_WRONLY_TRUNC, 0)],
      ["mode", FUSE_SETATTR, file, setMode],
      ["size", FUSE_SETATTR, file, setSize],
      ["mkdir", FUSE_MKDIR, sub, fields(0o755, 0, "d")],
      ["fifo", FUSE_MKNOD, ROOT, fields(0o10644, 0, 0, 0, "fifo")],
      ["symlink", FUSE_SYMLINK, ROOT, fields("s", "file")],
      ["link", FUSE_LINK, ROOT, fields(file, "hard")],
      ["rename", FUSE_RENAME, ROOT, fields(sub, "file\0file")],
      ["unlink", FUSE_UNLINK, ROOT, fields("file")],
    ];
    for (const [what, opcode, node, body] of requests) {
      assert.equal((await fuse.ask(opcode, node, body)).error, EROFS, what);
    }
    const after = statSync(join(folder, "file"));
    assert.deepEqual([after.mode, after.size, after.mtimeMs], [before.mode, before.size, before.mtimeMs]);
    assert.deepEqual(readdirSync(folder).sort(), ["file", "link", "sub", "up"]);
    // Only there: this process writes as before.
    writeFileSync(join(folder, "own"), "x");
    assert.deepEqual(log, []);
  });

  it("a file alone: in a folder of its own, in which nothing else is or can be made", async () => {
    const name = "a, name\nof 'two' lines \\";
    const path = join(folder, name);
    writeFileSync(path, "content");
    const { fuse, log } = share(false, path);
    assert.equal((await fuse.init()).error, 0);
    const file = await fuse.lookUp(ROOT, name);
    assert.equal((await fuse.read(file, 100)).body.toString(), "content");
    const opened = await fuse.ask(FUSE_OPEN, file, fields(O_WRONLY_TRUNC, 0));
    const written = fields(opened.body.readBigUInt64LE(), 0n, 3, 0, 0n, 0, 0, Buffer.from("new"));
    assert.equal((await fuse.ask(FUSE_WRITE, file, written)).error, 0);
    assert.equal(readFileSync(path, "utf8"), "new");
    for (const other of ["file", "link", "up", "sub", "../secret", "../file"]) {
      assert.ok((await fuse.lookUp(ROOT, other)) < 0n, other);
    }
    const requests: [what: string, opcode: number, node: bigint, body: Buffer][] = [
      ["create", FUSE_CREATE, ROOT, fields(0o101, 0o644, 0, 0, "new")],
      ["mkdir", FUSE_MKDIR, ROOT, fields(0o755, 0, "d")],
      ["symlink", FUSE_SYMLINK, ROOT, fields("s", "x")],
      ["unlink", FUSE_UNLINK, ROOT, fields(name)],
    ];
    for (const [what, opcode, node, body] of requests) {
      assert.ok((await fuse.ask(opcode, node, body)).error < 0, what);
    }
    assert.equal(readFileSync(path, "utf8"), "new");
    assert.deepEqual(log, []);
  });

  it("a file alone, read-only: it cannot be changed", async () => {
    const path = join(folder, "file");
    const { fuse, log } = share(true, path);
    assert.equal((await fuse.init()).error, 0);
    const file = await fuse.lookUp(ROOT, "file");
    assert.equal((await fuse.read(file, 100)).body.toString(), "content");
    const setMode = Buffer.alloc(88);
    setMode.writeUInt32LE(1, 0);
    setMode.writeUInt32LE(0o100777, 68);
    for (const [opcode, body] of [
      [FUSE_OPEN, fields(O_WRONLY_TRUNC, 0)],
      [FUSE_OPEN, fields(1, 0)],
      [FUSE_SETATTR, setMode],
    ] as const) {
      assert.equal((await fuse.ask(opcode, file, body)).error, EROFS);
    }
    // On this host it is as it was.
    writeFileSync(path, "later");
    assert.equal((await fuse.read(file, 100)).body.toString(), "later");
    assert.deepEqual(log, []);
  });

  it("names of any bytes, and of 255, are what they are on both sides", async () => {
    const { fuse, log } = share();
    assert.equal((await fuse.init()).error, 0);
    const names = [
      Buffer.from([0xff, 0xfe, 0x80, 0x41]),
      Buffer.from("line\nbreak\t\x01\x7f"),
      Buffer.alloc(255, "n"),
      Buffer.from("-rf *$(x)\\ \"'"),
    ];
    for (const name of names) {
      const given = Buffer.concat([name, Buffer.of(0)]);
      assert.equal((await fuse.ask(FUSE_CREATE, ROOT, fields(0o101, 0o644, 0, 0, given))).error, 0);
      assert.ok((await fuse.ask(FUSE_LOOKUP, ROOT, given)).error === 0, name.toString("latin1"));
    }
    const there = readdirSync(folder, { encoding: "buffer" }).map((name) => name.toString("latin1"));
    for (const name of names) assert.ok(there.includes(name.toString("latin1")), name.toString("latin1"));
    assert.ok((await fuse.lookUp(ROOT, "n".repeat(256))) < 0n);
    assert.deepEqual(log, []);
  });

  it("a folder that goes while it is shared is empty from then on, and takes nothing with it", async () => {
    const { fuse, log } = share();
    assert.equal((await fuse.init()).error, 0);
    const file = await fuse.lookUp(ROOT, "file");
    const opened = await fuse.ask(FUSE_OPEN, file, fields(0, 0));
    rmSync(folder, { recursive: true });
    // What is open stays, as on this host.
    const read = fields(opened.body.readBigUInt64LE(), 0n, 100, 0, 0n, 0, 0);
    assert.equal((await fuse.ask(FUSE_READ, file, read)).body.toString(), "content");
    assert.equal(await fuse.lookUp(ROOT, "file"), BigInt(ENOENT));
    assert.ok((await fuse.ask(FUSE_CREATE, ROOT, fields(0o101, 0o644, 0, 0, "new"))).error < 0);
    // Another one in its place is another one.
    mkdirSync(folder);
    writeFileSync(join(folder, "later"), "x");
    assert.equal(await fuse.lookUp(ROOT, "later"), BigInt(ENOENT));
    assert.deepEqual(log, []);
  });

  it("a driver that resets the device finds it again", async () => {
    const { machine, memory, log, wired } = share();
    for (let times = 0; times < 3; times++) {
      const fuse = new FuseDriver(machine.driver, memory);
      assert.equal((await fuse.init()).error, 0, String(times));
      assert.equal((await fuse.read(await fuse.lookUp(ROOT, "file"), 9)).body.toString(), "content");
    }
    assert.deepEqual(wired, ["kick 0", "kick 1", "interrupt 0", "interrupt 1"]);
    assert.deepEqual(log, []);
  });

  it("its interrupts go past this thread, or through it while the guest rests without one, and none is lost", async () => {
    const { fuse, backend, signals, log } = share();
    assert.equal((await fuse.init()).error, 0);
    await until("the driver is told", () => signals() > 0);
    for (let times = 0; times < 3; times++) {
      let relayed = 0;
      backend.relay(() => relayed++);
      // All of before has come by now.
      signals();
      assert.equal((await fuse.read(await fuse.lookUp(ROOT, "file"), 9)).error, 0);
      await until("it is told here", () => relayed > 0);
      assert.equal(signals(), 0);
      backend.relay(undefined);
      assert.equal((await fuse.read(await fuse.lookUp(ROOT, "file"), 9)).error, 0);
      await until("the driver is told", () => signals() > 0);
    }
    assert.deepEqual(log, []);
  });

  it("rings that lie outside RAM never reach it", () => {
    const { machine, log } = share();
    const { driver } = machine;
    driver.negotiate();
    const queue = { size: 8, descriptorGpa: 16 * MIB - 64, availableGpa: 0x1000, usedGpa: 0x2000 };
    assert.ok(!driver.announceQueue(1, queue));
    assert.match(
      machine.log.join(),
      /Descriptor table at 0xffffc0, 128 bytes, is not in RAM; the device needs a reset$/,
    );
    assert.deepEqual(log, []);
  });

  it("killed: one line, and the driver gets errors, also for what was under way", async () => {
    const { server, fuse, log, device } = share();
    assert.equal((await fuse.init()).error, 0);
    const real = serversOf(folder);
    assert.ok(real.length >= 1);
    for (const pid of real) process.kill(pid, "SIGSTOP");
    await until("every thread of it has stopped", () => real.every(isStopped));
    // It has this, and will not answer.
    const answer = fuse.lookUp(ROOT, "file");
    await sleep(20);
    for (const pid of real) process.kill(pid, "SIGKILL");
    assert.equal(await answer, BigInt(ENOTCONN));
    assert.equal(await fuse.lookUp(ROOT, "file"), BigInt(ENOTCONN));
    assert.deepEqual(log, ["virtiofsd has ended"]);
    assert.equal(device.counters.refused, 2);
    await until("it is waited for", () => server.process.exitCode !== null || server.process.signalCode !== null);
  });

  it("stopped: a reset does not wait for it longer than a second, and it is ended", async () => {
    const { fuse, log, machine } = share();
    assert.equal((await fuse.init()).error, 0);
    for (const pid of serversOf(folder)) process.kill(pid, "SIGSTOP");
    const start = performance.now();
    machine.driver.reset();
    assert.ok(performance.now() - start < 5000);
    assert.deepEqual(log, ["virtiofsd does not answer, and is ended"]);
    await until("no process is left", () => serversOf(folder).length === 0);
  });

  it("leaves no process, no descriptor and no file", async () => {
    const { TMPDIR } = process.env;
    const temporary = join(top, "tmp");
    mkdirSync(temporary);
    const before = readdirSync("/proc/self/fd").length;
    process.env["TMPDIR"] = temporary;
    const { fuse } = share();
    if (TMPDIR === undefined) delete process.env["TMPDIR"];
    else process.env["TMPDIR"] = TMPDIR;
    assert.deepEqual(readdirSync(temporary), []);
    assert.equal((await fuse.init()).error, 0);
    for (const close of closes.splice(0)) close();
    await until("no process is left", () => serversOf(folder).length === 0);
    await until("all is closed", () => readdirSync("/proc/self/fd").length === before);
  });
});
