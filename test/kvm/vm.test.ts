// Needs: a /dev/kvm of any kind. The whole monitor with kernels of a few instructions.
import assert from "node:assert/strict";
import { readdirSync } from "node:fs";
import { createVm, type StartOptions, type VmConfig, type VmExit } from "../../vmm/index.js";
import { skip } from "../helpers/skip.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { asm, miniKernel, miniKernelWith } from "../helpers/mini-kernel.js";

interface Run {
  readonly exit: VmExit;
  readonly output: string;
}

interface RunOptions extends Partial<VmConfig> {
  readonly threads?: StartOptions["threads"];
  /** Stop the VM after so many `ms`. */
  readonly stopAfter?: number;
  /** The console takes a line only every so many `ms`. */
  readonly slowConsole?: number;
}

async function run(code: number[][], options: RunOptions = {}): Promise<Run> {
  const { threads = "main-first", stopAfter, slowConsole, ...config } = options;
  const kernel = miniKernel(...code);
  const chunks: Buffer[] = [];
  const vm = createVm(
    { kernel: kernel.path, memoryMib: 32, ...config },
    {
      output: (bytes, done) => {
        chunks.push(Buffer.from(bytes));
        if (slowConsole === undefined) setImmediate(done);
        else setTimeout(done, slowConsole);
      },
    },
  );
  const timer = stopAfter === undefined ? undefined : setTimeout(() => vm.stop(), stopAfter);
  try {
    const exit = await vm.start({ threads });
    return { exit, output: Buffer.concat(chunks).toString("latin1") };
  } finally {
    clearTimeout(timer);
    await vm.close();
    kernel.remove();
  }
}

describe("kvm: vm", function () {
  this.timeout(30_000);

  before(function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
  });

  for (const threads of ["main-first", "threads"] as const) {
    it(`${threads}: prints, marks milestones, powers off with its status`, async () => {
      const { exit, output } = await run(
        [asm.milestone(123), asm.print("Hello\n"), asm.milestone(124), asm.powerOff(42), asm.haltForEver()],
        { threads },
      );
      assert.deepEqual([exit.outcome, exit.exitStatus, output], ["poweroff", 42, "Hello\n"]);
      const { firstRun, init, commandStart, end } = exit.milestones;
      const times = [firstRun, init, commandStart, end].map((time) => time ?? 0n);
      assert.ok(
        times.every((time, i) => time > 0n && time >= (times[i - 1] ?? 0n)),
        times.join(" "),
      );
      assert.ok((exit.exits["mmio"] ?? 0) >= 4);
    });

    it(`${threads}: a reset, a triple fault and a jump into nothing have their names`, async () => {
      assert.equal((await run([asm.reset(), asm.spin()], { threads })).exit.outcome, "reboot");
      assert.equal((await run([asm.undefinedInstruction()], { threads })).exit.outcome, "triple-fault");
    });

    it(`${threads}: a spinning guest is stopped from outside`, async () => {
      const { exit } = await run([asm.print("spin\n"), asm.spin()], { threads, stopAfter: 300 });
      assert.equal(exit.outcome, "killed");
    });
  }

  it("a kernel that another thread reads is whole before its first instruction", async () => {
    const dataGpa = 17 * 2 ** 20;
    const bytes = new Uint8Array(5 * 2 ** 20).fill(0x2e);
    bytes[bytes.length - 1] = 0x21;
    const last = Buffer.alloc(8);
    last.writeBigUInt64LE(BigInt(dataGpa + bytes.length - 1));
    // mov al, [last]; mov edx, port; out dx, al
    const printLast = [0xa0, ...last, 0xba, 0xf8, 0x03, 0, 0, 0xee];
    const kernel = miniKernelWith([{ gpa: dataGpa, bytes }], [printLast, asm.powerOff(0)]);
    let output = "";
    const vm = createVm(
      { kernel: kernel.path, memoryMib: 32 },
      {
        output: (chunk, done) => {
          output += Buffer.from(chunk).toString("latin1");
          setImmediate(done);
        },
      },
    );
    await vm.start({ threads: "main-first" });
    await vm.close();
    // And one that is closed before it has been read.
    await createVm({ kernel: kernel.path, memoryMib: 32 }, { output: () => undefined }).close();
    kernel.remove();
    assert.equal(output, "!");
  });

  it("the event loop stays alive while a guest spins on its thread", async () => {
    let ticks = 0;
    const timer = setInterval(() => ticks++, 10);
    await run([asm.spin()], { threads: "threads", stopAfter: 500 });
    clearInterval(timer);
    // A blocked loop would tick once; a busy machine must still pass.
    assert.ok(ticks > 5, `${String(ticks)} ticks of 10 ms in 500 ms`);
  });

  it("vCPU 0 moves from the main thread to its own after the milestone, and goes on", async () => {
    const { exit, output } = await run(
      [asm.milestone(123), asm.print("before\n"), ...Array.from({ length: 400 }, () => asm.print("x")), asm.spin()],
      { stopAfter: 2500 },
    );
    assert.equal(exit.outcome, "killed");
    assert.equal(output, `before\n${"x".repeat(400)}`);
  });

  it("a guest that halts for ever ends as halted", async () => {
    const { exit } = await run([asm.print("bye\n"), asm.haltForEver()]);
    assert.equal(exit.outcome, "halted");
  });

  it("a flood of output is held to the console's pace and loses nothing, and memory stays bounded", async () => {
    const before = process.memoryUsage().rss;
    const { exit, output } = await run([asm.count()], { stopAfter: 1500, slowConsole: 5 });
    assert.equal(exit.outcome, "killed");
    const bytes = Buffer.from(output, "latin1");
    assert.ok(bytes.length > 1000, `${String(bytes.length)} bytes`);
    assert.equal(
      bytes.findIndex((byte, i) => byte !== (i & 0xff)),
      -1,
    );
    assert.ok(process.memoryUsage().rss - before < 200 * 2 ** 20);
  });

  it("four vCPUs: the application processors wait, and all are gone at the end", async () => {
    const { exit } = await run([asm.print("smp\n"), asm.powerOff(0)], { cpus: 4 });
    assert.equal(exit.outcome, "poweroff");
  });

  it("leaves no file descriptor behind, not even when the kernel is refused", async () => {
    await run([asm.powerOff(0)]);
    const open = (): number => readdirSync("/proc/self/fd").length;
    const before = open();
    for (let i = 0; i < 3; i++) await run([asm.powerOff(0)], { cpus: 2 });
    for (const kernel of ["/dev/null", "/nonexistent", "/etc", "package.json"]) {
      assert.throws(() => createVm({ kernel }, { output: () => undefined }), { code: "ERR_KERNEL_IMAGE" });
    }
    assert.equal(open(), before);
  });
});
