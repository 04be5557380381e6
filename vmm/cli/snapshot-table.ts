// What is in a snapshot, as a table and as JSON. What it says comes from a file that anybody may have written: no
// character of it reaches the terminal that the terminal would obey.
import type { DeviceDescription, SnapshotDescription } from "../snapshot/inspect.js";

const MIB = 2 ** 20;
const KIB = 2 ** 10;
/** virtio 1.2 §5. */
const KINDS: Readonly<Record<number, string>> = {
  1: "network",
  2: "disk",
  3: "console",
  4: "entropy",
  5: "balloon",
  19: "sockets",
};

/** `problems`: with this host's processor; undefined if there is no KVM to ask. */
export function snapshotTable(snapshot: SnapshotDescription, problems: readonly string[] | undefined): string {
  const { config, memory, kernel, initrd, host } = snapshot;
  const rows: (readonly [string, string])[] = [
    ["snapshot", `${snapshot.id}, version ${String(snapshot.version)}`],
    ["made", `${snapshot.created} by vmlet ${snapshot.vmlet}`],
    ["host", `${host.cpu}, Linux ${host.kernel}${host.software ? ", a KVM without hardware virtualization" : ""}`],
    ["this host", hereWords(problems)],
    ["kernel", `${kernel.path}, ${kernel.format}`],
    ["", hashWords(kernel.sha256)],
    ...(initrd === undefined
      ? []
      : ([
          ["initrd", initrd.path],
          ["", hashWords(initrd.sha256)],
        ] as const)),
    ["guest", `${String(config.memoryMib)} MiB, ${config.cpus === 1 ? "1 vCPU" : `${String(config.cpus)} vCPUs`}`],
    ["command line", config.cmdline],
    ["memory", `${memory.file}: ${mib(memory.size)}, of which ${mib(memory.used)} take room`],
    ["", `sha256 ${memory.sha256}${memory.isVerified === true ? ", verified" : ""}`],
    ...(memory.base === undefined
      ? []
      : ([
          ["base", memory.base.folder],
          ["", `snapshot ${memory.base.id}; ${String(memory.base.pages)} pages have changed since`],
        ] as const)),
    ...snapshot.devices.map((device) => [device.name, deviceWords(device, config)] as const),
  ];
  const width = Math.max(...rows.map(([name]) => name.length));
  return rows.map(([name, text]) => `${`${printable(name).padEnd(width)}  ${printable(text)}`.trimEnd()}\n`).join("");
}

export function snapshotJson(
  { config, memory, ...snapshot }: SnapshotDescription,
  problems: readonly string[] | undefined,
): string {
  const { isVerified, ...file } = memory;
  const json = {
    ...snapshot,
    // null: there is no KVM here that could be asked.
    this_host: problems === undefined ? null : { fits: problems.length === 0, problems },
    initrd: snapshot.initrd ?? null,
    memory: { ...file, base: file.base ?? null, verified: isVerified ?? null },
    devices: Object.fromEntries(
      snapshot.devices.map(({ name, type, isLive, host }) => [
        name,
        { type, kind: KINDS[type] ?? null, live: isLive, path: pathOf(name, config) ?? null, host: host ?? null },
      ]),
    ),
  };
  return `${JSON.stringify(json, undefined, 2)}\n`;
}

export function mib(bytes: number): string {
  return bytes < MIB ? `${(bytes / KIB).toFixed(1)} KiB` : `${(bytes / MIB).toFixed(1)} MiB`;
}

function hereWords(problems: readonly string[] | undefined): string {
  if (problems === undefined) return "has no /dev/kvm that can be used";
  return problems.length === 0 ? "its processor fits" : `the guest cannot go on here: ${problems.join("; ")}`;
}

function hashWords(sha256: string | null): string {
  return sha256 === null ? "changed since it was booted: its hash is not known" : `sha256 ${sha256}`;
}

function deviceWords({ name, type, isLive }: DeviceDescription, config: SnapshotDescription["config"]): string {
  const path = pathOf(name, config);
  return [
    KINDS[type] ?? `virtio device of type ${String(type)}`,
    ...(path === undefined ? [] : [path]),
    ...(isLive ? [] : ["not in use"]),
  ].join(", ");
}

/** What is behind a device on the host. */
function pathOf(name: string, { disks, nets, vsock }: SnapshotDescription["config"]): string | undefined {
  if (/^vd[a-z]$/.test(name)) return disks[name.charCodeAt(2) - "a".charCodeAt(0)]?.path;
  if (/^net\d+$/.test(name)) {
    const net = nets[Number(name.slice(3))];
    return net === undefined ? undefined : net.user === undefined ? net.tap : "user mode";
  }
  if (name !== "vsock0" || vsock === undefined) return undefined;
  return vsock.path ?? `AF_VSOCK, context id ${String(vsock.cid)}`;
}

function printable(text: string): string {
  return text.replaceAll(
    /[\x00-\x1f\x7f-\x9f]/g,
    (character) => `\\x${character.charCodeAt(0).toString(16).padStart(2, "0")}`,
  );
}
