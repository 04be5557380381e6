// Needs: a /dev/kvm of any kind. Migration with another end that breaks off, lies, or sends noise: the guest goes on where
// it was, and whoever listens is there for the next one.
import assert from "node:assert/strict";
import { once } from "node:events";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { connect, createServer, type Server, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createVm, migrateVm, receiveVm, SnapshotError, VmmError, type Machine, type VmExit } from "../../vmm/index.js";
import { encodeHead, FrameParser, KINDS, type FrameKind } from "../../vmm/snapshot/migration/frames.js";
import { caseSeed, Random } from "../fuzz/random.js";
import { collectOutput, type CollectedOutput } from "../helpers/collected-output.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { asm, miniKernel, type MiniKernel } from "../helpers/mini-kernel.js";
import { skip } from "../helpers/skip.js";

const HELLO = Buffer.from(JSON.stringify({ format: "vmlet migration", version: 2, vmlet: "test" }));
const NOTHING = Buffer.alloc(0);
const NOISE_CASES = 60;

describe("kvm: migration with an end that is none", function () {
  this.timeout(60_000);
  let folder: string;
  let kernel: MiniKernel;
  let image: string;
  const at = (name: string): string => join(folder, name);

  before(function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-hostile-"));
    kernel = miniKernel(asm.countInMemory());
    image = at("disk.img");
    writeFileSync(image, Buffer.alloc(65_536, 1));
  });
  after(() => {
    kernel.remove();
    rmSync(folder, { recursive: true });
  });

  async function withGuest(
    task: (vm: Machine, output: CollectedOutput) => Promise<void>,
    disks: { path: string }[] = [],
  ): Promise<void> {
    const output = collectOutput();
    const vm = createVm({ kernel: kernel.path, memoryMib: 32, disks }, output.host);
    const run: Promise<VmExit> = vm.start();
    try {
      await output.until(50);
      await task(vm, output);
      vm.stop();
      await run;
      const bytes = output.bytes();
      assert.ok(bytes.every((byte, index) => byte === ((index + 1) & 0xff)));
    } finally {
      vm.stop();
      await run;
      await vm.close();
    }
  }

  /** A receiver that answers as one should, until a frame of this kind comes: then it does `then`. */
  function receiver(
    kind: FrameKind,
    then: (say: (kind: FrameKind, payload?: Buffer) => void, socket: Socket) => void,
  ): Server {
    const answers: Partial<Record<FrameKind, FrameKind>> = {
      hello: "hello",
      offer: "ready",
      sync: "synced",
      state: "prepared",
      commit: "running",
    };
    return createServer((socket) => {
      let sent = 0;
      const say = (answer: FrameKind, payload: Buffer = answer === "hello" ? HELLO : NOTHING): void => {
        socket.write(Buffer.concat([encodeHead(answer, payload, sent++), payload]));
      };
      const parser = new FrameParser("sender", (frame) => {
        if (frame.kind === kind) {
          then(say, socket);
          return;
        }
        const answer = answers[frame.kind];
        if (answer !== undefined) say(answer);
      });
      socket.on("error", () => undefined);
      socket.on("data", (chunk) => {
        parser.push(chunk);
      });
    });
  }

  const BREAKS: readonly [what: string, then: Parameters<typeof receiver>[1]][] = [
    ["closes", (_, socket) => socket.end()],
    ["refuses", (say) => say("refuse", Buffer.from("no \u001b[2J such guest\n"))],
    ["sends noise", (_, socket) => socket.write(Buffer.alloc(64, 0xee))],
    ["answers what was not asked", (say) => say("synced")],
  ];
  for (const kind of ["hello", "offer", "pages", "sync", "state", "commit"] as const) {
    it(`a receiver that breaks off at ${kind}, in any way`, async () => {
      await withGuest(
        async (vm, output) => {
          for (const [what, then] of BREAKS) {
            if (kind === "sync" && what.startsWith("answers")) continue;
            if (kind === "pages" && what.startsWith("answers")) continue;
            const path = at(`${kind}-${what.slice(0, 4)}.sock`);
            const server = receiver(kind, then).listen(path);
            await once(server, "listening");
            await assert.rejects(migrateVm(vm, `unix:${path}`), (error) => {
              assert.ok(error instanceof SnapshotError, `${what}: ${String(error)}`);

              assert.ok(!/[\u0000-\u001f]/.test(error.message), error.message);
              return true;
            });
            server.close();
            // It has been given away, and what it hears then means nothing: it may run there.
            const isDoubtful = kind === "commit" && (what === "sends noise" || what.startsWith("answers"));
            assert.equal(vm.state, isDoubtful ? "paused" : "running", what);
            if (isDoubtful) vm.resume();
            await output.until(output.bytes().length + 20);
          }
        },
        [{ path: image }],
      );
    });
  }

  it("a network that is cut after the guest was given away: it stays paused, and that is said", async () => {
    await withGuest(async (vm, output) => {
      const server = receiver("commit", (_, socket) => socket.resetAndDestroy()).listen(0, "127.0.0.1");
      await once(server, "listening");
      const address = server.address();
      const port = typeof address === "object" && address !== null ? address.port : 0;
      await assert.rejects(
        migrateVm(vm, `tcp:127.0.0.1:${String(port)}`),
        /whether it runs there is not known; here it stays paused/,
      );
      assert.equal(vm.state, "paused");
      server.close();
      vm.resume();
      await output.until(output.bytes().length + 20);
    });
  });

  it("a sender that sends noise, lies, or goes: the reason, and nothing else", async () => {
    const say = (socket: Socket, frames: readonly (readonly [FrameKind, Buffer])[]): void => {
      frames.forEach(([kind, payload], index) => {
        socket.write(Buffer.concat([encodeHead(kind, payload, index), payload]));
      });
    };
    const config = { kernel: "/nowhere", memoryMib: 32, cmdline: "", bareCmdline: true };
    const offers: unknown[] = [
      null,
      [],
      { config },
      { config: { ...config, memoryMib: 2 ** 40 }, host: { cpu: "", kernel: "", software: true } },
      { config: { ...config, memoryMib: 1024 * 1024 }, host: { cpu: "", kernel: "", software: true } },
      { config: { ...config, disks: "x" }, host: { cpu: "", kernel: "", software: true } },
      { config, host: { cpu: 5, kernel: "", software: true } },
    ];
    const offer = Buffer.from(JSON.stringify({ config, host: { cpu: "", kernel: "", software: true } }));
    const hardware = Buffer.from(JSON.stringify({ config, host: { cpu: "", kernel: "", software: false } }));
    const offset = (...values: bigint[]): Buffer => Buffer.from(BigUint64Array.from(values).buffer);
    const scripts: (readonly (readonly [FrameKind, Buffer])[])[] = [
      ...offers.map(
        (value) =>
          [
            ["hello", HELLO],
            ["offer", Buffer.from(JSON.stringify(value))],
          ] as const,
      ),
      [
        ["hello", HELLO],
        ["offer", Buffer.from("{")],
      ],
      [
        ["hello", HELLO],
        ["commit", NOTHING],
      ],
      ...[offer, hardware].flatMap((given) =>
        (
          [
            ["pages", offset(2n ** 63n)],
            ["pages", Buffer.concat([offset(1n), Buffer.alloc(4096)])],
            ["pages", Buffer.concat([offset(32n * 2n ** 20n), Buffer.alloc(4096)])],
            ["pages", Buffer.concat([offset(32n * 2n ** 20n - 4096n), Buffer.alloc(8192)])],
            ["pages", Buffer.concat([offset(2n ** 64n - 4096n), Buffer.alloc(4096)])],
            ["pages", Buffer.alloc(3)],
            ["zeros", offset(0n, 2n ** 40n)],
            ["zeros", offset(0n, 0n)],
            ["zeros", offset(4096n, 4095n)],
            ["zeros", offset(0n)],
            ["state", Buffer.from("null")],
            ["state", Buffer.from("{}")],
            ["state", Buffer.from("{")],
            ["commit", NOTHING],
          ] as const
        ).map((frame) => [["hello", HELLO], ["offer", given], frame] as const),
      ),
    ];
    for (const [index, script] of scripts.entries()) {
      const path = at(`script-${String(index)}.sock`);
      const waiting = await receiveVm(`unix:${path}`, collectOutput().host);
      const socket = connect(path);
      socket.on("error", () => undefined).resume();
      say(socket, script);
      await assert.rejects(waiting.received, (error) => {
        assert.ok(error instanceof VmmError, `${String(index)}: ${String(error)}`);
        return true;
      });
      socket.destroy();
    }
    // Who is no sender at all keeps nobody from coming: at last, a real guest.
    const path = at("noise.sock");
    const output = collectOutput();
    const said: string[] = [];
    const waiting = await receiveVm(`unix:${path}`, { ...output.host, log: (line) => void said.push(line) });
    for (let index = 0; index < NOISE_CASES; index++) {
      const random = new Random(caseSeed(5, index));
      const socket = connect(path);
      socket.on("error", () => undefined).resume();
      const noise = Buffer.from(Array.from({ length: 1 + (random.u32() % 100) }, () => random.u32() & 0xff));
      // Some begin well.
      if (index % 3 === 0) noise[0] = KINDS.hello.code;
      socket.end(noise);
      await once(socket, "close");
    }
    await withGuest(async (vm) => {
      await migrateVm(vm, `unix:${path}`);
      const { vm: moved, ended } = await waiting.received;
      await output.until(50);
      moved.stop();
      await ended;
      await moved.close();
    });
    assert.equal(said.length, NOISE_CASES);
  });
});
