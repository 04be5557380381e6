// Snapshots on this host: what making one takes, how soon a VM of it runs and answers, with a new thread, a warm one, and
// from a pool; what the 50th costs; and whole processes beside those of containers.
import { spawnSync } from "node:child_process";
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { acceleratorKind, hasHardwareVirtualization } from "../../vmm/host/facts.js";
import { createSnapshot, warmThreads } from "../../vmm/index.js";
import { pool as threads } from "../../vmm/machine/threads.js";
import {
  atMost,
  hasSeries,
  measure,
  ratioAtMost,
  samplesOf,
  type Bench,
  type BenchContext,
  type BenchResult,
  type Measurements,
  type Target,
  type Variant,
} from "../harness.js";
import { PROBE } from "../ladder/rung-run.js";
import { docker } from "../ladder/rungs/docker.js";
import { runc } from "../ladder/rungs/oci-runtime.js";
import type { Rung } from "../ladder/rung.js";
import { openWorkspace } from "../ladder/workspace.js";
import { acceleratorInWords } from "../stamp.js";
import { GUEST_MIB } from "./guest.js";
import { AskedVm, ownMemory, saveGuest, timed, type SavedGuest } from "./snapshot-guest.js";

const NEW_THREAD = "restore, a new thread";
const WARM = "restore, a warm thread";
const POOL = "from a pool, a warm thread";
const CREATE = "create";
const CLONES = "50 clones";
const PROCESS = "vmlet snapshot restore, cat answers, end";
/** The ladder's: it prints a line and ends. */
const PROGRAM = [PROBE, "first"];
const TEMPLATE = "vmlet boot --from-template -- a program";
const RUNC = "runc run the same program";
const DOCKER = "docker run the same program";
const FIRST_RUN = "to_first_run_ms";
const WALL = "whole_process_ms";
const COUNT = 50;
const LAST = 10;
const WARM_UPS = 3;

async function clones({ snapshot, overrides }: SavedGuest) {
  const alive: AskedVm[] = [];
  const upTo = async (count: number, areAsked: boolean) => {
    const fresh = Array.from({ length: count - alive.length }, () => {
      const one = new AskedVm((host) => snapshot.restore(host, overrides()));
      one.start();
      return one;
    });
    alive.push(...fresh);
    if (areAsked) await Promise.all(fresh.map((one) => one.ask("now")));
    return ownMemory();
  };
  try {
    const before = await upTo(COUNT - LAST, false);
    const after = await upTo(COUNT, true);
    return {
      pss_of_the_50th_mib: (after.pss - before.pss) / LAST,
      private_of_the_50th_mib: (after.private - before.private) / LAST,
      threads_of_50: threads.size,
    };
  } finally {
    await Promise.all(alive.map((one) => one.end()));
  }
}

function wallMs(argv: readonly string[], input = ""): number {
  const [program = "", ...args] = argv;
  const began = performance.now();
  const { status, stderr } = spawnSync(program, args, {
    input,
    encoding: "utf8",
    env: { ...process.env, NODE_EXTRA_CA_CERTS: undefined },
  });
  const took = performance.now() - began;
  if (status !== 0 && status !== KILLED_BY_KEY) throw new Error(`status ${String(status)}: ${stderr.trim()}`);
  return took;
}

/** Ctrl-A x ends the VM with it. */
const KILLED_BY_KEY = 103;

function fromTemplate(initrd: string): Variant {
  const words = [
    "boot",
    "--from-template",
    "--quiet",
    "--accel",
    "kvm",
    "--memory",
    String(GUEST_MIB),
    "--initrd",
    initrd,
  ];
  const turn = (): { [WALL]: number } => ({ [WALL]: wallMs([resolve("dist/vmlet.js"), ...words, "--", ...PROGRAM]) });
  return warmed(TEMPLATE, turn);
}

/** The first turns make what the others go on from. */
function warmed(name: string, turn: () => { [WALL]: number }): Variant {
  for (let warmUp = 0; warmUp < WARM_UPS; warmUp++) turn();
  return { name, turn };
}

