// A shared folder (virtio-fs, virtiofsd) beside a disk (virtio-blk, ext4) in the same guest: whole files, and many small ones.
// Both lie on the same file system of the host.
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { timeLimit } from "../../vmm/host/time-limit.js";
import { measure, type Bench, type BenchContext, type BenchResult, type Sample, type Variant } from "../harness.js";
import { acceleratorInWords } from "../stamp.js";

const PROGRAM = resolve("dist/vmlet.js");
const GUEST_MIB = 256;
const DISK_MIB = 256;
const FILE_MIB = 4;
const FILES = 100;
const BOOT_LIMIT_MS = 600_000;

/** Each step, and what its hundredths of a second become: MiB or files a second. */
const STEPS: readonly (readonly [metric: string, script: string, amount: number])[] = [
  ["write_mib_per_s", `dd if=/dev/zero of=/mnt/big bs=1M count=${String(FILE_MIB)} conv=fsync`, FILE_MIB],
  ["read_mib_per_s", "dd if=/mnt/big of=/dev/null bs=1M", FILE_MIB],
  ["create_per_s", `i=0; while [ $i -lt ${String(FILES)} ]; do : >/mnt/d/$i; i=$((i + 1)); done; sync`, FILES],
  ["stat_per_s", "ls -l /mnt/d", FILES],
  ["unlink_per_s", "rm -r /mnt/d; sync", FILES],
];

/** The guest tells when each step has begun and ended; nothing of an earlier one is cached. */
function script(mount: string): string {
  const steps = STEPS.map(
    ([metric, step]) =>
      `sync; echo 3 >/proc/sys/vm/drop_caches; read begin rest </proc/uptime; { ${step}; } >/dev/null 2>&1 || exit 2
      read end rest </proc/uptime; echo ${metric} $begin $end`,
  );
  return `mkdir -p /mnt && ${mount} && mkdir /mnt/d || exit 1\n${steps.join("\n")}\numount /mnt`;
}

function variant(name: string, prepare: () => string[], mount: string): Variant {
  return {
    name,
    turn: () => {
      const argv = ["boot", "--quiet", "--accel", "kvm", "--memory", String(GUEST_MIB), ...prepare()];
      const { status, stdout, stderr } = spawnSync(PROGRAM, [...argv, "--", "sh", "-c", script(mount)], {
        stdio: ["ignore", "pipe", "pipe"],
        timeout: timeLimit("a boot", BOOT_LIMIT_MS),
        encoding: "utf8",
      });
      if (status !== 0) throw new Error(`Exit status ${String(status)}: ${stderr}${stdout}`);
      return figures(stdout);
    },
  };
}

function figures(output: string): Sample {
  const sample: Record<string, number> = {};
  for (const [metric, , amount] of STEPS) {
    const [, begin, end] = new RegExp(`^${metric} ([\\d.]+) ([\\d.]+)$`, "m").exec(output) ?? [];
    // The guest's clock has hundredths.
    sample[metric] = amount / Math.max(0.01, Number(end) - Number(begin));
  }
  return sample;
}

async function run(context: BenchContext): Promise<BenchResult> {
  const work = mkdtempSync(join(tmpdir(), "vmlet-bench-"));
  try {
    const folder = join(work, "shared");
    const disk = join(work, "disk.img");
    const share = variant(
      "virtio-fs",
      () => {
        rmSync(folder, { recursive: true, force: true });
        mkdirSync(folder);
        return ["--share", folder];
      },
      "mount -t virtiofs share0 /mnt",
    );
    const block = variant(
      "virtio-blk, ext4",
      () => {
        rmSync(disk, { force: true });
        writeFileSync(disk, "");
        truncateSync(disk, DISK_MIB * 2 ** 20);
        execFileSync("mke2fs", ["-q", "-F", "-t", "ext4", disk], { stdio: "ignore" });
        return ["--disk", `path=${disk}`];
      },
      "mount -t ext4 /dev/vda /mnt",
    );
    const measured = await measure([share, block], context);
    const notes = [
      `/dev/kvm of this host: ${acceleratorInWords()}. One vCPU, ${String(GUEST_MIB)} MiB. A file of ${String(FILE_MIB)} MiB in pieces of ` +
        `1 MiB, written with fsync; ${String(FILES)} empty files made by a shell, listed with their attributes, removed. Caches are dropped before each step.`,
      "A shell's own work counts in create_per_s; the disk's file system does nothing on the host for small files.",
    ];
    return { ...measured, targets: [], notes };
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

export const shares: Bench = {
  name: "shares",
  about: "a shared folder beside a disk: whole files, many small ones",
  run,
};
