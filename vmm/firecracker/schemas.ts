// What Firecracker's interface takes, as JSON Schema (draft 2020-12): of a request's body and of a section of the
// configuration file alike. Validators are compiled from this at build time, and the OpenAPI description is made of it. Names
// are those of Firecracker's own description of its API. A field that may be null may be left out, too: clients write both.
// A limit that a VM has, however it is asked for, stands in vmm/config, with its words; what stands here is how Firecracker writes it.
import { BALLOON_SCHEMA } from "../config/balloon.js";
import { CPUID_CHANGES, CPUID_FLAGS, MAX_LEAVES, MSR_CHANGES, U32_TEXT } from "../config/cpu-template.js";
import { CPU_TEMPLATE_NAMES } from "../config/defaults.js";
import { DISK_SCHEMA } from "../config/disks.js";
import { CPUS_SCHEMA, MEMORY_SCHEMA } from "../config/machine.js";
import { MMDS_SCHEMA } from "../config/mmds.js";
import { NET_SCHEMA } from "../config/nets.js";
import { PATH_SCHEMA } from "../config/schema.js";
import { VSOCK_SCHEMA } from "../config/vsock.js";

const MAX_U32 = 0xffff_ffff;
/** 2^64 - 1 is no number of JavaScript; what is larger than the next one below is refused where it matters. */
const MAX_U64 = 2 ** 64;
const MAX_ITEMS = 64;

/** What a message says that a text should be. */
function text(pattern: string, expected: string) {
  return { type: "string", pattern, "x-expected": expected } as const;
}

function whole(minimum: number, maximum: number, description?: string) {
  return { type: "integer", minimum, maximum, ...(description === undefined ? {} : { description }) } as const;
}

/** The same, or null. */
function nullable<const S extends { readonly type: string }>(
  schema: S,
): Omit<S, "type"> & { readonly type: readonly [S["type"], "null"] } {
  return { ...schema, type: [schema.type, "null"] };
}

function record<const P extends object, const R extends readonly (keyof P & string)[]>(
  title: string,
  properties: P,
  required: R,
) {
  return { type: "object", title, properties, required, additionalProperties: false } as const;
}

const PATH = PATH_SCHEMA;
const FLAG = { type: "boolean" } as const;
export const ID = text("^[\\p{L}\\p{N}_]+$", "an id of letters, digits and _");
const ANY_TEXT = text("^[^\\0]*$", "a text without a NUL character");

export const TOKEN_BUCKET = {
  type: "object",
  title: "Token bucket",
  properties: {
    size: whole(0, MAX_U64, "Tokens that fit: bytes or operations."),
    one_time_burst: nullable(whole(0, MAX_U64, "Further tokens at the start, spent first and once.")),
    refill_time: whole(0, MAX_U64, "Milliseconds from empty to full."),
  },
  required: ["size", "refill_time"],
} as const;

export const RATE_LIMITER = record(
  "Rate limiter",
  { bandwidth: nullable(TOKEN_BUCKET), ops: nullable(TOKEN_BUCKET) },
  [],
);

const LIMITED = nullable(RATE_LIMITER);

export const BOOT_SOURCE = record(
  "Boot source",
  { kernel_image_path: PATH, initrd_path: nullable(PATH), boot_args: nullable(ANY_TEXT) },
  ["kernel_image_path"],
);

export const DRIVE = record(
  "Drive",
  {
    drive_id: ID,
    partuuid: nullable(DISK_SCHEMA.properties.partuuid),
    is_root_device: FLAG,
    cache_type: { enum: ["Unsafe", "Writeback"] },
    is_read_only: nullable(FLAG),
    path_on_host: nullable(PATH),
    rate_limiter: LIMITED,
    io_engine: { enum: ["Sync", "Async", null] },
    socket: nullable(PATH),
  },
  ["drive_id", "is_root_device"],
);

export const PARTIAL_DRIVE = record("Drive", { drive_id: ID, path_on_host: nullable(PATH), rate_limiter: LIMITED }, [
  "drive_id",
]);

const HUGE_PAGES = ["None", "Transparent", "2M"] as const;
const CPU_TEMPLATES = ["C3", ...CPU_TEMPLATE_NAMES, "None"] as const;

export const MACHINE_CONFIGURATION = record(
  "Machine configuration",
  {
    vcpu_count: CPUS_SCHEMA,
    mem_size_mib: MEMORY_SCHEMA,
    smt: FLAG,
    cpu_template: { enum: [...CPU_TEMPLATES, null], deprecated: true },
    track_dirty_pages: FLAG,
    huge_pages: { enum: HUGE_PAGES },
  },
  ["vcpu_count", "mem_size_mib"],
);

export const PARTIAL_MACHINE_CONFIGURATION = record(
  "Machine configuration",
  {
    vcpu_count: nullable(CPUS_SCHEMA),
    mem_size_mib: nullable(MEMORY_SCHEMA),
    smt: nullable(FLAG),
    cpu_template: { enum: [...CPU_TEMPLATES, null], deprecated: true },
    track_dirty_pages: nullable(FLAG),
    huge_pages: { enum: [...HUGE_PAGES, null] },
  },
  [],
);

