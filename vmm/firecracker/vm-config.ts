// Settings -> the configuration of a VM of ours.
import type { RateLimiterConfig, TokenBucketConfig } from "../../devices/virtio/rate-limiter.js";
import { resolveConfig } from "../config/resolve.js";
import { asId, type DiskConfig } from "../config/disks.js";
import { MAX_REFILL_MS } from "../config/rate-limiter.js";
import type { NetConfig } from "../config/nets.js";
import type { ResolvedConfig } from "../config/types.js";
import { Fault } from "./fault.js";
import type { Drive, MmdsConfig, NetworkInterface, RateLimiter, TokenBucket } from "./sections.js";
import { HUGE_PAGES, isGiven, type Settings } from "./settings.js";

/** What a guest gets whose client gives no words, as Firecracker has it. */
const DEFAULT_BOOT_ARGS =
  "reboot=k panic=1 nomodule 8250.nr_uarts=0 i8042.noaux i8042.nomux i8042.dumbkbd swiotlb=noforce";
/** The name under which a custom CPU template goes, which is no file's. */
export const CUSTOM_TEMPLATE = "cpu-config";

export interface ConfigOptions {
  /** This host's KVM has no hardware virtualization: guests see the processor itself, templates or not. */
  readonly isSoftwareKvm: boolean;
}

/** Throws Fault or ConfigError. */
export function vmConfig(settings: Settings, { isSoftwareKvm }: ConfigOptions): ResolvedConfig {
  const { bootSource, machine, drives, nets, vsock, balloon, entropy, mmdsConfig } = settings;
  if (bootSource === undefined) throw new Fault("There is no kernel to start: PUT /boot-source comes first");
  const initrd = bootSource.initrd_path ?? undefined;
  return resolveConfig({
    kernel: bootSource.kernel_image_path,
    initrd,
    cmdline: [bootSource.boot_args ?? DEFAULT_BOOT_ARGS, "pci=off", ...rootWords(drives)].join(" "),
    bareCmdline: true,
    // For SendCtrlAltDel.
    keyboard: true,
    memoryMib: machine.mem_size_mib,
    cpus: machine.vcpu_count,
    smt: machine.smt ?? false,
    hugePages: HUGE_PAGES[machine.huge_pages ?? "None"],
    cpuTemplate: isSoftwareKvm ? undefined : templateName(settings),
    disks: drives.map(diskConfig),
    nets: nets.map((net) => ({
      ...netConfig(net),
      mmds: mmdsConfig?.network_interfaces.includes(net.iface_id) ?? false,
      // Its metrics count every frame.
      vhost: "off" as const,
    })),
    mmds: mmdsConfig === undefined ? undefined : mmds(mmdsConfig),
    vsock: vsock === undefined ? undefined : { cid: vsock.guest_cid, path: vsock.uds_path },
    rng: entropy !== undefined,
    rngRateLimiter: rateLimiter(entropy?.rate_limiter),
    balloon:
      balloon === undefined
        ? undefined
        : {
            targetMib: balloon.amount_mib,
            deflateOnOom: balloon.deflate_on_oom,
            reporting: balloon.free_page_reporting,
            hinting: balloon.free_page_hinting,
            statisticsIntervalS: balloon.stats_polling_interval_s ?? 0,
          },
  });
}

/** Undefined without one. Throws Fault for one that there is none of. */
function templateName({ machine, cpuConfig }: Settings): string | undefined {
  const name = machine.cpu_template;
  if (name === "C3")
    throw new Fault("Machine configuration: there is no CPU template C3 here; T2, T2S, T2CL and T2A are");
  if (isGiven(name) && name !== "None") return name;
  const isEmpty = cpuConfig === undefined || (!cpuConfig.cpuid_modifiers?.length && !cpuConfig.msr_modifiers?.length);
  return isEmpty ? undefined : CUSTOM_TEMPLATE;
}

/** Behind the client's own words, as Firecracker has them: the last `root=` counts. */
function rootWords([first]: readonly Drive[]): string[] {
  if (first?.is_root_device !== true) return [];
  const root = isGiven(first.partuuid) ? `PARTUUID=${first.partuuid}` : "/dev/vda";
  return [`root=${root}`, first.is_read_only === true ? "ro" : "rw"];
}

function diskConfig(drive: Drive): DiskConfig {
  return {
    path: drive.path_on_host ?? "",
    isReadonly: drive.is_read_only ?? false,
    // Firecracker takes every file as it is, and leaves it to its clients who else has it.
    format: "raw",
    lock: false,
    id: asId(drive.drive_id),
    cache: drive.cache_type === "Writeback" ? "writeback" : "unsafe",
    rateLimiter: rateLimiter(drive.rate_limiter),
  };
}

function netConfig(net: NetworkInterface): NetConfig {
  return {
    tap: net.host_dev_name,
    mac: net.guest_mac ?? undefined,
    mtu: net.mtu ?? undefined,
    rxRateLimiter: rateLimiter(net.rx_rate_limiter),
    txRateLimiter: rateLimiter(net.tx_rate_limiter),
  };
}

function mmds({ version, ipv4_address: address, imds_compat: imdsCompat }: MmdsConfig) {
  return { version, address: address ?? undefined, imdsCompat };
}

/** A bucket that is not given stays out. */
export function rateLimiter(given: RateLimiter | null | undefined): RateLimiterConfig | undefined {
  if (!isGiven(given)) return undefined;
  const { bandwidth, ops } = given;
  return { bandwidth: tokenBucket(bandwidth), operations: tokenBucket(ops) };
}

export function tokenBucket(bucket: TokenBucket | null | undefined): TokenBucketConfig | undefined {
  if (!isGiven(bucket)) return undefined;
  const { size, one_time_burst: burst, refill_time: refill } = bucket;
  // A bucket that never fills limits nothing.
  if (size === 0 || refill === 0) return { size: 0, oneTimeBurst: 0, refillTimeMs: 0 };
  return {
    size: Math.min(size, Number.MAX_SAFE_INTEGER),
    oneTimeBurst: Math.min(burst ?? 0, Number.MAX_SAFE_INTEGER),
    // What fills in more than a day has no rate worth speaking of.
    refillTimeMs: Math.min(refill, MAX_REFILL_MS),
  };
}
