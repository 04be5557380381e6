// `vmlet run` beside `runc run`, and a container's life by an engine's calls with vmlet-runtime beside runc, on a host with hardware
// virtualization, so far as an emulated one is that: all in one lab, as whole processes. What natively is a matter of the software KVM's emulator is one of kvm_amd here; times are an emulator's, their ratio is said.
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { execFileSync } from "node:child_process";
import { tmpdir } from "node:os";
import { basename, dirname, join } from "node:path";
import { findProgram } from "../../vmm/host/programs.js";
import { LAB_PACKAGE } from "../../vmm/lab/checkout.js";
import type { LabInput } from "../../vmm/lab/image.js";
import { VIRTIOFSD } from "../../vmm/virtio/backends/virtiofsd-command.js";
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
const LIFE = "in the lab: vmlet-runtime create, start, delete, delete --force";
const RUNC_LIFE = "in the lab: runc create, start, delete, delete --force";
const WALL = "whole_process_ms";
/** Of a boot; of a template; of a program's template; a run. */
const WARM_UPS = 4;
/** A machine of one's own for less than five containers. */
const LIMIT = 5;
const FOLDER = "/tmp/bench";
/** It can only be read there: what lies in it is linked to from a folder in its place. */
const LAB_LIB = "/usr/lib";
/** What virtiofsd is started by; those of busybox do less. */
const UTIL_LINUX = ["/usr/bin/setpriv", "/usr/bin/unshare"];
const LAB_RUNTIME = `${LAB_PACKAGE}/dist/vmlet-runtime`;
const LIBRARIES = "/input/bench/lib";

/** The programs and what they link to, but the C library, which is there; an image, as a tar and as a tree. */
function inputs(folder: string, runc: string): LabInput[] {
  const root = join(folder, "root");
  for (const name of ["bin", "dev", "etc", "proc", "sys", "tmp"]) mkdirSync(join(root, name), { recursive: true });
  copyFileSync(BUSYBOX, join(root, "bin/true"));
  const image = join(folder, "image.tar");
  execFileSync("tar", ["-C", root, "-cf", image, "."]);
  const programs = [runc, ...(existsSync(VIRTIOFSD) ? [VIRTIOFSD, ...UTIL_LINUX] : [])];
  const linked = programs.flatMap((path) => execFileSync("ldd", [path], { encoding: "utf8" }).match(/\/\S+/g) ?? []);
  const libraries = [...new Set(linked)];
  return [
    { from: "guest/out/default/vmlinux", to: "vmlet/guest/out/default/vmlinux" },
    { from: "guest/out/tiny.cpio", to: "vmlet/guest/out/tiny.cpio" },
    { from: image, to: "bench/image.tar" },
    { from: root, to: "bench/root" },
    ...programs.map((path) => ({ from: path, to: `bench/${basename(path)}` })),
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
sed -i 's/"terminal": true/"terminal": false/; s#"rootfs"#"root"#; s#"sh"#"/bin/true"#' config.json
mkdir /tmp/lib
mount -o bind ${LAB_LIB} /tmp/lib
mount -t tmpfs none ${LAB_LIB}
for path in /tmp/lib/*; do ln -s $path ${LAB_LIB}; done
mkdir -p ${dirname(VIRTIOFSD)}
[ ! -e /input/bench/virtiofsd ] || cp /input/bench/virtiofsd ${VIRTIOFSD}
cat >${FOLDER}/life <<'END'
export PATH=/input/bench:$PATH
id=$1; shift
"$@" create --bundle ${FOLDER} --pid-file ${FOLDER}/pid $id </dev/null >/dev/null || exit 1
read -r pid <${FOLDER}/pid
"$@" start $id || exit 2
while read -r _ _ state _ 2>/dev/null </proc/$pid/stat && [ "$state" != Z ]; do sleep 0.01; done
"$@" delete $id || exit 3
"$@" delete --force $id
END`;

async function variants(host: LabHost): Promise<Variant[]> {
  await host.shell(SET_UP);
  const image = [...LAB_VMLET, "run", "--quiet", "/input/bench/image.tar", "/bin/true"];
  for (let warmUp = 0; warmUp < WARM_UPS; warmUp++) await host.time(image);
  let container = 0;
  const linked = ["env", `LD_LIBRARY_PATH=${LIBRARIES}`];
  const id = (): string => `bench-${String(container++)}`;
  const runc = (): readonly string[] => [...linked, "/input/bench/runc", "run", "--bundle", FOLDER, id()];
  const life = (runtime: string): readonly string[] => [...linked, "sh", `${FOLDER}/life`, id(), runtime];
  const turnOf = (name: string, runtime: string): Variant => ({
    name,
    turn: async () => ({ [WALL]: (await host.time(life(runtime))).wallMs }),
  });
  const lives = [turnOf(LIFE, LAB_RUNTIME), turnOf(RUNC_LIFE, "/input/bench/runc")];
  if (existsSync(VIRTIOFSD)) for (let warmUp = 1; warmUp < WARM_UPS; warmUp++) await host.time(life(LAB_RUNTIME));
  return [
    { name: RUN, turn: async () => ({ [WALL]: (await host.time(image)).wallMs }) },
    { name: RUNC, turn: async () => ({ [WALL]: (await host.time(runc())).wallMs }) },
    ...lives,
  ];
}

export const runLab: Bench = {
  name: "run-lab",
  about: "vmlet run beside runc run, and an engine's calls of both runtimes, in the lab",
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
        const ratio = (name: string, one: string, other: string): BenchResult["targets"] =>
          [one, other].every((variant) => hasSeries(measurements, variant, WALL))
            ? [ratioAtMost(name, samplesOf(measurements, one, WALL), samplesOf(measurements, other, WALL), LIMIT)]
            : [];
        return {
          ...measurements,
          targets: [
            ...ratio("vmlet run of an image, of runc run's time, in the lab", RUN, RUNC),
            ...ratio("a container's life by an engine's calls, of runc's time, in the lab", LIFE, RUNC_LIFE),
          ],
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