export const CPU_CONFIG = record(
  "CPU configuration",
  {
    kvm_capabilities: {
      type: "array",
      items: text("^!?[0-9]{1,10}$", 'the number of a KVM capability in text, "!" in front for one that is not needed'),
      maxItems: MAX_ITEMS,
    },
    cpuid_modifiers: {
      type: "array",
      maxItems: MAX_LEAVES,
      items: record(
        "cpuid_modifier",
        { leaf: U32_TEXT, subleaf: U32_TEXT, flags: CPUID_FLAGS, modifiers: CPUID_CHANGES },
        ["leaf", "subleaf", "flags", "modifiers"],
      ),
    },
    msr_modifiers: MSR_CHANGES,
  },
  [],
);

export const NETWORK_INTERFACE = record(
  "Network interface",
  {
    iface_id: ID,
    host_dev_name: { ...NET_SCHEMA.properties.tap, "x-expected": "the name of an interface, 1 to 15 characters" },
    guest_mac: nullable(NET_SCHEMA.properties.mac),
    mtu: nullable(NET_SCHEMA.properties.mtu),
    rx_rate_limiter: LIMITED,
    tx_rate_limiter: LIMITED,
  },
  ["iface_id", "host_dev_name"],
);

export const PARTIAL_NETWORK_INTERFACE = record(
  "Network interface",
  { iface_id: ID, rx_rate_limiter: LIMITED, tx_rate_limiter: LIMITED },
  ["iface_id"],
);

export const VSOCK = record(
  "Vsock",
  {
    vsock_id: { ...nullable(ANY_TEXT), deprecated: true },
    guest_cid: VSOCK_SCHEMA.properties.cid,
    uds_path: PATH,
  },
  ["guest_cid", "uds_path"],
);

const INTERVAL = BALLOON_SCHEMA.properties.statisticsIntervalS;

export const BALLOON = record(
  "Balloon",
  {
    amount_mib: whole(0, MAX_U32, "MiB that the guest is to give up."),
    deflate_on_oom: FLAG,
    stats_polling_interval_s: INTERVAL,
    free_page_hinting: FLAG,
    free_page_reporting: FLAG,
  },
  ["amount_mib", "deflate_on_oom"],
);

export const BALLOON_UPDATE = record("Balloon", { amount_mib: whole(0, MAX_U32) }, ["amount_mib"]);

export const BALLOON_STATS_UPDATE = record("Balloon statistics", { stats_polling_interval_s: INTERVAL }, [
  "stats_polling_interval_s",
]);

export const BALLOON_START_HINTING = record("Balloon hinting", { acknowledge_on_stop: FLAG }, []);

export const ENTROPY = record("Entropy device", { rate_limiter: LIMITED }, []);

export const SERIAL = record(
  "Serial device",
  { serial_out_path: nullable(PATH), rate_limiter: nullable(TOKEN_BUCKET) },
  [],
);

export const PMEM = record(
  "Pmem device",
  { id: ID, path_on_host: PATH, root_device: FLAG, read_only: FLAG, rate_limiter: LIMITED },
  ["id", "path_on_host"],
);

export const PARTIAL_PMEM = record("Pmem device", { id: ID, rate_limiter: LIMITED }, ["id"]);

export const MEMORY_HOTPLUG = record(
  "Memory hotplug",
  { total_size_mib: whole(0, MAX_U32), block_size_mib: whole(0, MAX_U32), slot_size_mib: whole(0, MAX_U32) },
  ["total_size_mib"],
);

export const MEMORY_HOTPLUG_UPDATE = record("Memory hotplug", { requested_size_mib: whole(0, MAX_U32) }, [
  "requested_size_mib",
]);

/** Both cases of a letter, as pattern; in JSON Schema there is no flag for it. */
function anyCase(words: readonly string[]): string {
  const both = (word: string): string => word.replace(/[a-z]/g, (letter) => `[${letter}${letter.toUpperCase()}]`);
  return `^(?:${words.map(both).join("|")})$`;
}

const LOG_LEVELS = ["off", "trace", "debug", "info", "warn", "warning", "error"] as const;

export const LOG_LEVEL = text(anyCase(LOG_LEVELS), "Off, Error, Warn, Info, Debug or Trace");

export const LOGGER = record(
  "Logger",
  {
    log_path: nullable(PATH),
    level: nullable(LOG_LEVEL),
    show_level: nullable(FLAG),
    show_log_origin: nullable(FLAG),
    module: nullable(ANY_TEXT),
  },
  [],
);

export const METRICS = record(
  "Metrics",
  {
    metrics_path: PATH,
    emit_id: FLAG,
    properties: { type: ["object", "null"], additionalProperties: { type: "string" } },
  },
  ["metrics_path"],
);

