// What a monitor's process takes while its guest runs, beyond the guest's RAM, in the lab.
import { measure, type Bench, type BenchContext, type BenchResult, type Variant } from "../harness.js";
import { GUEST_MIB, monitorArguments, qemuArguments, vmletArguments } from "./guest.js";
import { LAB_MONITOR, LAB_QEMU, LAB_VMLET, LabHost, OUR_KERNEL } from "./lab-host.js";
import { monitorMemory } from "./smaps.js";

const COMMAND = ["sleep", "1000"];
/** By then each guest sleeps and each monitor has done what it does after the boot, `s`. */
const SETTLED_S = 8;

const quote = (word: string): string => `'${word.replaceAll("'", "'\\''")}'`;

function running(host: LabHost, name: string, argv: readonly string[]): Variant {
  const script = `${argv.map(quote).join(" ")} </dev/null >/dev/null & pid=$!
    sleep ${String(SETTLED_S)}; cat /proc/$pid/smaps >/output/smaps || exit 1; kill -9 $pid; wait $pid; true`;
  return {
    name,
    turn: async () => {
      const smaps = (await host.shell(script)).get("smaps")?.toString("utf8") ?? "";
      const { rss, pss, private: own } = monitorMemory(smaps, GUEST_MIB * 1024);
      return { rss_running_mib: rss / 1024, pss_running_mib: pss / 1024, private_running_mib: own / 1024 };
    },
  };
}

async function run(context: BenchContext): Promise<BenchResult> {
  context.progress("the lab is starting");
  const host = await LabHost.start();
  try {
    const measured = await measure(
      [
        running(host, "vmlet", [...LAB_VMLET, ...vmletArguments(OUR_KERNEL, COMMAND)]),
        running(host, "QEMU microvm", [LAB_QEMU, ...qemuArguments(OUR_KERNEL, COMMAND)]),
        running(host, "C monitor", [LAB_MONITOR, ...monitorArguments(OUR_KERNEL, COMMAND)]),
      ],
      context,
    );
    return {
      ...measured,
      targets: [],
      notes: [
        `A sleeping guest of ${String(GUEST_MIB)} MiB, our kernel, in the lab; the mapping of its RAM is left out.`,
        "One monitor at a time: PSS of several is lower, since they share Node's text.",
      ],
    };
  } finally {
    await host.close();
  }
}

export const memory: Bench = {
  name: "memory",
  about: "a running monitor's memory beyond its guest's, in the lab",
  run,
};