async function run(context: BenchContext): Promise<BenchResult> {
  context.progress("the guest that is to be saved boots");
  const guest = await saveGuest(hasHardwareVirtualization(acceleratorKind()) ? "default" : "fast");
  const work = mkdtempSync(join(tmpdir(), "vmlet-bench-"));
  const workspace = await openWorkspace(new AbortController().signal);
  const { snapshot, overrides } = guest;
  const pool = snapshot.pool({ size: 2 }, overrides);
  const closers: (() => unknown)[] = [];
  const wholeProcess = async (rung: Rung, name: string): Promise<Variant> => {
    const detected = rung.detect();
    if ("missing" in detected) {
      return { name, turn: () => Promise.reject(new Error(detected.missing)) };
    }
    const open = await rung.open(workspace);
    closers.push(() => open.close?.());
    let count = 0;
    const turn = (): { [WALL]: number } => {
      const instance = `${workspace.run}-snapshot-${rung.name}-${String(count++)}`;
      const ms = wallMs(open.command({ name: instance, program: PROGRAM }));
      open.remove?.([instance]);
      return { [WALL]: ms };
    };
    return warmed(name, turn);
  };
  const restored = (host: Parameters<typeof snapshot.restore>[0]) => snapshot.restore(host, overrides());
  const variants: Variant[] = [
    {
      name: NEW_THREAD,
      turn: async () => {
        await threads.endIdle();
        return timed(restored);
      },
    },
    {
      name: WARM,
      turn: async () => {
        await warmThreads(2);
        return timed(restored);
      },
    },
    {
      name: POOL,
      turn: async () => {
        await warmThreads(2);
        await pool.filled();
        return timed((host) => pool.take(host));
      },
    },
    {
      name: CREATE,
      turn: async () => {
        const began = performance.now();
        const { bytes, pausedMs } = await createSnapshot(guest.original.vm, join(work, "again"));
        return { create_ms: performance.now() - began, paused_ms: pausedMs, file_mib: bytes / 2 ** 20 };
      },
    },
    { name: CLONES, rounds: 1, turn: () => clones(guest) },
    {
      name: PROCESS,
      turn: () => ({
        [WALL]: wallMs(
          [
            resolve("dist/vmlet.js"),
            "snapshot",
            "restore",
            "--quiet",
            "--vsock",
            `path=${overrides().vsock.path}`,
            guest.folder,
          ],
          "now\n\u0001x",
        ),
      }),
    },
    fromTemplate(workspace.initrd),
    await wholeProcess(runc, RUNC),
    await wholeProcess(docker, DOCKER),
  ];
  try {
    const measured = await measure(variants, context);
    return { ...measured, targets: targets(measured), notes: notes() };
  } finally {
    await pool.close();
    for (const close of closers) await close();
    workspace.close();
    await guest.close();
    await threads.endIdle();
    rmSync(work, { recursive: true, force: true });
  }
}

function targets(measured: Measurements): Target[] {
  const list: Target[] = [];
  const limit = (name: string, variant: string, metric: string, most: number, unit: string): void => {
    if (!hasSeries(measured, variant, metric)) return;
    list.push(atMost(name, samplesOf(measured, variant, metric), most, unit, 0));
  };
  limit("restore call to first KVM_RUN", WARM, FIRST_RUN, 5, "ms");
  limit("the same from a pool", POOL, FIRST_RUN, 1, "ms");
  limit("create, 128 MiB", CREATE, "create_ms", 300, "ms");
  limit("the 50th clone, private memory with the guest's pages", CLONES, "private_of_the_50th_mib", 5, "MiB");
  for (const [other, most] of [
    [RUNC, 2],
    [RUNC, 6],
    [DOCKER, 0.5],
  ] as const) {
    if (!hasSeries(measured, TEMPLATE, WALL) || !hasSeries(measured, other, WALL)) continue;
    const [ours, theirs] = [samplesOf(measured, TEMPLATE, WALL), samplesOf(measured, other, WALL)];
    list.push(ratioAtMost(`whole process, restored, its answer, its end, against ${other}`, ours, theirs, most));
  }
  return list;
}

function notes(): string[] {
  return [
    `/dev/kvm of this host: ${acceleratorInWords()}. ${String(GUEST_MIB)} MiB, a disk to read, vsock; cat waits for a line.`,
    "Every VM is asked before it is started; to_answer_ms is until its program's answer has come back.",
    "The 50th clone: a tenth of what 10 cost that were asked once, beside 40 that wait; the guest's pages that it wrote are in it.",
    "QEMU has no snapshot that several processes start from, and boots no Linux on this KVM: it is left out.",
  ];
}

export const snapshot: Bench = {
  name: "snapshot",
  about: "snapshots: making one, VMs of it, whole processes beside containers",
  run,
};