export const MMDS_CONFIG = record(
  "MMDS configuration",
  {
    version: MMDS_SCHEMA.properties.version,
    network_interfaces: { type: "array", items: { type: "string" }, maxItems: MAX_ITEMS },
    ipv4_address: nullable(MMDS_SCHEMA.properties.address),
    imds_compat: FLAG,
  },
  ["network_interfaces"],
);

export const ACTIONS = ["InstanceStart", "FlushMetrics", "SendCtrlAltDel"] as const;

export const ACTION = record("Action", { action_type: { enum: ACTIONS } }, ["action_type"]);

export const VM_STATE = record("VM", { state: { enum: ["Paused", "Resumed"] } }, ["state"]);

export const SNAPSHOT_CREATE = record(
  "Snapshot",
  { snapshot_type: { enum: ["Full", "Diff"] }, snapshot_path: PATH, mem_file_path: PATH },
  ["snapshot_path", "mem_file_path"],
);

export const SNAPSHOT_LOAD = record(
  "Snapshot",
  {
    snapshot_path: PATH,
    mem_file_path: { ...nullable(PATH), deprecated: true },
    mem_backend: nullable(
      record("Memory backend", { backend_path: PATH, backend_type: { enum: ["File", "Uffd"] } }, [
        "backend_path",
        "backend_type",
      ]),
    ),
    enable_diff_snapshots: { ...FLAG, deprecated: true },
    track_dirty_pages: FLAG,
    resume_vm: FLAG,
    network_overrides: {
      type: "array",
      maxItems: MAX_ITEMS,
      items: {
        type: "object",
        title: "Network override",
        properties: { iface_id: { type: "string" }, host_dev_name: { type: "string" } },
        required: ["iface_id", "host_dev_name"],
      },
    },
    vsock_override: {
      type: ["object", "null"],
      title: "Vsock override",
      properties: { uds_path: PATH },
      required: ["uds_path"],
    },
    clock_realtime: FLAG,
    huge_pages: { enum: ["Snapshot", ...HUGE_PAGES] },
  },
  ["snapshot_path"],
);

/** The configuration file. Other keys of the file as a whole are not looked at; within a section they are refused. */
export const CONFIG_FILE = {
  type: "object",
  title: "Configuration file",
  properties: {
    "boot-source": BOOT_SOURCE,
    drives: { type: "array", items: DRIVE, maxItems: MAX_ITEMS },
    "machine-config": nullable(MACHINE_CONFIGURATION),
    "cpu-config": {
      type: ["object", "string", "null"],
      properties: CPU_CONFIG.properties,
      required: CPU_CONFIG.required,
      additionalProperties: false,
      description: "A custom CPU template, or the path of one.",
    },
    balloon: nullable(BALLOON),
    "network-interfaces": { type: "array", items: NETWORK_INTERFACE, maxItems: MAX_ITEMS },
    vsock: nullable(VSOCK),
    logger: nullable(LOGGER),
    metrics: nullable(METRICS),
    "mmds-config": nullable(MMDS_CONFIG),
    entropy: nullable(ENTROPY),
    pmem: { type: "array", items: PMEM, maxItems: MAX_ITEMS },
    "memory-hotplug": nullable(MEMORY_HOTPLUG),
  },
  required: ["boot-source", "drives"],
} as const;

/** By the names of Firecracker's own description. */
export const SCHEMAS = {
  InstanceActionInfo: ACTION,
  Balloon: BALLOON,
  BalloonUpdate: BALLOON_UPDATE,
  BalloonStatsUpdate: BALLOON_STATS_UPDATE,
  BalloonStartCmd: BALLOON_START_HINTING,
  BootSource: BOOT_SOURCE,
  CpuConfig: CPU_CONFIG,
  Drive: DRIVE,
  PartialDrive: PARTIAL_DRIVE,
  EntropyDevice: ENTROPY,
  FullVmConfiguration: CONFIG_FILE,
  Logger: LOGGER,
  MachineConfiguration: MACHINE_CONFIGURATION,
  PartialMachineConfiguration: PARTIAL_MACHINE_CONFIGURATION,
  MemoryHotplugConfig: MEMORY_HOTPLUG,
  MemoryHotplugSizeUpdate: MEMORY_HOTPLUG_UPDATE,
  Metrics: METRICS,
  MmdsConfig: MMDS_CONFIG,
  NetworkInterface: NETWORK_INTERFACE,
  PartialNetworkInterface: PARTIAL_NETWORK_INTERFACE,
  Pmem: PMEM,
  PartialPmem: PARTIAL_PMEM,
  SerialDevice: SERIAL,
  SnapshotCreateParams: SNAPSHOT_CREATE,
  SnapshotLoadParams: SNAPSHOT_LOAD,
  Vm: VM_STATE,
  Vsock: VSOCK,
} as const;

export type SchemaName = keyof typeof SCHEMAS;
