// Needs: passt and a host with a default route for some tests; skipped without.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { closeSync, readdirSync, readFileSync } from "node:fs";
import { setTimeout as sleep } from "node:timers/promises";
import { Segments } from "../../devices/virtio/segments.js";
import { passtArguments, startPasst } from "../../vmm/virtio/backends/passt.js";
import { StreamNet } from "../../vmm/virtio/backends/stream-net.js";
import { HostError } from "../../vmm/errors.js";
import { MappedGuestMemory } from "../../vmm/memory/guest-memory.js";
import { MIB } from "../../vmm/memory/layout.js";
import { skip } from "../helpers/skip.js";
import { userNetProblem } from "../helpers/user-net-guard.js";

const NOTHING = { forwards: [], reachesHost: true };
const HEADER = 12;

function refusal(run: () => number): HostError {
  try {
    closeSync(run());
  } catch (error) {
    assert.ok(error instanceof HostError);
    return error;
  }
  assert.fail("was started");
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
    const path = process.env["PATH"];
    const before = readdirSync("/proc/self/fd").length;
    process.env["PATH"] = "/nowhere";
    try {
      const { message, cure } = refusal(() => startPasst(NOTHING, 1500));
      assert.match(message, /needs the program passt, which is not installed$/);
      assert.equal(cure, "apt-get install passt");
    } finally {
      process.env["PATH"] = path;
    }
    assert.equal(readdirSync("/proc/self/fd").length, before);
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
      // A frame may come in pieces, each of which makes the stream readable.
      const received = await new Promise<number>((resolve) =>
        net.watch(() => {
          const length = net.receive(buffers);
          if (length !== 0) resolve(length);
        }),
      );
      assert.ok(received >= HEADER + frame.length, String(received));
      const answer = memory.slice(2 * MIB + HEADER, 42);
      assert.deepEqual([...answer.subarray(0, 6)], mac);
      assert.deepEqual([...answer.subarray(20, 22), ...answer.subarray(28, 32)], [0, 2, 10, 0, 2, 2]);
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
