// A container as a VM: `docker run --runtime=vmlet` as a whole process beside plain `docker run` and `runc run` of the same image;
// `docker exec`; the disk of the root and of a volume, and the network between host and container, of both runtimes.
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { runProgram, tryProgram } from "../ladder/run-program.js";
import { openDocker, whyNoDocker, type DockerHost } from "../../test/helpers/docker-host.js";
import { shareProblem } from "../../test/helpers/share-guard.js";
import {
  hasSeries,
  measure,
  ratioAtMost,
  samplesOf,
  type Bench,
  type BenchContext,
  type BenchResult,
  type Variant,
} from "../harness.js";
import { acceleratorInWords } from "../stamp.js";
import { makeRoot, runcVariant, WALL, wallMs, wholeProcess } from "./whole-process.js";

const APPLETS = ["sh", "true", "cat", "dd", "nc", "sleep", "rm"];
const RUNC = "runc run true";
const RUNTIMES = ["runc", "vmlet"] as const;
type Runtime = (typeof RUNTIMES)[number];
const runOf = (runtime: Runtime): string => `docker run --runtime=${runtime} IMAGE true`;
const execOf = (runtime: Runtime): string => `docker exec true, ${runtime}`;
const dataOf = (runtime: Runtime): string => `disk and network, ${runtime}`;
const IMAGE = "vmlet-bench-oci";
const NETWORK = "vmlet-bench";
/** Of RFC 2544, set aside for benchmarks. */
const SUBNET = "198.18.252.0/24";
const ADDRESSES = { runc: "198.18.252.8", vmlet: "198.18.252.9" } as const;
const PORTS = { out: 7, in: 8 } as const;
const KIB = 1024;
const MIB = 2 ** 20;
/** As much as a guest whose kernel is emulated moves in some seconds; and as much as one can tell the speed of where none is. */
const DISK_KIB = { runc: 131_072, vmlet: 4096 } as const;
const NETWORK_KIB = { runc: 131_072, vmlet: 512 } as const;
const PIECE_KIB = 256;
/** Not measured more often: seconds each. */
const DATA_ROUNDS = 2;
const DATA_LIMIT_MS = 300_000;
const LISTENS_MS = 20_000;
const RETRY_MS = 100;
/** At most twice the time of a container that shares the host's kernel. */
const LIMIT = 2;

/** It serves as many bytes at one port, and takes what comes at the other. */
function serve(runtime: Runtime): string {
  const bytes = `dd if=/dev/zero bs=${String(PIECE_KIB)}k count=${pieces(NETWORK_KIB[runtime])} 2>/dev/null`;
  return `(while :; do ${bytes} | nc -l -p ${String(PORTS.out)}; done) &
    while :; do nc -l -p ${String(PORTS.in)} >/dev/null; done`;
}

function pieces(kib: number): string {
  return String(kib / PIECE_KIB);
}

/** A container of each runtime that goes on, with a volume and an interface. */
function begin(docker: DockerHost, folder: string, runtime: Runtime): void {
  const volume = join(folder, `volume-${runtime}`);
  mkdirSync(volume);
  const options = ["--name", runtime, "--network", NETWORK, "--ip", ADDRESSES[runtime], "--volume", `${volume}:/data`];
  const [program = "", ...words] = [...docker.client, "run", "--detach", `--runtime=${runtime}`, ...options];
  runProgram(program, [...words, IMAGE, "sh", "-c", serve(runtime)]);
}

/** By the guest's clock, which tells hundredths of a second: without the command's start. */
function ddMibPerS(docker: DockerHost, runtime: Runtime, words: readonly string[]): number {
  const [program = "", ...client] = docker.client;
  const copy = `dd ${words.join(" ")} bs=${String(PIECE_KIB)}k count=${pieces(DISK_KIB[runtime])} 2>/dev/null`;
  const script = `read -r before _ </proc/uptime && ${copy} && read -r after _ </proc/uptime && echo $before $after`;
  const said = runProgram(program, [...client, "exec", runtime, "sh", "-c", script], { limitMs: DATA_LIMIT_MS });
  const [before = NaN, after = NaN] = said.split(" ").map(Number);
  return DISK_KIB[runtime] / KIB / (after - before);
}

/** Whoever listens may still have to begin again after the last one. */
async function connected(host: string, port: number): Promise<Socket> {
  for (const began = performance.now(); ;) {
    const socket = connect(port, host);
    try {
      await once(socket, "connect");
      return socket.setTimeout(DATA_LIMIT_MS, () =>
        socket.destroy(new Error("Nothing moves between host and container")),
      );
    } catch (error) {
      socket.destroy();
      if (performance.now() - began > LISTENS_MS) throw error;
      await delay(RETRY_MS);
    }
  }
}

