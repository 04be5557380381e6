// `vmlet snapshot restore FOLDER`: a saved guest goes on in this process, as `vmlet boot` would run it.
import { print } from "../host/say.js";
import { SnapshotError } from "../errors.js";
import { becomeAnother } from "../snapshot/identity.js";
import type { OpenSnapshot } from "../snapshot/restore.js";
import { chooseOrExplain } from "./accelerator.js";
import { checkOutputs } from "./check-outputs.js";
import { runGuest } from "./run-guest.js";
import { parseSnapshotRestore, type RestoreOptions } from "./snapshot-arguments.js";

export async function restore(argv: readonly string[]): Promise<number> {
  const options = parseSnapshotRestore(argv);
  if (options.help) {
    const { SNAPSHOT_RESTORE_HELP } = await import("./snapshot-help.js");
    print(SNAPSHOT_RESTORE_HELP);
    return 0;
  }
  const { OpenSnapshot } = await import("../snapshot/restore.js");
  const snapshot = OpenSnapshot.open(options.folder);
  // It stays open to the end of the process.
  return restoreInto(options, snapshot);
}

async function restoreInto(options: RestoreOptions, snapshot: OpenSnapshot): Promise<number> {
  const config = snapshot.configWith(options.overrides);
  const { report, metrics, control } = options;
  const inputs = [
    { option: "snapshot", path: snapshot.path },
    ...config.disks.map(({ path }) => ({ option: "disk", path })),
  ];
  await checkOutputs({ report, metrics, control, vsock: config.vsock?.path }, inputs);
  const choice = await chooseOrExplain("kvm");
  if (choice.kind !== "kvm")
    throw new SnapshotError("A snapshot goes on where there is a /dev/kvm; the lab has its own");
  if (config.nets.length > 0) (await import("./rights.js")).checkRights(config.nets);
  const { kernel } = snapshot.saved.images;
  return runGuest({
    config,
    outputs: { report, metrics, control },
    readsInput: true,
    runsCommand: false,
    kernel: { sha256: "sha256" in kernel ? (kernel.sha256 ?? "") : "", ms: 0 },
    snapshot: snapshot.id,
    progress: undefined,
    make: (host, deviceSupport) => {
      const known = { quirks: choice.quirks };
      const vm = snapshot.restore(host, { known, deviceSupport, hearsOwner: true }, options.overrides);
      becomeAnother(vm, options.overrides);
      return vm;
    },
  });
}
