// Needs: passt and a host with a default route for some tests; skipped without.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { chmodSync, closeSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import type { NetBackend } from "../../devices/virtio/net/backend.js";
import { Segments } from "../../devices/virtio/segments.js";
import { passtArguments, startPasst } from "../../vmm/virtio/backends/passt.js";
import { noVhostUser, passtWithVhostUser } from "../../vmm/virtio/backends/passt-program.js";
import { StartingPasst } from "../../vmm/virtio/backends/passt-vhost-user.js";
import { StreamNet } from "../../vmm/virtio/backends/stream-net.js";
import { HostError } from "../../vmm/errors.js";
import { MappedGuestMemory } from "../../vmm/memory/guest-memory.js";
import { MIB } from "../../vmm/memory/layout.js";
import { sharedMemory } from "../../vmm/sys/shared-memory.js";
import { VhostUserNet } from "../../vmm/virtio/backends/vhost-user-net.js";
import { unguarded } from "../../vmm/virtio/guard.js";
import { skip } from "../helpers/skip.js";
import { userNetProblem } from "../helpers/user-net-guard.js";

const NOTHING = { forwards: [], reachesHost: true };
const HEADER = 12;
// Of the real ones' help, where they differ.
const HELP_2023 = `Usage: passt [OPTION]...
  -s, --socket PATH	UNIX domain socket path
    default: probe free path starting from /tmp/passt_1.socket
  -F, --fd FD		Use FD as pre-opened connected socket`;
const HELP_2025 = `Usage: passt [OPTION]...
  -s, --socket, --socket-path PATH	UNIX domain socket path
    default: probe free path starting from /tmp/passt_1.socket
  --vhost-user		Enable vhost-user mode
    UNIX domain socket is provided by -s option
  --print-capabilities	print back-end capabilities in JSON format,
    only meaningful for vhost-user mode
  -F, --fd FD		Use FD as pre-opened connected socket`;

function refusal(run: () => number): HostError {
  try {
    closeSync(run());
  } catch (error) {
    assert.ok(error instanceof HostError);
    return error;
  }
  assert.fail("was started");
}

function withPath<T>(path: string, run: () => T): T {
  const before = process.env["PATH"];
  process.env["PATH"] = path;
  try {
    return run();
  } finally {
    process.env["PATH"] = before;
  }
}

/** How many passts of this test run: those with its MTU. */
function running(mtu: number): number {
  return readdirSync("/proc").filter((pid) => {
    try {
      return readFileSync(`/proc/${pid}/cmdline`, "latin1").includes(`--mtu\0${String(mtu)}\0`);
    } catch {
      return false;
    }
  }).length;
}

/** Asks for the address of 10.0.2.2, as a guest would, and has the answer. */
async function assertAnswered(net: NetBackend, memory: MappedGuestMemory): Promise<void> {
  // "Who has 10.0.2.2? Tell 10.0.2.15." RFC 826.
  const mac = [2, 0, 0, 0, 0, 7];
  const arp = [0, 1, 8, 0, 6, 4, 0, 1, ...mac, 10, 0, 2, 15, 0, 0, 0, 0, 0, 0, 10, 0, 2, 2];
  const frame = [...Array.from({ length: 6 }, () => 0xff), ...mac, 8, 6, ...arp];
  memory.slice(MIB + HEADER, frame.length).set(frame);
  const segments = new Segments(1);
  segments.append(MIB, HEADER + frame.length);
  assert.equal(net.send(segments), HEADER + frame.length);
  const buffers = new Segments(1);
  buffers.append(2 * MIB, 2048);
  // A frame may come in pieces, each of which makes a stream readable.
  const received = await new Promise<number>((resolve) =>
    net.watch(() => {
      const length = net.receive(buffers);
      if (length !== 0) resolve(length);
    }),
  );
  net.unwatch();
  assert.ok(received >= HEADER + frame.length, String(received));
  const answer = memory.slice(2 * MIB + HEADER, 42);
  assert.deepEqual([...answer.subarray(0, 6)], mac);
  assert.deepEqual([...answer.subarray(20, 22), ...answer.subarray(28, 32)], [0, 2, 10, 0, 2, 2]);
}

