// An image becomes a bootable root: MB/s beside `cat` of the same bytes and `docker load`, and what a second image that
// shares layers adds to the cache. Each is over when its bytes are on the medium.
import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { openDocker, whyNoDocker, type DockerHost } from "../../test/helpers/docker-host.js";
import { prepareImage } from "../../vmm/image/index.js";
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

/** `bytes` of the layer that both images have. */
const LAYER_BYTES = 500_000_000;
/** Files of a system: many small ones, most bytes in few. */
const FILE_BYTES = [1000, 4000, 9000, 30_000, 120_000, 900_000, 8_000_000];
const MIB = 1024 * 1024;
const IMAGE = "vmlet, image to root";
const SECOND = "vmlet, a second image";
const CAT = "cat to a file";
const LOAD = "docker load";
const TIME = "time_ms";
const SPEED = "speed_mb_per_s";
const ADDED = "added_mib";

function sha256(path: string): string {
  const hash = createHash("sha256");
  // The benches' layers are below 2 GiB.
  return hash.update(readFileSync(path)).digest("hex");
}

function makeLayers(folder: string): { base: string; top: string } {
  const base = join(folder, "base");
  let made = 0;
  for (let index = 0; made < LAYER_BYTES; index++) {
    const bytes = FILE_BYTES[index % FILE_BYTES.length] ?? 0;
    const place = join(base, `usr/lib/d${String(index % 100)}`);
    mkdirSync(place, { recursive: true });
    writeFileSync(join(place, `f${String(index)}`), Buffer.alloc(bytes, `contents of ${String(index)} `));
    made += bytes;
  }
  const top = join(folder, "top");
  mkdirSync(top);
  writeFileSync(join(top, "app"), Buffer.alloc(MIB, "app"));
  for (const name of [base, top]) execFileSync("tar", ["-C", name, "-cf", `${name}.tar`, "."]);
  return { base: `${base}.tar`, top: `${top}.tar` };
}

/** What `docker save` would write. */
function archive(folder: string, name: string, layers: readonly string[]): string {
  const digests = layers.map(sha256);
  const place = join(folder, `${name}.d`);
  mkdirSync(place);
  const rootfs = { type: "layers", diff_ids: digests.map((digest) => `sha256:${digest}`) };
  writeFileSync(join(place, "config.json"), JSON.stringify({ architecture: "amd64", os: "linux", config: {}, rootfs }));
  layers.forEach((layer, index) => {
    execFileSync("cp", ["--reflink=auto", layer, join(place, `${digests[index] ?? ""}.tar`)]);
  });
  const manifest = [
    { Config: "config.json", RepoTags: [`bench-${name}:1`], Layers: digests.map((digest) => `${digest}.tar`) },
  ];
  writeFileSync(join(place, "manifest.json"), JSON.stringify(manifest));
  const path = join(folder, `${name}.tar`);
  execFileSync("sh", ["-c", `cd "${place}" && tar -cf "${path}" *`]);
  rmSync(place, { recursive: true });
  return path;
}

function sync(): void {
  execFileSync("sync");
}

function usedMib(folder: string): number {
  return Number(execFileSync("du", ["-sk", folder], { encoding: "latin1" }).split("\t")[0]) / 1024;
}

async function timed(bytes: number, work: () => Promise<void> | void): Promise<Record<string, number>> {
  sync();
  const startMs = performance.now();
  await work();
  sync();
  const ms = performance.now() - startMs;
  return { [TIME]: ms, [SPEED]: bytes / ms / 1000 };
}

function variants(folder: string, docker: DockerHost | undefined): Variant[] {
  const { base, top } = makeLayers(folder);
  const one = archive(folder, "one", [base]);
  const two = archive(folder, "two", [base, top]);
  const bytes = statSync(one).size;
  const cache = join(folder, "cache");
  const prepare = async (path: string): Promise<void> =>
    (await prepareImage(`docker-archive:${path}`, { cache })).release();
  const list: Variant[] = [
    {
      name: IMAGE,
      turn: () => {
        rmSync(cache, { recursive: true, force: true });
        return timed(bytes, () => prepare(one));
      },
    },
    {
      name: SECOND,
      turn: async () => {
        rmSync(cache, { recursive: true, force: true });
        await prepare(one);
        const before = usedMib(cache);
        const { [TIME]: ms = 0 } = await timed(bytes, () => prepare(two));
        return { [TIME]: ms, [ADDED]: usedMib(cache) - before };
      },
    },
    {
      name: CAT,
      turn: () => timed(bytes, () => void execFileSync("sh", ["-c", `cat "${one}" >"${join(folder, "copy")}"`])),
    },
  ];
  if (docker === undefined) return list;
  const [program = "", ...words] = docker.client;
  const run = (...more: string[]): void => {
    const { status, stderr } = spawnSync(program, [...words, ...more], { encoding: "utf8" });
    if (status !== 0) throw new Error(stderr);
  };
  list.push({
    name: LOAD,
    turn: async () => {
      const sample = await timed(bytes, () => run("load", "-i", one));
      run("rmi", "bench-one:1");
      return sample;
    },
  });
  return list;
}

export const image: Bench = {
  name: "image",
  about: "an image of 500 MB to a bootable root, beside cat and docker load; what a second one adds",
  run: async (context: BenchContext): Promise<BenchResult> => {
    const folder = mkdtempSync(join(tmpdir(), "vmlet-bench-"));
    const why = whyNoDocker();
    const docker = why === undefined ? await openDocker() : undefined;
    try {
      const measurements = await measure(variants(folder, docker), context);
      const failures: Failure[] = [
        ...measurements.failures,
        ...(why === undefined ? [] : [{ variant: LOAD, error: why }]),
      ];
      return {
        ...measurements,
        failures,
        targets: targetsOf(measurements),
        notes: ["one layer of 500 MB in files of 1 kB to 8 MB, not packed; the second image has a layer of 1 MiB more"],
      };
    } finally {
      await docker?.close();
      rmSync(folder, { recursive: true, force: true });
    }
  },
};

function targetsOf(measured: Pick<BenchResult, "series" | "failures">): Target[] {
  const targets: Target[] = [];
  const ratio = (name: string, other: string, limit: number): void => {
    if (!hasSeries(measured, IMAGE, TIME) || !hasSeries(measured, other, TIME)) return;
    targets.push(ratioAtMost(name, samplesOf(measured, IMAGE, TIME), samplesOf(measured, other, TIME), limit));
  };
  ratio("an image to a root, of cat's time", CAT, 2);
  ratio("an image to a root, of docker load's time", LOAD, 1);
  if (hasSeries(measured, SECOND, ADDED)) {
    targets.push(atMost("a second image with 1 MiB of its own adds", samplesOf(measured, SECOND, ADDED), 3, "MiB"));
  }
  return targets;
}
