// Needs: /dev/net/tun and the right to make network interfaces; skipped without.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { closeSync, existsSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { Segments } from "../../devices/virtio/segments.js";
import { netmask, openTap, type TapOptions } from "../../vmm/virtio/backends/tap-interface.js";
import { TapBackend } from "../../vmm/virtio/backends/tap.js";
import { HostError } from "../../vmm/errors.js";
import { MappedGuestMemory } from "../../vmm/memory/guest-memory.js";
import { MIB } from "../../vmm/memory/layout.js";
import { IOW } from "../../vmm/sys/ioctl.js";
import { ioctl } from "../../vmm/sys/ioctl-calls.js";
import { skip } from "../helpers/skip.js";
import { tapProblem } from "../helpers/tap-guard.js";

const TUNSETPERSIST = IOW(0x54, 203, 4);
const HOST = { address: "192.0.2.1", prefixLength: 24 };
const GUEST_MAC = [2, 0, 0, 0, 0, 7];
const HEADER = 12;

function refusal(options: TapOptions): HostError {
  try {
    closeSync(openTap(options).fd);
  } catch (error) {
    assert.ok(error instanceof HostError);
    return error;
  }
  assert.fail("was opened");
}

function sysfs(name: string, attribute: string): string {
  return readFileSync(`/sys/class/net/${name}/${attribute}`, "latin1").trim();
}

function segments(...ranges: readonly (readonly [gpa: number, length: number])[]): Segments {
  const list = new Segments(64);
  for (const [gpa, length] of ranges) list.append(gpa, length);
  return list;
}

/** "Who has 192.0.2.1? Tell 192.0.2.7", behind a virtio header. RFC 826. */
function arpRequest(): Uint8Array {
  const frame = [...Array.from({ length: 6 }, () => 0xff), ...GUEST_MAC, 8, 6];
  const arp = [0, 1, 8, 0, 6, 4, 0, 1, ...GUEST_MAC, 192, 0, 2, 7, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1];
  return Uint8Array.from([...Array.from({ length: HEADER }, () => 0), ...frame, ...arp]);
}

describe("netmask", () => {
  it("has as many ones as the prefix is long, from none to all", () => {
    assert.deepEqual(
      [0, 1, 8, 24, 30, 31, 32].map((length) => netmask(length).toString(16)),
      ["0", "80000000", "ff000000", "ffffff00", "fffffffc", "fffffffe", "ffffffff"],
    );
  });
});

describe("tap interface", function () {
  before(function () {
    const problem = tapProblem();
    if (problem !== undefined) skip(this, problem);
  });

  it("auto: makes one, sets it up as told, and it goes when it is closed", () => {
    const tap = openTap({ name: "auto", mtu: 9000, hostAddress: HOST });
    assert.match(tap.name, /^vmlet\d+$/);
    assert.equal(sysfs(tap.name, "mtu"), "9000");
    assert.equal(Number(sysfs(tap.name, "flags")) & 1, 1);
    assert.match(readFileSync("/proc/net/fib_trie", "latin1"), /192\.0\.2\.1\b/);
    closeSync(tap.fd);
    assert.equal(existsSync(`/sys/class/net/${tap.name}`), false);
  });

  it("uses one that exists, sets it up, and leaves it there", () => {
    const made = openTap({ name: "auto" });
    ioctl(made.fd, "TUNSETPERSIST", TUNSETPERSIST, 1);
    closeSync(made.fd);
    const tap = openTap({ name: made.name });
    assert.equal(tap.name, made.name);
    assert.match(refusal({ name: made.name }).message, /in use by another program$/);
    closeSync(tap.fd);
    assert.equal(existsSync(`/sys/class/net/${made.name}`), true);
    const last = openTap({ name: made.name });
    ioctl(last.fd, "TUNSETPERSIST", TUNSETPERSIST, 0);
    closeSync(last.fd);
    assert.equal(existsSync(`/sys/class/net/${made.name}`), false);
  });

  it("says what is wrong, and makes nothing by mistake", () => {
    const missing = refusal({ name: "vmlet-none" });
    assert.match(missing.message, /vmlet-none: no such interface$/);
    assert.match(missing.cure ?? "", /tuntap add/);
    assert.match(refusal({ name: "lo" }).message, /lo: not a TAP interface/);
    for (const name of ["", "a/b", "vmlet%d", "a name", "sixteen-is-a-lot"]) {
      assert.match(refusal({ name }).message, /no interface can have this name/);
    }
    const hostAddress = { address: "192.0.2.300", prefixLength: 24 };
    assert.match(refusal({ name: "auto", hostAddress }).message, /no IPv4 address/);
    assert.match(refusal({ name: "auto", mtu: 10 }).message, /SIOCSIFMTU failed/);
  });
});

