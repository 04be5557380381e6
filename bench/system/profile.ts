// Where a guest's kernel spends a boot: samples RIP a few hundred times a second and counts by
// function. For a KVM that emulates kernel code, where this is where the time goes.
//   node build/bench/system/profile.js [--kernel PATH] [--initrd PATH] [--cmdline TEXT] [--top N] [--timeline]
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";
import { buildVm } from "../../vmm/machine/builder.js";
import { resolveConfig } from "../../vmm/config/resolve.js";
import { kvm_regs, kvm_run, kvm_sync_regs } from "../../vmm/sys/kvm-abi.js";
import { ThreadAlarm } from "../../vmm/sys/thread-alarm.js";
import { exitKey } from "../../vmm/vcpu/exit-names.js";
import { explainExit } from "../../vmm/vcpu/explain-exit.js";
import { runVcpu, type ExitObserver } from "../../vmm/vcpu/loop.js";
import { ThreadMachine } from "../../vmm/machine/thread-machine.js";
import { MILESTONE_INIT } from "../../vmm/vcpu/shared.js";
import { FIXUP_NAMES } from "../../vmm/fixups/fixup.js";

const SAMPLE_MS = 10;
const KERNEL_START = 0xffff_8000_0000_0000n;

const { values } = parseArgs({
  options: {
    kernel: { type: "string", default: "guest/out/default/vmlinux" },
    map: { type: "string", default: "guest/out/default/System.map" },
    initrd: { type: "string", default: "guest/out/initramfs.cpio" },
    cmdline: { type: "string", default: "" },
    memory: { type: "string", default: "128" },
    top: { type: "string", default: "45" },
    timeline: { type: "boolean", default: false },
    quiet: { type: "boolean", default: true },
    log: { type: "boolean", default: false },
    whole: { type: "boolean", default: false },
    seconds: { type: "string", default: "120" },
  },
});

interface Symbol {
  readonly address: bigint;
  readonly name: string;
}

const symbols: Symbol[] = readFileSync(values.map, "utf8")
  .trim()
  .split("\n")
  .map((line) => line.split(" "))
  .filter(([, type]) => /[tT]/.test(type ?? ""))
  .map(([address = "", , name = ""]) => ({ address: BigInt(`0x${address}`), name }))
  .sort((a, b) => (a.address < b.address ? -1 : 1));

function symbolAt(rip: bigint): string {
  if (rip < KERNEL_START) return rip < 0x1_0000_0000n ? symbolAt(rip + 0xffff_ffff_8000_0000n) : "(user)";
  let low = 0;
  let high = symbols.length;
  while (low < high) {
    const middle = (low + high) >>> 1;
    if ((symbols[middle]?.address ?? 0n) <= rip) low = middle + 1;
    else high = middle;
  }
  return symbols[low - 1]?.name ?? "?";
}

const config = resolveConfig({
  kernel: values.kernel,
  initrd: values.initrd,
  cmdline: values.cmdline,
  memoryMib: Number(values.memory),
  quiet: values.quiet && !values.log,
});
const parts = buildVm(config);
const [vcpu] = parts.vcpus;
if (vcpu === undefined) throw new Error("No vCPU");
const machine = new ThreadMachine(parts.descriptor, 0, vcpu, []);
machine.shared.setVcpuThread(0, process.pid);

const counts = new Map<string, number>();
const timeline: [ms: number, name: string][] = [];
let samples = 0;
const observer: ExitObserver = {
  beforeExit: (reason) => {
    machine.beforeExit(reason);
    if (exitKey(reason) !== "intr") return;
    const name = symbolAt(vcpu.run.loadU64(kvm_run.s + kvm_sync_regs.regs + kvm_regs.rip));
    samples++;
    counts.set(name, (counts.get(name) ?? 0) + 1);
    timeline.push([performance.now() - started, name]);
  },
  fixUp: (reason) => machine.fixUp(reason),
  shouldLeave: () => true,
};

const cpuBefore = process.cpuUsage();
const started = performance.now();
const alarm = new ThreadAlarm(SAMPLE_MS);
alarm.set(SAMPLE_MS);
while (!machine.shared.isStopping() && performance.now() - started < Number(values.seconds) * 1000) {
  const outcome = runVcpu(vcpu, machine.pio, machine.mmio, observer);
  if (outcome === "unknown") {
    console.log(explainExit(vcpu, 0).message);
    break;
  }
  if (outcome !== "interrupted" && outcome !== "handled") break;
  const bytes = machine.shared.peekOutput();
  if (bytes.length > 0) {
    if (values.log) process.stdout.write(bytes);
    machine.shared.consumeOutput(bytes.length);
  }
  machine.shared.answerDoorbell();
  if (!values.whole && machine.shared.milestone(MILESTONE_INIT) !== undefined) break;
}
alarm.close();
const total = performance.now() - started;
const { user, system } = process.cpuUsage(cpuBefore);
// On a busy machine, the processor's time says more than the clock.
console.log(
  `\n${(total / 1000).toFixed(2)} s, of which ${((user + system) / 1e6).toFixed(2)} s on a processor; ${String(samples)} samples`,
);
const exits = machine.shared
  .totalExits()
  .flatMap((count, reason) => (count > 0 ? [`${exitKey(reason)} ${String(count)}`] : []));
console.log(`exits: ${exits.join(", ")}`);
console.log(
  `fix-ups: ${FIXUP_NAMES.map((name, i) => `${name} ${String(machine.shared.totalFixups()[i])}`).join(", ")}`,
);
for (const [name, count] of [...counts].sort((a, b) => b[1] - a[1]).slice(0, Number(values.top))) {
  console.log(
    `${((100 * count) / samples).toFixed(1).padStart(5)} %  ${(((count / samples) * total) / 1000).toFixed(2).padStart(6)} s  ${name}`,
  );
}
if (values.timeline) {
  const width = 500;
  const slots = new Map<number, Map<string, number>>();
  for (const [ms, name] of timeline) {
    const slot = Math.floor(ms / width);
    const inSlot = slots.get(slot) ?? new Map<string, number>();
    inSlot.set(name, (inSlot.get(name) ?? 0) + 1);
    slots.set(slot, inSlot);
  }
  for (const [slot, inSlot] of slots) {
    const top = [...inSlot]
      .sort((a, b) => b[1] - a[1])
      .slice(0, 4)
      .map(([name, n]) => `${name} ${String(n)}`);
    console.log(`${((slot * width) / 1000).toFixed(1).padStart(6)} s  ${top.join(", ")}`);
  }
}
process.exit(0);