async function receivedMibPerS(runtime: Runtime): Promise<number> {
  const socket = await connected(ADDRESSES[runtime], PORTS.out);
  const began = performance.now();
  let length = 0;
  for await (const piece of socket) length += (piece as Buffer).length;
  if (length !== NETWORK_KIB[runtime] * KIB) throw new Error(`${String(length)} bytes have come`);
  return length / MIB / ((performance.now() - began) / 1000);
}

/** Until the container has closed its end: all has arrived then. */
async function sentMibPerS(runtime: Runtime): Promise<number> {
  const socket = await connected(ADDRESSES[runtime], PORTS.in);
  const began = performance.now();
  socket.end(Buffer.alloc(NETWORK_KIB[runtime] * KIB));
  socket.resume();
  await once(socket, "close");
  return NETWORK_KIB[runtime] / KIB / ((performance.now() - began) / 1000);
}

function dataVariant(docker: DockerHost, runtime: Runtime): Variant {
  return {
    name: dataOf(runtime),
    rounds: DATA_ROUNDS,
    turn: async () => {
      const dd = (...words: readonly string[]): number => ddMibPerS(docker, runtime, words);
      return {
        root_write_mib_per_s: dd("if=/dev/zero", "of=/file", "conv=fsync"),
        root_read_again_mib_per_s: dd("if=/file", "of=/dev/null"),
        volume_write_mib_per_s: dd("if=/dev/zero", "of=/data/file", "conv=fsync"),
        volume_read_again_mib_per_s: dd("if=/data/file", "of=/dev/null"),
        tcp_from_container_mib_per_s: await receivedMibPerS(runtime),
        tcp_to_container_mib_per_s: await sentMibPerS(runtime),
      };
    },
  };
}

function variants(docker: DockerHost, folder: string, context: BenchContext): Variant[] {
  const root = makeRoot(folder, APPLETS);
  docker.importTree(root, IMAGE);
  context.progress("the guests that later ones go on from boot");
  const runs = RUNTIMES.map((runtime) =>
    wholeProcess(runOf(runtime), () => [
      ...docker.client,
      ...["run", "--rm", "--network", "none", `--runtime=${runtime}`, IMAGE, "true"],
    ]),
  );
  const [program = "", ...client] = docker.client;
  runProgram(program, [...client, "network", "create", "--subnet", SUBNET, NETWORK]);
  for (const runtime of RUNTIMES) begin(docker, folder, runtime);
  return [
    ...runs,
    runcVariant(RUNC, folder, root),
    ...RUNTIMES.map((runtime) => ({
      name: execOf(runtime),
      turn: () => ({ [WALL]: wallMs([...docker.client, "exec", runtime, "true"]) }),
    })),
    ...RUNTIMES.map((runtime) => dataVariant(docker, runtime)),
  ];
}

export const oci: Bench = {
  name: "oci",
  about: "docker run --runtime=vmlet beside plain docker run; exec, disk and network of both",
  run: async (context: BenchContext): Promise<BenchResult> => {
    const why = whyNoDocker() ?? shareProblem();
    if (why !== undefined) {
      return { series: [], failures: [{ variant: runOf("vmlet"), error: why }], targets: [], notes: [] };
    }
    const folder = mkdtempSync(join(tmpdir(), "vmlet-bench-"));
    const docker = await openDocker(["--add-runtime", `vmlet=${resolve("dist/vmlet-runtime")}`]);
    try {
      const measurements = await measure(variants(docker, folder, context), context);
      const names = [runOf("vmlet"), runOf("runc")] as const;
      const targets = names.every((name) => hasSeries(measurements, name, WALL))
        ? [
            ratioAtMost(
              "docker run with vmlet as its runtime, of plain docker run's time",
              samplesOf(measurements, names[0], WALL),
              samplesOf(measurements, names[1], WALL),
              LIMIT,
            ),
          ]
        : [];
      return { ...measurements, targets, notes: notes() };
    } finally {
      const [program = "", ...client] = docker.client;
      for (const runtime of RUNTIMES) tryProgram(program, [...client, "rm", "--force", runtime]);
      tryProgram(program, [...client, "network", "rm", NETWORK]);
      await docker.close();
      rmSync(folder, { recursive: true, force: true });
    }
  },
};

function notes(): string[] {
  return [
    `/dev/kvm of this host: ${acceleratorInWords()}. An image of Debian's static busybox; a container has come before.`,
    "On a KVM that emulates the guest's kernel, disk and network are as fast as that copies.",
  ];
}
