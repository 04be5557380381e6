// Needs: nothing. Ports of this host before a VM takes them.
import assert from "node:assert/strict";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { createServer, type AddressInfo } from "node:net";
import { HostError } from "../../vmm/errors.js";
import { findHostPorts } from "../../vmm/sdk/host-ports.js";
import type { PublishedPort } from "../../vmm/sdk/vm-record.js";

const tcp = (hostPort: number, hostAddress = "127.0.0.1"): PublishedPort => ({
  hostAddress,
  hostPort,
  guestPort: 80,
  protocol: "tcp",
});
const udp = (hostPort: number): PublishedPort => ({ ...tcp(hostPort), protocol: "udp" });

describe("sdk: ports of this host", () => {
  it("any means one that is free, each another, and it is free afterwards", async () => {
    const found = await findHostPorts([tcp(0), tcp(0), udp(0)]);
    const numbers = found.map(({ hostPort }) => hostPort);
    assert.ok(numbers.every((port) => port > 0));
    assert.notEqual(numbers[0], numbers[1]);
    assert.deepEqual(await findHostPorts(found), found);
  });

  it("one that is taken is named, and the others are let go of", async () => {
    const server = createServer().listen(0, "127.0.0.1");
    const socket = createSocket("udp4");
    try {
      await once(server, "listening");
      await new Promise<void>((resolve) => {
        socket.bind(0, "127.0.0.1", resolve);
      });
      const taken = (server.address() as AddressInfo).port;
      const [free] = await findHostPorts([tcp(0)]);
      assert.ok(free !== undefined);
      await assert.rejects(findHostPorts([free, tcp(taken)]), {
        message: `Port 127.0.0.1:${String(taken)}/tcp of this host is taken`,
        cure: /publish another one/,
      });
      await assert.rejects(findHostPorts([udp(socket.address().port)]), /\/udp of this host is taken/);
      // Of the other protocol it is another one.
      await findHostPorts([tcp(socket.address().port)]);
      assert.deepEqual(await findHostPorts([free]), [free]);
    } finally {
      server.close();
      socket.close();
    }
  });

  it("an address that is none of this host's is said to be so", async () => {
    await assert.rejects(
      findHostPorts([tcp(0, "203.0.113.7")]),
      (error: unknown) =>
        error instanceof HostError && /203\.0\.113\.7:0\/tcp .* none of this host's/.test(error.message),
    );
  });
});
