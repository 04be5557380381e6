// The machine of a VM that runs programs: the package's own kernel and init, the root as its first disk.
import { consoleParameter, ERRORS_CMDLINE, NO_PCI_CMDLINE, OWN_KERNEL_CMDLINE } from "../config/defaults.js";
import { diskName, type DiskConfig } from "../config/disks.js";
import type { NetConfig } from "../config/nets.js";
import { resolveConfig } from "../config/resolve.js";
import type { ResolvedConfig } from "../config/types.js";
import type { Quirks } from "../fixups/quirks.js";
import { defaultKernel, fastKernel, tinyInitrd } from "../host/guest-files.js";
import type { NetworkSpec, RootSpec, VmSpec } from "./vm-spec.js";
import type { PublishedPort } from "./vm-record.js";

const ROOT_DEVICE = "/dev/vda";

/** Volume `index`, as the guest mounts it. */
export function volumeTag(index: number): string {
  return `volume${String(index)}`;
}

/** Volume `index` where no folder can be shared: a disk behind the root's. */
export function volumeDevice(index: number): string {
  return `/dev/${diskName(index + 1)}`;
}

/**
 * `quirks`: of a KVM that emulates the guest's kernel, for which there is a kernel of few instructions. `volumeDisks`: lists of
 * parts that are the volumes; in their place the folders themselves are shared.
 */
export function guestConfig(spec: VmSpec, quirks: Quirks | undefined, volumeDisks?: readonly string[]): ResolvedConfig {
  const isEmulated = quirks !== undefined;
  const isFast = isEmulated && spec.cpus === 1;
  const config = resolveConfig({
    kernel: isFast ? fastKernel() : defaultKernel(),
    initrd: tinyInitrd(),
    cmdline: [
      consoleParameter("serial"),
      OWN_KERNEL_CMDLINE,
      ...(isFast ? [] : [NO_PCI_CMDLINE]),
      ERRORS_CMDLINE,
      // An emulated kernel spends a tenth of its time on counting the pages of each group.
      ...(isEmulated && spec.hasNoMemoryGroups === true ? ["cgroup_disable=memory"] : []),
      ...rootWords(spec.root, spec.isReadonly && !isSealedLater(spec)),
      "vmlet.agent",
      "vmlet.tty=raw",
      ...(canBeTemplate(spec) ? ["vmlet.template"] : []),
    ].join(" "),
    bareCmdline: true,
    memoryMib: spec.memoryMib,
    cpus: spec.cpus,
    disks: [
      ...rootDisks(spec.root, spec.isReadonly),
      ...(volumeDisks ?? []).map((path): DiskConfig => ({ path, isReadonly: true, format: "parts" })),
    ],
    nets: nets(spec.network, spec.ports),
    commandChannel: true,
    ...(spec.volumes.length === 0 || volumeDisks !== undefined
      ? {}
      : {
          shares: spec.volumes.map(({ hostPath, isReadonly }, at) => ({
            path: hostPath,
            tag: volumeTag(at),
            isReadonly,
          })),
        }),
  });
  // It is no part of what a guest is.
  const shares = config.shares.map((share, at) =>
    spec.volumes[at]?.isJournaled === true ? { ...share, isJournaled: true } : share,
  );
  return { ...config, shares };
}

/** A guest that has booted once, and from which every later one of the kind goes on. */
export function canBeTemplate({ root, isReadonly, network, isInLab }: VmSpec): boolean {
  // Each lab is a new host, with nothing of the one before.
  if (isInLab === true) return false;
  // A disk that one guest writes to has changed for the next.
  const isUnchanged = root.kind !== "disk" || isReadonly;
  return isUnchanged && network.kind !== "tap";
}

/** Whether there is anything to be done before a program may begin: guest-set-up.ts. */
export function needsSetUp(spec: VmSpec, isRestored: boolean): boolean {
  const { volumes, tmpfs, world } = spec;
  return !isRestored || world !== undefined || volumes.length > 0 || tmpfs.length > 0 || isSealedLater(spec);
}

/** A root that is read-only once it has the places and files that are asked for. */
export function isSealedLater({ root, isReadonly, volumes, tmpfs, world, defaults }: VmSpec): boolean {
  if (root.kind !== "image" || !isReadonly) return false;
  return volumes.length > 0 || tmpfs.length > 0 || world !== undefined || defaults.workingDirectory !== "/";
}

function rootWords(root: RootSpec, isReadonly: boolean): string[] {
  if (root.kind === "initramfs") return [];
  if (root.kind === "image") return [`vmlet.image=${ROOT_DEVICE}`, ...(isReadonly ? ["vmlet.image.ro"] : [])];
  return [`vmlet.root=${ROOT_DEVICE}`, isReadonly ? "ro" : "rw"];
}

function rootDisks(root: RootSpec, isReadonly: boolean): DiskConfig[] {
  switch (root.kind) {
    case "image":
      return [{ path: root.manifest, isReadonly: true, format: "parts" }];
    case "disk":
      return [{ path: root.path, isReadonly }];
    case "initramfs":
      return [];
  }
}

function nets(network: NetworkSpec, ports: readonly PublishedPort[]): NetConfig[] {
  switch (network.kind) {
    case "none":
      return [];
    case "tap":
      return [{ tap: network.tap }];
    case "namespace":
      return network.taps.map((tap) => ({ tap }));
    case "user":
      return [{ user: { forwards: ports } }];
  }
}