describe("tap backend", function () {
  let memory: MappedGuestMemory;
  let tap: TapBackend;
  let ends: string[];

  before(function () {
    const problem = tapProblem();
    if (problem !== undefined) skip(this, problem);
    memory = MappedGuestMemory.map(4 * MIB);
  });
  beforeEach(() => {
    ends = [];
    tap = new TapBackend(openTap({ name: "auto", hostAddress: HOST }), memory, (why) => ends.push(why));
  });
  afterEach(() => tap.close());

  /** Sends the request, cut in two, and returns how long it was for the kernel. */
  function ask(): number {
    const request = arpRequest();
    memory.slice(0x1000, 20).set(request.subarray(0, 20));
    memory.slice(0x9000, request.length - 20).set(request.subarray(20));
    return tap.send(segments([0x1000, 20], [0x9000, request.length - 20]));
  }

  function isReply(gpa: number): boolean {
    return memory.readU16(gpa + HEADER + 12) === 0x0608 && memory.readU8(gpa + HEADER + 21) === 2;
  }

  it("the host's kernel answers a frame out of guest memory, into guest memory", async () => {
    const ready = new Promise<void>((resolve) => tap.watch(resolve));
    assert.equal(ask(), HEADER + 42);
    await ready;
    const buffers = segments([0x2000, 10], [0x3000, 2048]);
    // Besides, the host looks for its neighbours.
    for (let tries = 0; ; tries++) {
      assert.ok(tries < 100, "no reply");
      const length = tap.receive(buffers);
      if (length === 0) await sleep(10);
      memory.slice(0x2000 + 10, 2048).set(memory.slice(0x3000, 2048));
      if (length > 0 && isReply(0x2000)) break;
    }
    assert.deepEqual([...memory.slice(0x2000 + HEADER, 6)], GUEST_MAC);
    assert.deepEqual([...memory.slice(0x2000 + HEADER + 28, 4)], [192, 0, 2, 1]);
  });

  it("is not readable for ever: 0 when there is nothing, and no calls after unwatch", async () => {
    let calls = 0;
    tap.watch(() => calls++);
    ask();
    await sleep(20);
    assert.ok(calls > 0);
    tap.unwatch();
    const before = calls;
    await sleep(20);
    assert.equal(calls, before);
    tap.watch(() => calls++);
    await sleep(20);
    assert.ok(calls > before);
    const buffers = segments([0x2000, 2048]);
    let length = 1;
    for (let count = 0; count < 100 && length > 0; count++) length = tap.receive(buffers);
    assert.equal(length, 0);
  });

  it("a frame goes where the list of buffers says now, not where it said when there was none", async () => {
    const buffers = segments([0x2000, 2048]);
    for (let length = 1; length > 0;) length = tap.receive(buffers);
    memory.slice(0x2000, 64).fill(0xee);
    buffers.dropFirst(1);
    buffers.append(0x3000, 2048);
    ask();
    for (let tries = 0; tap.receive(buffers) <= 0 || !isReply(0x3000); tries++) {
      assert.ok(tries < 100, "no reply");
      await sleep(10);
    }
    assert.deepEqual(
      [...memory.slice(0x2000, 64)],
      Array.from({ length: 64 }, () => 0xee),
    );
  });

  it("a frame longer than the buffers says so, and nothing is written beside them", async () => {
    ask();
    memory.slice(0x2000, 64).fill(0xee);
    for (let tries = 0; ; tries++) {
      assert.ok(tries < 100, "no frame");
      const length = tap.receive(segments([0x2000, 16]));
      if (length > 0) {
        assert.ok(length >= HEADER + 42, String(length));
        break;
      }
      await sleep(10);
    }
    assert.deepEqual(
      [...memory.slice(0x2000 + 16, 16)],
      Array.from({ length: 16 }, () => 0xee),
    );
  });

  it("an interface that is removed has ended, said once; one that is down has a name", () => {
    const { name } = tap;
    execFileSync("ip", ["link", "set", name, "down"]);
    assert.equal(tap.explain(-ask()), `interface ${name} is down (EIO)`);
    assert.deepEqual(ends, []);
    execFileSync("ip", ["link", "del", name]);
    const buffers = segments([0x2000, 2048]);
    assert.equal(tap.receive(buffers), 0);
    assert.ok(ask() < 0);
    assert.equal(tap.receive(buffers), 0);
    let calls = 0;
    tap.watch(() => calls++);
    assert.deepEqual(ends, [`its interface ${name} has been removed`]);
    assert.equal(tap.explain(77), "EBADFD");
    assert.equal(calls, 0);
  });

  it("offloads are set as the driver wants them; errors have names", () => {
    assert.equal(tap.setGuestOffloads({ checksum: true, tso4: true, tso6: true }), 0);
    assert.equal(tap.setGuestOffloads({ checksum: false, tso4: false, tso6: false }), 0);
    assert.equal(tap.explain(tap.setGuestOffloads({ checksum: false, tso4: true, tso6: false })), "EINVAL");
    // Too short for a header: the kernel refuses it.
    assert.equal(tap.explain(-tap.send(segments([0x1000, 8]))), "EINVAL");
  });
});
