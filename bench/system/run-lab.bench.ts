// `vmlet run` beside `runc run` on a host with hardware virtualization, so far as an emulated one is that: both in one lab, as whole
// processes. What natively is a matter of the software KVM's emulator is one of kvm_amd here; times are an emulator's, their ratio is said.
import { copyFileSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { execFileSync } from "node:child_process";
import { tmpdir } from "node:os";
import { basename, join } from "node:path";
import { findProgram } from "../../vmm/host/programs.js";
import type { LabInput } from "../../vmm/lab/image.js";
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
import { LAB_VMLET, LabHost } from "./lab-host.js";

const BUSYBOX = "/bin/busybox";
const RUN = "in the lab: vmlet run IMAGE true";
const RUNC = "in the lab: runc run true";
const WALL = "whole_process_ms";
/** Of a boot; of a template; of a program's template; a run. */
const WARM_UPS = 4;
/** A machine of one's own for less than five containers. */
const LIMIT = 5;
const FOLDER = "/tmp/bench";
const LIBRARIES = "/input/bench/lib";

/** runc and what it links to, but the C library, which is there; an image, as a tar and as a tree. */
function inputs(folder: string, runc: string): LabInput[] {
  const root = join(folder, "root");
  for (const name of ["bin", "dev", "etc", "proc", "sys", "tmp"]) mkdirSync(join(root, name), { recursive: true });
  copyFileSync(BUSYBOX, join(root, "bin/true"));
  const image = join(folder, "image.tar");
  execFileSync("tar", ["-C", root, "-cf", image, "."]);
  const libraries = execFileSync("ldd", [runc], { encoding: "utf8" }).match(/\/\S+/g) ?? [];
  return [
    { from: "guest/out/default/vmlinux", to: "vmlet/guest/out/default/vmlinux" },
    { from: "guest/out/tiny.cpio", to: "vmlet/guest/out/tiny.cpio" },
    { from: image, to: "bench/image.tar" },
    { from: root, to: "bench/root" },
    { from: runc, to: "bench/runc" },
    ...libraries
      .filter((path) => !/\/(libc\.so|ld-linux)/.test(path))
      .map((path) => ({ from: path, to: `bench/lib/${basename(path)}` })),
  ];
}

const SET_UP = `set -e
mount -t cgroup2 none /sys/fs/cgroup
mkdir -p ${FOLDER}
cp -r /input/bench/root ${FOLDER}/root
cd ${FOLDER}
LD_LIBRARY_PATH=${LIBRARIES} /input/bench/runc spec
sed -i 's/"terminal": true/"terminal": false/; s#"rootfs"#"root"#; s#"sh"#"/bin/true"#' config.json`;

async function variants(host: LabHost): Promise<Variant[]> {
  await host.shell(SET_UP);
  const image = [...LAB_VMLET, "run", "--quiet", "/input/bench/image.tar", "/bin/true"];
  for (let warmUp = 0; warmUp < WARM_UPS; warmUp++) await host.time(image);
  let container = 0;
  const runc = (): readonly string[] => [
    ...["env", `LD_LIBRARY_PATH=${LIBRARIES}`],
    ...["/input/bench/runc", "run", "--bundle", FOLDER, `bench-${String(container++)}`],
  ];
  return [
    { name: RUN, turn: async () => ({ [WALL]: (await host.time(image)).wallMs }) },
    { name: RUNC, turn: async () => ({ [WALL]: (await host.time(runc())).wallMs }) },
  ];
}

export const runLab: Bench = {
  name: "run-lab",
  about: "vmlet run beside runc run, both in the lab",
  run: async (context: BenchContext): Promise<BenchResult> => {
    const runc = findProgram("runc");
    if (runc === undefined) {
      return { series: [], failures: [{ variant: RUNC, error: "runc is not installed" }], targets: [], notes: [] };
    }
    const folder = mkdtempSync(join(tmpdir(), "vmlet-bench-"));
    try {
      const host = await LabHost.start(inputs(folder, runc));
      try {
        const measurements = await measure(await variants(host), context);
        const isWhole = [RUN, RUNC].every((name) => hasSeries(measurements, name, WALL));
        const ratio = (): BenchResult["targets"] => [
          ratioAtMost(
            "vmlet run of an image, of runc run's time, in the lab",
            samplesOf(measurements, RUN, WALL),
            samplesOf(measurements, RUNC, WALL),
            LIMIT,
          ),
        ];
        return {
          ...measurements,
          targets: isWhole ? ratio() : [],
          notes: [
            "kvm_amd of Debian's stock kernel, on QEMU's AMD-V. vmlet run goes on from a guest in which true is loaded.",
          ],
        };
      } finally {
        await host.close();
      }
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  },
};