describe("passt", () => {
  it("is told addresses, forwards and what the guest may not reach", () => {
    const forwards = [
      { protocol: "tcp", hostAddress: "127.0.0.1", hostPort: 8080, guestPort: 80 },
      { protocol: "udp", hostAddress: "0.0.0.0", hostPort: 53, guestPort: 5353 },
    ] as const;
    const words = passtArguments({ forwards, reachesHost: false }, 1500).join(" ");
    assert.match(words, /--address 10\.0\.2\.15 --netmask 255\.255\.255\.0 --gateway 10\.0\.2\.2 /);
    assert.match(words, /--mtu 1500 --no-map-gw --tcp-ports 127\.0\.0\.1\/8080:80 --udp-ports 0\.0\.0\.0\/53:5353$/);
    assert.doesNotMatch(passtArguments(NOTHING, 1500).join(" "), /no-map-gw|ports/);
  });

  it("that is not installed: says which package, and leaves no descriptor open", () => {
    const before = readdirSync("/proc/self/fd").length;
    const { message, cure } = withPath("/nowhere", () => refusal(() => startPasst(NOTHING, 1500)));
    assert.match(message, /needs the program passt, which is not installed$/);
    assert.equal(cure, "apt-get install passt");
    assert.equal(readdirSync("/proc/self/fd").length, before);
  });

  describe("with vhost-user", () => {
    let folder = "";
    beforeEach(() => (folder = mkdtempSync(join(tmpdir(), "vmlet-test-"))));
    afterEach(() => {
      rmSync(folder, { recursive: true });
    });

    /** A program that has this help in it, and prints it. */
    function program(help: string): string {
      const path = join(folder, "passt");
      writeFileSync(
        path,
        `#!/bin/sh\n[ "$1" = --version ] && echo "$VERSION" && exit\ncat >&2 <<'END'\n${help}\nEND\nexit 1\n`,
      );
      chmodSync(path, 0o755);
      return path;
    }

    it("is known by its help, which is in the program", () => {
      const recent = program(HELP_2025);
      assert.equal(passtWithVhostUser(recent), recent);
      assert.equal(passtWithVhostUser(program(HELP_2023)), undefined);
      // A program beside it that nobody has is none.
      assert.equal(
        withPath("/nowhere", () => passtWithVhostUser()),
        undefined,
      );
    });

    it("that is too old, or not there, is one error with version and cure", () => {
      process.env["VERSION"] = "passt 2023_03_09.7c7625d";
      const { message, cure } = noVhostUser(program(HELP_2023));
      assert.equal(message, "The passt that is installed does not speak vhost-user (passt 2023_03_09.7c7625d)");
      assert.equal(cure, "install one of 2025_01_21 or newer (Debian 13 has one), or say vhost=off");
      delete process.env["VERSION"];
      assert.match(
        withPath("/nowhere", () => noVhostUser()).message,
        /needs the program passt, which is not installed$/,
      );
    });

    it("is what the one of this host says of itself", function () {
      const asked = spawnSync("passt", ["--vhost-user", "--print-capabilities"], { encoding: "utf8" });
      if (asked.error !== undefined) skip(this, "no passt");
      assert.equal(passtWithVhostUser() !== undefined, asked.status === 0, asked.stderr);
    });
  });

  describe("on this host", () => {
    before(function () {
      const problem = userNetProblem();
      if (problem !== undefined) skip(this, problem);
    });

    it("answers the guest's frames, and ends when its stream is closed", async () => {
      const mtu = 1411;
      const memory = MappedGuestMemory.map(4 * MIB);
      const net = new StreamNet(startPasst(NOTHING, mtu), memory, () => assert.fail("has ended"));
      assert.equal(running(mtu), 1);
      await assertAnswered(net, memory);
      net.close();
      memory.unmap();
      for (let tries = 0; running(mtu) > 0 && tries < 100; tries++) await sleep(20);
      assert.equal(running(mtu), 0);
    });

    it("by vhost-user it answers frames, too, and ends with its connection; a port that is taken is said as well", async function () {
      const program = passtWithVhostUser();
      if (program === undefined) skip(this, "this passt does not speak vhost-user: 2025_01_21 or newer does");
      const mtu = 1413;
      const memory = MappedGuestMemory.mapShared(sharedMemory("test", 4 * MIB), 4 * MIB);
      const forward = { protocol: "tcp", hostAddress: "127.0.0.1", hostPort: 20_766, guestPort: 80 } as const;
      const user = { forwards: [forward], reachesHost: true };
      const { server, features } = new StartingPasst(program, user, mtu).ready();
      const events = { connectKick: () => undefined, connectInterrupt: () => undefined };
      const ended = (why: string): void => assert.fail(why);
      const net = new VhostUserNet(server, features, { memory, guard: unguarded, events, ended });
      net.announce(Uint8Array.of(2, 0, 0, 0, 0, 7));
      await assertAnswered(net, memory);
      const { message } = refusal(() => {
        new StartingPasst(program, user, mtu).ready();
        return -1;
      });
      assert.equal(message, "passt cannot make a network: it cannot bind port 127.0.0.1:20766/tcp of this host");
      net.close();
      memory.unmap();
      for (let tries = 0; running(mtu) > 0 && tries < 100; tries++) await sleep(20);
      assert.equal(running(mtu), 0);
    });

    it("says why it cannot be: a port that is taken", () => {
      const forward = { protocol: "tcp", hostAddress: "127.0.0.1", hostPort: 20_763, guestPort: 80 } as const;
      const user = { forwards: [forward], reachesHost: true };
      const first = startPasst(user, 1500);
      try {
        const { message, cure } = refusal(() => startPasst(user, 1500));
        assert.match(
          message,
          /^passt cannot make a network: it cannot bind port 127\.0\.0\.1:20763\/tcp of this host$/,
        );
        assert.match(cure ?? "", /ports that are free/);
      } finally {
        closeSync(first);
      }
    });

    it("is no child that this process would have to wait for", () => {
      const fd = startPasst(NOTHING, 1412);
      const children = spawnSync("ps", ["--ppid", String(process.pid), "-o", "args="], { encoding: "utf8" }).stdout;
      closeSync(fd);
      assert.doesNotMatch(children, /passt/);
    });
  });
});
