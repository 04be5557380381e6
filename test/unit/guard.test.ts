// Needs: nothing. Device code under callbacks of the event loop: what it throws is told to its VM, and the process lives.
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { createConnection, createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { StreamEvents } from "../../devices/virtio/vsock/backend.js";
import { MappedGuestMemory } from "../../vmm/memory/guest-memory.js";
import { closeDescriptor } from "../../vmm/sys/descriptors.js";
import { streamPair } from "../../vmm/sys/sockets.js";
import { openDiskFile } from "../../vmm/virtio/backends/disk-file.js";
import { FileDisk } from "../../vmm/virtio/backends/file-disk.js";
import { StreamNet } from "../../vmm/virtio/backends/stream-net.js";
import { TapBackend } from "../../vmm/virtio/backends/tap.js";
import { UnixVsock } from "../../vmm/virtio/backends/vsock-unix.js";
import { DeviceLoop } from "../../vmm/virtio/device-loop.js";
import type { Guard } from "../../vmm/virtio/guard.js";

function bad(): never {
  throw new Error("defect");
}

describe("guard", () => {
  const folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
  const memory = MappedGuestMemory.map(2 ** 20);
  let failures: unknown[];
  let told: () => void;
  /** As DeviceLoop does it, but again and again. */
  const guard: Guard = (task) => {
    try {
      task();
    } catch (error) {
      failures.push(error);
      told();
    }
  };

  beforeEach(() => {
    failures = [];
    told = () => undefined;
  });
  after(() => {
    memory.unmap();
    rmSync(folder, { recursive: true });
  });

  /** Resolves once `count` failures have been told. */
  async function failed(count: number): Promise<void> {
    while (failures.length < count) await new Promise<void>((resolve) => (told = resolve));
    assert.deepEqual(
      failures.map((error) => (error as Error).message),
      Array.from({ length: count }, () => "defect"),
    );
  }

  it("turns and timers of the devices' loop", async () => {
    for (const start of ["defer", "after"] as const) {
      failures = [];
      const loop = new DeviceLoop({
        wakeOwner: () => undefined,
        alarm: () => undefined,
        failed: (error) => {
          guard(() => {
            throw error;
          });
        },
      });
      if (start === "defer") loop.defer(bad);
      else loop.after(1, bad);
      await failed(1);
      loop.guard(() => assert.fail("runs code of a device that has failed"));
    }
  });

  it("a stream's and a TAP's descriptor that is readable, the second time too", async () => {
    for (const kind of ["stream", "tap"] as const) {
      failures = [];
      const [own, other] = streamPair();
      const net =
        kind === "stream"
          ? new StreamNet(own, memory, bad, guard)
          : new TapBackend({ name: "tap", fd: own }, memory, () => undefined, guard);
      writeSync(other, "x");
      for (const count of [1, 2]) {
        net.watch(() => {
          net.unwatch();
          bad();
        });
        await failed(count);
      }
      net.close();
      closeDescriptor(other);
    }
  });

  it("what the disk's thread pool has done", async () => {
    const path = join(folder, "disk.img");
    writeFileSync(path, Buffer.alloc(4096));
    const file = openDiskFile({ path, isReadonly: false, blockSize: 512 });
    const disk = new FileDisk(file, memory, undefined, guard);
    disk.readLater(0, 512, bad);
    disk.writeLater(0, new Uint8Array(512), bad);
    disk.flushLater(bad);
    await failed(3);
    disk.close();
  });

  it("a socket of a host program: its connection, data, writes, end and close", async () => {
    const path = join(folder, "vsock");
    const vsock = UnixVsock.listen(path, bad);
    vsock.guard = guard;
    const events: StreamEvents = { connected: bad, data: bad, sent: bad, ended: bad, closed: bad };
    vsock.accept({
      open: (_port, stream) => {
        setImmediate(() => {
          stream.opened(1);
          stream.write(Uint8Array.of(1));
        });
        return events;
      },
    });
    const program = createConnection({ path });
    program.resume();
    await once(program, "connect");
    program.write("CONNECT 5\ndata");
    // Data that came with the line, and a write that is done.
    await failed(2);
    program.end();
    program.destroy();
    await failed(3);

    failures = [];
    const server = createServer((socket) => socket.end());
    await new Promise<void>((resolve) => server.listen(`${path}_7`, resolve));
    vsock.connect(7, events);
    await failed(2);

    failures = [];
    vsock.accept({ open: bad });
    const refused = createConnection({ path });
    refused.on("error", () => undefined);
    refused.write("CONNECT 5\n");
    await failed(1);
    refused.destroy();
    server.close();
    await vsock.close();
  });
});
