// Programs in VMs: `vmlet run` as a whole process beside `docker run` and `runc run` of the same image; a command in a VM that
// runs, beside what the guest itself needs for it; bytes through a command's output and input, and what the VM's process keeps.
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { openDocker, whyNoDocker, type DockerHost } from "../../test/helpers/docker-host.js";
import { shareProblem } from "../../test/helpers/share-guard.js";
import { Vm } from "../../vmm/index.js";
import {
  atMost,
  hasSeries,
  measure,
  ratioAtMost,
  samplesOf,
  type Bench,
  type BenchContext,
  type BenchResult,
  type Failure,
  type Target,
  type Variant,
} from "../harness.js";
import { acceleratorInWords } from "../stamp.js";
import { makeRoot, runcVariant, WALL, wholeProcess } from "./whole-process.js";

const APPLETS = ["sh", "true", "cat", "dd"];
const RUN = "vmlet run IMAGE true";
const VOLUME = "vmlet run --volume IMAGE true";
const DOCKER = "docker run IMAGE true";
const RUNC = "runc run true";
const EXEC = "vm.exec true";
const INSIDE = "the guest's own fork and exec of true";
const OUT = "bytes out of a command";
const IN = "bytes into a command";
const TIME = "time_ms";
const SPEED = "speed_mib_per_s";
const KEPT = "kept_mib";
const FORKS = 10;
const STREAM_MIB = 8;
const MIB = 2 ** 20;
/** Between two commands: the agent makes itself ready for the next, `ms`. */
const PAUSE_MS = 200;

/** A folder of its own each time. */
function volumeVariants(folder: string, image: string): Variant[] {
  const why = shareProblem();
  if (why !== undefined) return [{ name: VOLUME, turn: () => Promise.reject(new Error(why)) }];
  return [
    wholeProcess(VOLUME, (round) => {
      const shared = join(folder, `shared-${String(round)}`);
      mkdirSync(shared);
      return [resolve("dist/vmlet.js"), "run", "--quiet", "--volume", `${shared}:/data`, image, "true"];
    }),
  ];
}

function commands(vm: Vm): Variant[] {
  const residentMib = (): number => vm.stats().residentBytes / MIB;
  const timed = async (task: () => PromiseLike<unknown>): Promise<number> => {
    const began = performance.now();
    await task();
    return performance.now() - began;
  };
  const stream = async (task: () => PromiseLike<unknown>): Promise<{ [SPEED]: number; [KEPT]: number }> => {
    const before = residentMib();
    const ms = await timed(task);
    return { [SPEED]: STREAM_MIB / (ms / 1000), [KEPT]: residentMib() - before };
  };
  const loop = `i=0; while [ $i -lt ${String(FORKS)} ]; do /bin/true; i=$((i+1)); done`;
  return [
    {
      name: EXEC,
      turn: async () => {
        await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
        return { [TIME]: await timed(() => vm.exec(["/bin/true"], { check: true })) };
      },
    },
    {
      name: INSIDE,
      turn: async () => ({ [TIME]: (await timed(() => vm.exec(["sh", "-c", loop], { check: true }))) / FORKS }),
    },
    {
      name: OUT,
      turn: () =>
        stream(async () => {
          const words = ["dd", "if=/dev/zero", "bs=64k", `count=${String(STREAM_MIB * 16)}`];
          let length = 0;
          for await (const { output, data } of vm.exec(words)) if (output === "stdout") length += data.length;
          if (length !== STREAM_MIB * MIB) throw new Error(`${String(length)} bytes have come`);
        }),
    },
    {
      name: IN,
      turn: () =>
        stream(() => vm.exec(["dd", "of=/dev/null", "bs=64k"], { stdin: Buffer.alloc(STREAM_MIB * MIB), check: true })),
    },
  ];
}

async function measureAll(folder: string, docker: DockerHost | undefined, context: BenchContext) {
  const root = makeRoot(folder, APPLETS);
  const image = join(folder, "image.tar");
  execFileSync("tar", ["-C", root, "-cf", image, "."]);
  context.progress("the guests that later ones go on from boot");
  const list = [
    wholeProcess(RUN, () => [resolve("dist/vmlet.js"), "run", "--quiet", image, "true"]),
    ...volumeVariants(folder, image),
    runcVariant(RUNC, folder, root),
  ];
  if (docker !== undefined) {
    docker.importTree(root, "vmlet-bench-run");
    const words = [...docker.client, "run", "--rm", "--network", "none", "vmlet-bench-run", "true"];
    list.push(wholeProcess(DOCKER, () => words));
  }
  const vm = await Vm.start({ image });
  try {
    return await measure([...list, ...commands(vm)], context);
  } finally {
    await vm.close();
  }
}

export const run: Bench = {
  name: "run",
  about: "vmlet run beside docker run and runc run; commands and bytes of a VM that runs",
  run: async (context: BenchContext): Promise<BenchResult> => {
    const folder = mkdtempSync(join(tmpdir(), "vmlet-bench-"));
    const state = process.env["VMLET_STATE"];
    process.env["VMLET_STATE"] = join(folder, "state");
    const why = whyNoDocker();
    const docker = why === undefined ? await openDocker() : undefined;
    try {
      const measurements = await measureAll(folder, docker, context);
      const failures: Failure[] = [
        ...measurements.failures,
        ...(why === undefined ? [] : [{ variant: DOCKER, error: why }]),
      ];
      return { ...measurements, failures, targets: targetsOf(measurements), notes: notes() };
    } finally {
      await docker?.close();
      if (state === undefined) delete process.env["VMLET_STATE"];
      else process.env["VMLET_STATE"] = state;
      rmSync(folder, { recursive: true, force: true });
    }
  },
};

function targetsOf(measured: Pick<BenchResult, "series" | "failures">): Target[] {
  const targets: Target[] = [];
  const ratio = (name: string, one: string, other: string, metric: string, limit: number): void => {
    if (!hasSeries(measured, one, metric) || !hasSeries(measured, other, metric)) return;
    targets.push(ratioAtMost(name, samplesOf(measured, one, metric), samplesOf(measured, other, metric), limit));
  };
  ratio("vmlet run of an image, of docker run's time", RUN, DOCKER, WALL, 1);
  ratio("a command in a VM that runs, of the guest's own time for it", EXEC, INSIDE, TIME, 1);
  for (const name of [OUT, IN]) {
    if (hasSeries(measured, name, KEPT)) {
      targets.push(atMost(`${name}: the VM's process grows`, samplesOf(measured, name, KEPT), 16, "MiB"));
    }
  }
  return targets;
}

function notes(): string[] {
  return [
    `/dev/kvm of this host: ${acceleratorInWords()}. An image of Debian's static busybox, 512 MiB, no network.`,
    "vmlet run goes on from a guest in which true is loaded: this command has come before.",
    "On a KVM that emulates the guest's kernel, a pipe inside the guest is as slow as one to the host.",
  ];
}
