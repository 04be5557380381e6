// A body of each kind, for the description of the interface: each is one that is taken, on a host that has what it names.
import type { SchemaName } from "./schemas.js";
import type { Section } from "./sections.js";

const LIMITER = {
  bandwidth: { size: 1_048_576, one_time_burst: 4_194_304, refill_time: 100 },
  ops: { size: 1000, refill_time: 1000 },
};

export const EXAMPLES: { readonly [Name in Exclude<SchemaName, "FullVmConfiguration">]: Section<Name> } = {
  InstanceActionInfo: { action_type: "InstanceStart" },
  Balloon: { amount_mib: 0, deflate_on_oom: true, stats_polling_interval_s: 1, free_page_reporting: true },
  BalloonUpdate: { amount_mib: 64 },
  BalloonStatsUpdate: { stats_polling_interval_s: 5 },
  BalloonStartCmd: { acknowledge_on_stop: true },
  BootSource: { kernel_image_path: "/srv/vmlinux", boot_args: "console=ttyS0 reboot=k panic=1" },
  CpuConfig: {
    cpuid_modifiers: [
      { leaf: "0x7", subleaf: "0x0", flags: 1, modifiers: [{ register: "ebx", bitmap: "0bxxxxxxxxxxxxxxxx0" }] },
    ],
    msr_modifiers: [{ addr: "0x10a", bitmap: "0b0" }],
  },
  Drive: { drive_id: "rootfs", path_on_host: "/srv/root.ext4", is_root_device: true, rate_limiter: LIMITER },
  PartialDrive: { drive_id: "rootfs", path_on_host: "/srv/another.ext4" },
  EntropyDevice: { rate_limiter: { bandwidth: { size: 1000, refill_time: 100 } } },
  Logger: { log_path: "/run/vm.log", level: "Info", show_level: true, show_log_origin: false },
  MachineConfiguration: { vcpu_count: 2, mem_size_mib: 256, smt: false, track_dirty_pages: false, huge_pages: "None" },
  PartialMachineConfiguration: { mem_size_mib: 512 },
  MemoryHotplugConfig: { total_size_mib: 1024, block_size_mib: 2, slot_size_mib: 128 },
  MemoryHotplugSizeUpdate: { requested_size_mib: 256 },
  Metrics: { metrics_path: "/run/vm.metrics" },
  MmdsConfig: { version: "V2", network_interfaces: ["eth0"], ipv4_address: "169.254.169.254" },
  NetworkInterface: { iface_id: "eth0", host_dev_name: "tap0", guest_mac: "52:54:00:12:34:56", mtu: 1500 },
  PartialNetworkInterface: { iface_id: "eth0", rx_rate_limiter: LIMITER },
  Pmem: { id: "pmem0", path_on_host: "/srv/pmem.ext4", root_device: false, read_only: true },
  PartialPmem: { id: "pmem0", rate_limiter: LIMITER },
  SerialDevice: { serial_out_path: "/run/vm.console" },
  SnapshotCreateParams: { snapshot_path: "/srv/vm.state", mem_file_path: "/srv/vm.memory", snapshot_type: "Full" },
  SnapshotLoadParams: {
    snapshot_path: "/srv/vm.state",
    mem_backend: { backend_type: "File", backend_path: "/srv/vm.memory" },
    resume_vm: true,
  },
  Vm: { state: "Paused" },
  Vsock: { guest_cid: 3, uds_path: "/run/vm.vsock" },
};
