// Needs: a /dev/kvm of any kind. A VM's life: every method of the public API in every state, with kernels of a few instructions.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { Worker } from "node:worker_threads";
import { resolveConfig } from "../../vmm/config/resolve.js";
import {
  createVm,
  GuestMemoryError,
  HostError,
  VmStateError,
  type Machine,
  type VmConfig,
  type VmExit,
  type VmHost,
} from "../../vmm/index.js";
import { Vm as VmClass } from "../../vmm/machine/vm.js";
import { allOpeners } from "../../vmm/virtio/attach/all.js";
import { closeDescriptor } from "../../vmm/sys/descriptors.js";
import { streamPair } from "../../vmm/sys/sockets.js";
import { ReadableWatch } from "../../vmm/virtio/backends/readable-watch.js";
import type { DeviceOpener } from "../../vmm/virtio/device-host.js";
import { deviceSupport } from "../../vmm/virtio/device-support.js";
import { EchoDevice } from "../helpers/echo-device.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { asm, miniKernel, type MiniKernel } from "../helpers/mini-kernel.js";
import { settledResources } from "../helpers/own-resources.js";
import { run } from "../helpers/program.js";
import { skip } from "../helpers/skip.js";

const quiet: VmHost = {
  output: (_bytes, done) => {
    setImmediate(done);
  },
};

