// Snapshots as Firecracker's clients know them: a state file and a memory file. What the API tells of a guest (ids of its devices,
// its boot source) is in the state file, too, as its note.
import type { Quirks } from "../fixups/quirks.js";
import type { VmHost } from "../machine/host-callbacks.js";
import type { Vm } from "../machine/vm.js";
import { createPair, followFrom } from "../snapshot/file-pair.js";
import { becomeAnother } from "../snapshot/identity.js";
import type { RestoreOverrides } from "../snapshot/overrides.js";
import { OpenSnapshot } from "../snapshot/restore.js";
import { loadDeviceSupport } from "../virtio/device-support.js";
import { checkSection } from "./check-section.js";
import { Fault } from "./fault.js";
import type { ConfigFile, Section } from "./sections.js";
import { isGiven, type Settings } from "./settings.js";

/** What is followed before the first snapshot. */
const START = "start";

export interface CreateOptions {
  readonly settings: Settings;
  readonly tracksPages: boolean;
  /** The snapshot before. */
  readonly last: string | undefined;
}

/** The snapshot's id. Rejects with SnapshotError. */
export function createSnapshot(
  vm: Vm,
  { snapshot_path, mem_file_path, snapshot_type = "Full" }: Section<"SnapshotCreateParams">,
  { settings, tracksPages, last }: CreateOptions,
): Promise<string> {
  return createPair(vm, {
    statePath: snapshot_path,
    memoryPath: mem_file_path,
    since: snapshot_type === "Diff" ? (last ?? START) : undefined,
    watches: tracksPages,
    note: JSON.stringify(settings.describe()),
  });
}

/** From now on a difference has what has changed since. */
export function trackPages(vm: Vm): void {
  followFrom(vm, START);
}

export interface LoadOptions {
  readonly host: VmHost;
  readonly quirks: Quirks | undefined;
}

/** A VM that has not been started, with the settings of the saved one; `release` after its end. Rejects with Fault, or with an error of ours. */
export async function loadSnapshot(
  params: Section<"SnapshotLoadParams">,
  settings: Settings,
  { host, quirks }: LoadOptions,
): Promise<{ readonly vm: Vm; readonly release: () => void }> {
  if (params.mem_backend?.backend_type === "Uffd") {
    throw new Fault("Snapshot: memory by Uffd is not there; pages of a File are read when they are touched, too");
  }
  if (params.huge_pages === "2M") throw new Fault("Snapshot: vmlet has no guests in huge pages of hugetlbfs");
  const memoryPath = params.mem_backend?.backend_path ?? params.mem_file_path ?? "";
  const opened = OpenSnapshot.openPair(params.snapshot_path, memoryPath);
  try {
    const saved = readNote(opened.note);
    const described = withOverrides(saved, params);
    const config = opened.configWith(overrides(described, params));
    const deviceSupport = await loadDeviceSupport(config);
    const build = { known: { quirks }, deviceSupport, hearsOwner: true, mayBeSaved: true };
    const vm = opened.restore(host, build, overrides(described, params));
    try {
      becomeAnother(vm);
      if (params.track_dirty_pages === true) trackPages(vm);
    } catch (error) {
      await vm.close();
      throw error;
    }
    settings.restore(described);
    return {
      vm,
      release: () => {
        opened.close();
      },
    };
  } catch (error) {
    opened.close();
    throw error;
  }
}

function readNote(note: string | undefined): ConfigFile {
  let value: unknown;
  try {
    value = JSON.parse(note ?? "");
  } catch {
    throw new Fault("Snapshot: it was not made through this API");
  }
  return checkSection("FullVmConfiguration", value, "Snapshot: its configuration");
}

/** The settings with the other ends that the guest's devices get on this host. */
function withOverrides(saved: ConfigFile, params: Section<"SnapshotLoadParams">): ConfigFile {
  const nets = new Map((saved["network-interfaces"] ?? []).map((net) => [net.iface_id, net]));
  for (const { iface_id: id, host_dev_name: tap } of params.network_overrides ?? []) {
    const net = nets.get(id);
    if (net === undefined) throw new Fault(`Snapshot: the saved guest has no network interface ${id}`);
    nets.set(id, { ...net, host_dev_name: tap });
  }
  const path = params.vsock_override?.uds_path;
  const { vsock } = saved;
  if (path !== undefined && !isGiven(vsock)) throw new Fault("Snapshot: the saved guest has no vsock");
  return {
    ...saved,
    "network-interfaces": [...nets.values()],
    ...(path !== undefined && isGiven(vsock) ? { vsock: { ...vsock, uds_path: path } } : {}),
  };
}

function overrides(described: ConfigFile, params: Section<"SnapshotLoadParams">): RestoreOverrides {
  const changed = new Set((params.network_overrides ?? []).map(({ iface_id: id }) => id));
  const nets = (described["network-interfaces"] ?? []).flatMap((net, index) =>
    changed.has(net.iface_id) ? [[`net${String(index)}`, { tap: net.host_dev_name }] as const] : [],
  );
  const path = params.vsock_override?.uds_path;
  return {
    ...(nets.length > 0 ? { nets: Object.fromEntries(nets) } : {}),
    ...(path === undefined ? {} : { vsock: { path } }),
  };
}
