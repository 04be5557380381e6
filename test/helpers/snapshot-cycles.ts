// Guests that are saved and go on, again and again: one program runs all the time, in one VM after the other.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { consoleParameter, OWN_KERNEL_CMDLINE } from "../../vmm/config/defaults.js";
import { defaultInitrd, fastKernel } from "../../vmm/host/guest-files.js";
import { createSnapshot, createVm, openSnapshot, type Machine, type VmConfig } from "../../vmm/index.js";
import { collectOutput, type CollectedOutput } from "./collected-output.js";
import { COUNTED_GPA, COUNTER_GPA } from "./mini-kernel.js";

interface Cycles {
  readonly config: VmConfig;
  /** Of the snapshot. */
  readonly path: string;
  readonly cycles: number;
  /** Resolves when the guest has done enough in this VM. */
  readonly hasRun: (output: CollectedOutput) => Promise<void>;
  /** After each snapshot: what was written in this VM, and in all. */
  readonly check: (written: Buffer, all: Buffer) => void;
}

/** Boots the guest, saves it and lets it go on `cycles` times; all that it has written. */
async function runCycles({ config, path, cycles, hasRun, check }: Cycles): Promise<Buffer> {
  let all = Buffer.alloc(0);
  let output = collectOutput();
  let vm: Machine = createVm(config, output.host);
  let close = (): void => undefined;
  try {
    for (let cycle = 0; ; cycle++) {
      const run = vm.start({ threads: cycle % 2 === 0 ? "threads" : "main-first" });
      const said = output.bytes;
      await Promise.race([
        hasRun(output),
        run.then(({ outcome }) => assert.fail(`cycle ${String(cycle)}: ${outcome}: ${said().toString("latin1")}`)),
      ]);
      if (cycle < cycles) await createSnapshot(vm, path, { resume: false });
      vm.stop();
      await run;
      await vm.close();
      close();
      all = Buffer.concat([all, output.bytes()]);
      if (cycle === cycles) return all;
      check(output.bytes(), all);
      const opened = openSnapshot(path);
      close = () => {
        opened.close();
      };
      output = collectOutput();
      vm = opened.restore(output.host);
    }
  } finally {
    await vm.close();
  }
}

/** With a mini kernel that counts (`asm.countInMemory`): not one instruction is lost or done twice. */
export async function runCountingCycles(kernel: string, path: string, cpus: number, cycles: number): Promise<void> {
  const all = await runCycles({
    config: { kernel, memoryMib: 32, cpus },
    path,
    cycles,
    hasRun: (output) => output.until(300),
    check: (written, before) => {
      assertCounts(before);
      assertCountedMemory(path, written);
    },
  });
  assertCounts(all);
}

/** Bytes count up from `first`, without one lost or twice. */
export function assertCounts(bytes: Uint8Array, first = 1): void {
  const wrong = bytes.findIndex((byte, index) => byte !== ((first + index) & 0xff));
  assert.equal(wrong, -1, `byte ${String(wrong)} of ${String(bytes.length)}`);
}

/** A guest that has counted to the end of `bytes` has this in its memory. */
function assertCountedMemory(path: string, bytes: Uint8Array): void {
  const [name = ""] = readdirSync(path).filter((file) => file.startsWith("memory-"));
  const memory = readFileSync(join(path, name));
  const last = bytes.at(-1) ?? 0;
  const counter = memory[COUNTER_GPA];
  // It may have counted on, and not written that yet.
  assert.ok(counter === last || counter === ((last + 1) & 0xff), `${String(counter)}, not ${String(last)}`);
  const pages = Array.from({ length: 256 }, (_, page) => memory[COUNTED_GPA + page * 4096]);
  assert.deepEqual(
    pages,
    Array.from({ length: 256 }, (_, page) => page),
  );
}

/** Counts, on the disk too, and tells what it finds there and on its clock. */
const LINUX_PROGRAM = `
  mkdir /mnt; mount /dev/vda /mnt; i=0; bad=
  while :; do
    i=$((i + 1)); echo $i >/mnt/count; sync; read found </mnt/count; read up rest </proc/uptime
    [ $found = $i ] || bad="$bad $found"
    echo "$i $up$bad"; usleep 10000
  done`;
/** What a line is at the end of the program's. */
const LINE = /^(\d+) (\d+)\.(\d\d)$/;

/**
 * With Linux on a software KVM or any other: a program, its file on a disk, timers, the clock; with every kind of device
 * that needs no rights. `folder` takes disk and snapshot.
 */
export async function runLinuxCycles(folder: string, cycles: number): Promise<void> {
  const disk = join(folder, "disk.ext4");
  execFileSync("mke2fs", ["-q", "-F", "-t", "ext4", disk, "16M"]);
  const command = Buffer.from(["sh", "-c", LINUX_PROGRAM].join("\0")).toString("base64url");
  const config: VmConfig = {
    kernel: fastKernel(),
    initrd: defaultInitrd(),
    cmdline: `${consoleParameter("serial")} ${OWN_KERNEL_CMDLINE} vmlet.exec=${command} vmlet.tty=raw`,
    bareCmdline: true,
    quiet: true,
    memoryMib: 128,
    disks: [{ path: disk }],
    vsock: { cid: 3, path: join(folder, "vsock") },
    rng: true,
    balloon: { targetMib: 0 },
    commandChannel: true,
  };
  const lines = (bytes: Buffer): string[] => bytes.toString("latin1").split("\n").slice(0, -1);
  const check = (_written: Buffer, all: Buffer): void => {
    let before = 0;
    lines(all).forEach((line, index) => {
      const [, count, seconds = "", hundredths = ""] = LINE.exec(line) ?? [];
      const up = Number(seconds) * 100 + Number(hundredths);
      assert.equal(Number(count), index + 1, line);
      assert.ok(up >= before && (before === 0 || up - before < 6000), `${line}, after ${String(before)}`);
      before = up;
    });
  };
  const all = await runCycles({
    config,
    path: join(folder, "saved"),
    cycles,
    hasRun: async (output) => {
      while (lines(output.bytes()).length < 2) await new Promise((resolve) => setTimeout(resolve, 10));
    },
    check,
  });
  check(all, all);
  assert.ok(lines(all).length >= 2 * cycles);
}