describe("kvm: life", function () {
  this.timeout(60_000);
  const kernels: MiniKernel[] = [];
  const vms: Machine[] = [];
  let folder: string | undefined;

  before(function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
  });
  afterEach(async () => {
    for (const vm of vms.splice(0)) await vm.close();
    for (const kernel of kernels.splice(0)) kernel.remove();
  });
  after(() => {
    if (folder !== undefined) rmSync(folder, { recursive: true });
  });

  function kernelOf(...code: number[][]): string {
    const kernel = miniKernel(...code);
    kernels.push(kernel);
    return kernel.path;
  }

  function make(code: number[][], host: VmHost = quiet, config: Partial<VmConfig> = {}): Machine {
    const vm = createVm({ kernel: kernelOf(...code), memoryMib: 32, ...config }, host);
    vms.push(vm);
    return vm;
  }

  const spinning = [asm.print("up\n"), asm.spin()];
  const ending = [asm.print("up\n"), asm.powerOff(7)];

  /** A VM in each state, and what start() has promised if it has been called. */
  async function inState(state: Machine["state"], config: Partial<VmConfig> = {}) {
    const runs = state === "running" || state === "paused";
    const vm = make(runs ? spinning : ending, quiet, config);
    let run: Promise<VmExit> | undefined;
    if (runs || state === "stopped") run = vm.start();
    if (state === "paused") await vm.pause();
    if (state === "stopped") await run;
    if (state === "closed") await vm.close();
    assert.equal(vm.state, state);
    return { vm, run };
  }

  for (const state of ["built", "running", "paused", "stopped", "closed"] as const) {
    for (const console of ["serial", "virtio"] as const) {
      it(`${state}, console ${console}: every method does what it should, or nothing`, async () => {
        const { vm, run } = await inState(state, {
          console,
          balloon: { targetMib: 0 },
          disks: [],
          rng: true,
          commandChannel: true,
        });
        const runs = state === "running" || state === "paused";
        const hasGuest = state === "built" || runs;
        const taken = vm.input(Buffer.from("x"));
        assert.ok(hasGuest ? taken <= 1 : taken === 0);
        assert.equal(vm.commandInput(Buffer.from("x")), hasGuest ? 1 : 0);
        vm.endCommandInput();
        assert.equal(vm.hasCommandChannel, false);
        vm.inputBreak();
        vm.resize({ columns: 80, rows: 25 });
        vm.setBalloon(1);
        assert.throws(() => vm.setBalloon(1e9), { code: "ERR_CONFIG" });
        const { exits, devices, balloon } = vm.statistics();
        assert.ok(typeof exits === "object" && "rng0" in devices);
        assert.equal(balloon?.targetBytes, hasGuest ? 2 ** 20 : 0);
        if (runs) {
          assert.throws(() => vm.closeDevices(), VmStateError);
          await Promise.all([vm.pause(), vm.pause()]);
          assert.equal(vm.state, "paused");
          vm.resume();
          vm.resume();
          assert.equal(vm.state, "running");
          if (state === "paused") await vm.pause();
        } else {
          await assert.rejects(vm.pause(), (error) => error instanceof VmStateError && error.state === state);
          assert.throws(() => vm.resume(), VmStateError);
          assert.throws(() => vm.capture(), VmStateError);
        }
        if (state !== "built") {
          const refused = vm.start();
          await assert.rejects(refused, (error) => error instanceof VmStateError && error.state === state);
        }
        vm.stop();
        vm.stop();
        if (run !== undefined) assert.equal((await run).outcome, runs ? "killed" : "poweroff");
        vm.closeDevices();
        await Promise.all([vm.close(), vm.close()]);
        assert.equal(vm.state, "closed");
        vm.closeDevices();
        vm.stop();
        assert.equal(vm.input(Buffer.from("x")), 0);
        assert.equal(vm.commandInput(Buffer.from("x")), 0);
        vm.endCommandInput();
      });
    }
  }

  for (const threads of ["main-first", "threads"] as const) {
    it(`${threads}: close() ends a guest that runs, and start() says so`, async () => {
      const vm = make(spinning, quiet, { cpus: 2 });
      const run = vm.start({ threads });
      await new Promise((resolve) => setTimeout(resolve, 50));
      await Promise.all([vm.close(), vm.close()]);
      assert.equal((await run).outcome, "killed");
    });

    it(`${threads}: close() right behind start() ends it too`, async () => {
      const vm = make(spinning, quiet, { cpus: 2 });
      const run = vm.start({ threads });
      await vm.close();
      assert.equal((await run).outcome, "killed");
    });

    it(`${threads}: paused at any moment after the start, with several vCPUs, it rests, goes on and ends`, async () => {
      for (const delayMs of [undefined, 0, 1, 3, 30]) {
        const vm = make(spinning, quiet, { cpus: 3 });
        const run = vm.start({ threads });
        if (delayMs !== undefined) await new Promise((resolve) => setTimeout(resolve, delayMs));
        const paused = vm.pause();
        // Asked for before it rests: it goes on when it does.
        vm.resume();
        await paused;
        await vm.pause();
        assert.equal(vm.state, "paused");
        const { exits } = vm.statistics();
        await new Promise((resolve) => setTimeout(resolve, 20));
        assert.deepEqual(vm.statistics().exits, exits);
        vm.stop();
        assert.equal((await run).outcome, "killed");
      }
    });

    it(`${threads}: a guest that ends while it is to be paused: pause() says so`, async () => {
      // One in some hundred rests before its threads are given, and has to be woken all the same.
      for (let round = 0; round < 40; round++) {
        const vm = make(ending);
        const run = vm.start({ threads });
        const [pausing] = await Promise.allSettled([vm.pause()]);
        if (pausing.status === "fulfilled") vm.resume();
        else assert.ok(pausing.reason instanceof VmStateError, String(pausing.reason));
        assert.equal((await run).exitStatus, 7);
      }
    });

    it(`${threads}: a VM that was stopped before its start never runs`, async () => {
      const vm = make([asm.print("never"), asm.powerOff(0)]);
      vm.stop();
      const exit = await vm.start({ threads });
      assert.equal(exit.outcome, "killed");
      assert.deepEqual(exit.exits, {});
    });
  }

  it("a program that is given to Node as text has threads, too", async () => {
    const program = `
      import { createVm } from ${JSON.stringify(resolve("build/vmm/index.js"))};
      const vm = createVm({ kernel: ${JSON.stringify(kernelOf(...ending))}, memoryMib: 32 }, { output: (_, done) => done() });
      console.log((await vm.start({ threads: "threads" })).exitStatus);
      await vm.close();`;
    const { stdout, stderr } = await run([process.execPath, "--input-type=module", "-e", program]);
    assert.equal(stdout, "7\n", stderr);
  });

  it("close() waits no longer than a moment for a host that never takes the output", async () => {
    const vm = make([asm.flood(0x61)], { output: () => undefined });
    const run = vm.start({ threads: "threads" });
    await new Promise((resolve) => setTimeout(resolve, 200));
    const started = Date.now();
    await vm.close();
    assert.equal((await run).outcome, "killed");
    assert.ok(Date.now() - started < 8000);
  });

  it("an output's `done` that comes after close() does nothing", async () => {
    let written: (done: () => void) => void;
    const asked = new Promise<() => void>((resolve) => (written = resolve));
    const vm = make([asm.print("x"), asm.powerOff(0)], {
      output: (_bytes, done) => {
        written(done);
      },
    });
    const run = vm.start({ threads: "threads" });
    const late = await asked;
    await vm.close();
    await run;
    late();
    late();
  });

  it("an output's `done` that comes twice lets nothing be lost or said twice", async () => {
    let output = "";
    const vm = make([...Array.from({ length: 200 }, (_, i) => asm.print(`${String(i)} `)), asm.powerOff(0)], {
      output: (bytes, done) => {
        output += Buffer.from(bytes).toString();
        if (output.length % 2 === 0) done();
        else setImmediate(done);
        setImmediate(done);
      },
    });
    await vm.start();
    assert.equal(output, Array.from({ length: 200 }, (_, i) => `${String(i)} `).join(""));
  });

  it("an output that is done at once takes a flood without a deep stack, and others have their turns", async () => {
    let next = 0;
    let turns = 0;
    const vm = make([asm.count()], {
      output: (bytes, done) => {
        for (const byte of bytes) assert.equal(byte, next++ & 0xff);
        if (next > 50_000) vm.stop();
        done();
      },
    });
    const timer = setInterval(() => turns++, 1);
    assert.equal((await vm.start()).outcome, "killed");
    clearInterval(timer);
    assert.ok(next > 50_000 && turns > 1, `${String(next)} bytes, ${String(turns)} turns`);
  });

  for (const threads of ["main-first", "threads"] as const) {
    for (const callback of ["output", "commandStarted"] as const) {
      for (const kind of ["throws", "rejects"] as const) {
        it(`${threads}: a callback ${callback} that ${kind} ends this VM with its error`, async () => {
          const fail = (): void => {
            if (kind === "throws") throw new Error("mine");
            return Promise.reject(new Error("mine")) as unknown as undefined;
          };
          const vm = make([asm.milestone(124), asm.print("x\n"), asm.milestone(121), asm.spin()], {
            ...quiet,
            [callback]: fail,
          });
          await assert.rejects(vm.start({ threads }), { message: "mine" });
          assert.equal(vm.state, "stopped");
        });
      }
    }
  }

  const wrong: [what: string, call: (vm: Machine) => unknown, message: RegExp][] = [
    ["input(null)", (vm) => vm.input(null as never), /Input null is not a Uint8Array/],
    ["input of a text", (vm) => vm.input("text" as never), /Input "text" is not a Uint8Array/],
    ["input of numbers", (vm) => vm.input([1, 2] as never), /Input \(a list\) is not a Uint8Array/],
    ["resize()", (vm) => vm.resize(undefined as never), /Terminal size undefined is not an object/],
    ["resize to nothing", (vm) => vm.resize({} as never), /columns undefined.*\n.*rows undefined/],
    ["resize to -1", (vm) => vm.resize({ columns: -1, rows: 5 }), /columns -1 is not a whole number from 0 to 65535/],
    ["resize to 65536", (vm) => vm.resize({ columns: 1, rows: 65536 }), /rows 65536/],
    ["resize to a text", (vm) => vm.resize({ columns: "80" as never, rows: 5 }), /columns "80"/],
    ["setBalloon(NaN)", (vm) => vm.setBalloon(NaN), /NaN/],
    ["setBalloon of a text", (vm) => vm.setBalloon("1" as never), /"1"/],
  ];
  it("a wrong argument is a ConfigError that names it, and the VM goes on", async () => {
    const vm = make(ending, quiet, { balloon: { targetMib: 0 } });
    for (const [what, call, message] of wrong) {
      assert.throws(
        () => call(vm),
        (error) =>
          error instanceof Error && "code" in error && error.code === "ERR_CONFIG" && message.test(error.message),
        what,
      );
    }
    for (const options of [null, 5, "threads", { threads: "main" }, { thread: "threads" }]) {
      await assert.rejects(vm.start(options as never), { code: "ERR_CONFIG" });
    }
    assert.equal(vm.input(Buffer.from("x")), 1);
    assert.equal((await vm.start()).exitStatus, 7);
  });

  it("a host without callbacks that can be called is refused before anything is made", async () => {
    const before = await settledResources();
    for (const host of [undefined, null, 5, "x", {}, { output: 5 }, { output: () => undefined, log: "no" }]) {
      assert.throws(() => createVm({ kernel: kernelOf(...ending) }, host as never), { code: "ERR_CONFIG" });
    }
    assert.deepEqual(await settledResources(), before);
  });

  it("two VMs that start main-first on one thread both run, and one's end does not silence the other", async () => {
    const slow = make(spinning);
    const quick = make(ending);
    const run = slow.start({ threads: "main-first" });
    const started = Date.now();
    assert.equal((await quick.start({ threads: "main-first" })).exitStatus, 7);
    setTimeout(() => slow.stop(), 100);
    assert.equal((await run).outcome, "killed");
    assert.ok(Date.now() - started < 10_000);
  });

  it("in a worker, main-first runs and stops as on the main thread", async () => {
    const script = new URL("../helpers/vm-worker.js", import.meta.url);
    const results = await Promise.all(
      [spinning, ending].map(async (code) => {
        const worker = new Worker(script, { workerData: { kernel: kernelOf(...code), stopAfterMs: 300 } });
        return new Promise((resolve, reject) => {
          worker.once("message", resolve);
          worker.once("error", reject);
        });
      }),
    );
    assert.deepEqual(results, ["killed", "poweroff"]);
  });

  it("a VM whose devices cannot be made leaves no descriptor, and its disk is free again", async () => {
    const image = join(folder ?? "", "disk.img");
    writeFileSync(image, Buffer.alloc(65536));
    const config = resolveConfig({ kernel: kernelOf(...ending), memoryMib: 32, disks: [{ path: image }] });
    const support = deviceSupport(allOpeners);
    const before = await settledResources();
    for (let i = 0; i < 2; i++) {
      const broken = {
        ...support,
        createHost: () => {
          throw new Error("no device");
        },
      };
      assert.throws(() => VmClass.build(config, quiet, { deviceSupport: broken }), /no device/);
    }
    assert.deepEqual(await settledResources(), before);
    const vm = VmClass.build(config, quiet, { deviceSupport: support });
    vms.push(vm);
    assert.equal((await vm.start()).exitStatus, 7);
  });

  for (const source of ["a timer", "a turn", "a descriptor", "input", "reset"] as const) {
    it(`a device that throws under ${source} ends its VM with the error, and no other`, async () => {
      const [own, other] = streamPair();
      const bad = (): never => {
        throw new GuestMemoryError("defect");
      };
      const broken: DeviceOpener = (_config, undo) => [
        {
          name: "rng0",
          create: ({ loop, guard, expose }) => {
            const device = new EchoDevice();
            if (source === "a timer") loop.after(50, bad);
            if (source === "a turn") loop.defer(bad);
            const watch = new ReadableWatch(own, guard);
            undo(() => watch.close());
            if (source === "a descriptor") watch.start(bad);
            if (source === "input")
              expose({ console: { receive: bad, receiveBreak: bad, outputReady: bad, resize: bad } });
            if (source === "reset") device.reset = bad;
            return device;
          },
        },
      ];
      const config = resolveConfig({ kernel: kernelOf(...spinning), memoryMib: 32, rng: true });
      const vm = VmClass.build(config, quiet, { deviceSupport: deviceSupport({ ...allOpeners, rng: broken }) });
      const neighbour = make(spinning);
      const [run, alsoRuns] = [vm.start({ threads: "threads" }), neighbour.start({ threads: "threads" })];
      if (source === "a descriptor") writeSync(other, "x");
      if (source === "input") assert.equal(vm.input(Buffer.from("x")), 0);
      if (source === "reset") {
        vm.stop();
        assert.equal((await run).outcome, "killed");
        await assert.rejects(vm.close(), { message: "defect" });
      } else {
        await assert.rejects(run, { code: "ERR_GUEST_MEMORY", message: "defect" });
        await vm.close();
      }
      neighbour.stop();
      assert.equal((await alsoRuns).outcome, "killed");
      for (const fd of [own, other]) closeDescriptor(fd);
    });
  }

  for (const threads of ["main-first", "threads"] as const) {
    it(`${threads}: a host without descriptors for the devices' events ends the VM with one error`, async () => {
      const before = await settledResources();
      const events = {
        connect: () => {
          throw new HostError("no descriptor is left");
        },
        silenceAcknowledgements: () => undefined,
        close: () => undefined,
      };
      const config = resolveConfig({ kernel: kernelOf(asm.milestone(123), asm.spin()), memoryMib: 32, rng: true });
      const support = deviceSupport(allOpeners);
      const vm = VmClass.build(config, quiet, { deviceSupport: { ...support, createEvents: () => events as never } });
      await assert.rejects(vm.start({ threads }), { code: "ERR_HOST", message: "no descriptor is left" });
      await vm.close();
      assert.deepEqual(await settledResources(), before);
    });
  }

  it("200 VMs in one process, from every state, leave no descriptor, thread, mapping or timer", async () => {
    const kernel = kernelOf(...ending);
    const spinner = kernelOf(...spinning);
    const one = async (i: number): Promise<void> => {
      const isThreaded = i % 20 >= 18;
      const vm = createVm({ kernel: i % 20 === 19 ? spinner : kernel, memoryMib: 32, cpus: isThreaded ? 2 : 1 }, quiet);
      if (i % 20 === 18) await vm.start({ threads: "threads" });
      else if (i % 20 === 19) void vm.start({ threads: "threads" });
      else if (i % 2 === 0) await vm.start({ threads: "main-first" });
      await vm.close();
    };
    for (let i = 16; i < 20; i++) await one(i);
    const before = await settledResources();
    for (let i = 0; i < 200; i += 4) await Promise.all([one(i), one(i + 1), one(i + 2), one(i + 3)]);
    assert.deepEqual(await settledResources(), before);
  });
});
