// Needs: root, with ip and tc; gcc for the agent. A container's interfaces, as messages, and connected in a namespace of this
// host's kernel.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import {
  AF_INET,
  addAddress,
  addRoute,
  attribute,
  message,
  readAddress,
  readAttributes,
  readLink,
  readRoute,
  setUpLink,
} from "../../vmm/host/rtnetlink.js";
import { withNameServer } from "../../vmm/oci/network/name-server.js";
import { AgentProcess, FAILED, buildAgent } from "../helpers/agent-process.js";
import { skip } from "../helpers/skip.js";

const NETLINK = 0x37;
const HEADER = 16;
const EINVAL = 22;
const ENODEV = 19;

const address = {
  family: AF_INET,
  address: Uint8Array.of(10, 1, 2, 3),
  prefixLength: 24,
  scope: 0,
  broadcast: Uint8Array.of(10, 1, 2, 255),
};

interface Connected {
  readonly interfaces: readonly { name: string; tap: string; messages: string[] }[];
  readonly during: string;
  readonly isReceived: boolean;
  readonly isSent: boolean;
  readonly after: string;
}

describe("oci: the network", () => {
  it("messages: what is made is read as the same; what is cut off, or too long, is left out", () => {
    const made = addAddress(7, address).subarray(HEADER);
    const read = readAddress(made);
    assert.deepEqual(
      [read.index, read.family, read.prefixLength, [...read.address], [...(read.broadcast ?? [])]],
      [7, AF_INET, 24, [10, 1, 2, 3], [10, 1, 2, 255]],
    );
    const route = { family: AF_INET, destination: undefined, prefixLength: 0, source: undefined, scope: 0, flags: 4 };
    const gateway = Uint8Array.of(10, 1, 2, 1);
    const again = readRoute(addRoute(3, { ...route, gateway, priority: 100 }).subarray(HEADER));
    assert.deepEqual(
      [again?.index, [...(again?.gateway ?? [])], again?.priority, again?.flags, again?.destination],
      [3, [10, 1, 2, 1], 100, 4, undefined],
    );
    const [change, up] = setUpLink(5, { mac: Uint8Array.of(2, 0, 0, 0, 0, 1), mtu: 1400 });
    const link = readLink(change?.subarray(HEADER) ?? Buffer.alloc(0));
    assert.deepEqual([link.index, link.mtu, [...link.mac], link.isUp], [5, 1400, [2, 0, 0, 0, 0, 1], false]);
    assert.equal(readLink(up?.subarray(HEADER) ?? Buffer.alloc(0)).isUp, true);
    for (let length = 0; length < made.length; length++) readAddress(made.subarray(0, length));
    for (const bad of ["ffff0100", "0300", "0800010001", "00000000"]) {
      assert.equal(readAttributes(Buffer.from(bad, "hex")).size, 0, bad);
    }
  });

  it("resolv.conf: name servers of the loopback give way to one that the guest reaches, others stay", () => {
    assert.equal(withNameServer("nameserver 10.0.0.1\noptions ndots:0\n", "169.254.77.1"), undefined);
    assert.deepEqual(withNameServer("search a b\nnameserver 127.0.0.11\noptions ndots:0\n", "169.254.77.1"), {
      text: "nameserver 169.254.77.1\nsearch a b\noptions ndots:0\n",
      servers: ["127.0.0.11"],
    });
    assert.deepEqual(withNameServer("nameserver ::1\nnameserver 8.8.8.8", "169.254.77.1")?.servers, ["::1"]);
    assert.equal(withNameServer("", "169.254.77.1"), undefined);
  });

  it("a namespace's interfaces have TAP interfaces beside them, redirected both ways; nothing stays after the end", function () {
    this.timeout(60_000);
    if (process.getuid?.() !== 0) skip(this, "root makes network namespaces");
    const script = [
      "set -e; ip link set lo up",
      "ip link add eth0 type veth peer name far0; ip link add eth1 type veth peer name far1",
      "ip addr add 10.1.2.3/24 dev eth0; ip addr add 10.9.0.2/16 dev eth1; ip link set eth1 mtu 1400",
      "ip link set eth0 up; ip link set eth1 up; ip link set far1 up",
      "ip addr add 10.77.0.1/24 dev far0; ip link set far0 up",
      "ip route add default via 10.1.2.1; ip route add 192.168.7.0/24 via 10.9.0.1 dev eth1 metric 7",
      'exec "$@"',
    ].join("\n");
    const program = [process.execPath, resolve("build/test/helpers/connect-network.js")];
    const { status, stdout, stderr } = spawnSync("unshare", ["-n", "sh", "-c", script, "sh", ...program], {
      encoding: "utf8",
      timeout: 50_000,
    });
    assert.equal(status, 0, stderr);
    const { interfaces, during, isReceived, isSent, after } = JSON.parse(stdout) as Connected;
    const byName = new Map(interfaces.map((entry) => [entry.name, entry]));
    assert.deepEqual([...byName.keys()].sort(), ["eth0", "eth1", "far0", "far1"]);
    const change = readLink(Buffer.from(byName.get("eth1")?.messages[0] ?? "", "hex").subarray(HEADER));
    assert.equal(change.mtu, 1400);
    // Up and its address, the relay's where it is the first, then routes.
    const eth1 = byName.get("eth1")?.messages.map((hex) => Buffer.from(hex, "hex")) ?? [];
    assert.deepEqual(
      eth1.map((bytes) => bytes.readUInt16LE(4)),
      [16, 16, 20, 24],
    );
    const route = readRoute(eth1.at(-1)?.subarray(HEADER) ?? Buffer.alloc(0));
    assert.deepEqual(
      [[...(route?.destination ?? [])], route?.prefixLength, [...(route?.gateway ?? [])], route?.priority],
      [[192, 168, 7, 0], 24, [10, 9, 0, 1], 7],
    );
    assert.match(during, /"local":"169\.254\.77\.1","prefixlen":30/);
    assert.equal(during.match(/Redirect to device vmlet\d/g)?.length, 2, during);
    assert.deepEqual([isReceived, isSent], [true, true]);
    assert.doesNotMatch(after, /vmlet\d|ingress/);
  });

  it("the guest's agent hands messages to its kernel: what is none is refused, what the kernel refuses names its number", async function () {
    this.timeout(120_000);
    const folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    const agent = await new AgentProcess(buildAgent(folder)).begin();
    try {
      const failure = async (stream: number, payload: Uint8Array): Promise<[number, string]> => {
        agent.send(stream, NETLINK, payload);
        const last = await agent.next();
        assert.equal(last.type, FAILED);
        return [last.payload.readUInt32LE(0), last.payload.subarray(4).toString()];
      };
      const nowhere = addAddress(0x7fff_fff0, address);
      assert.deepEqual(await failure(1, nowhere), [ENODEV, "message 0001"]);
      const cut = nowhere.subarray(0, -4);
      const tooLong = Buffer.from(nowhere);
      tooLong.writeUInt32LE(0xffff_fffc, 0);
      const unanswered = Buffer.from(nowhere);
      unanswered.writeUInt16LE(1, 6);
      const bad = [
        cut,
        tooLong,
        unanswered,
        Buffer.alloc(15),
        Buffer.alloc(16),
        Buffer.concat([nowhere, Buffer.alloc(3)]),
      ];
      for (const [index, payload] of bad.entries()) {
        assert.equal((await failure(10 + index, payload))[0], EINVAL, `payload ${String(index)}`);
      }
      // Of a type that there is none of.
      assert.equal((await failure(40, message(200, 0, attribute(1, Buffer.alloc(4)))))[0], 95);
    } finally {
      await agent.close();
      rmSync(folder, { recursive: true });
    }
  });
});
