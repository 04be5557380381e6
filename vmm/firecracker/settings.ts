// What a client has configured so far, section by section, as Firecracker has it: a section is checked as a whole, and takes its
// place or changes nothing. Nothing here runs a guest.
import { DEFAULT_CPUS, DEFAULT_MEMORY_MIB } from "../config/defaults.js";
import { machineProblems } from "../config/machine.js";
import { DEFAULT_MMDS_ADDRESS } from "../config/mmds.js";
import { COMMAND_LINE_SIZE } from "../x86/cmdline.js";
import { Fault } from "./fault.js";
import { checkFile, checkInterface, checkSocketPath } from "./host-paths.js";
import { MmdsStore, type MmdsOptions } from "./mmds-store.js";
import type {
  Balloon,
  BootSource,
  ConfigFile,
  CpuConfig,
  Drive,
  Entropy,
  MachineConfiguration,
  MmdsConfig,
  NetworkInterface,
  Section,
  Serial,
  Vsock,
} from "./sections.js";

const DEFAULT_MACHINE: MachineConfiguration = { vcpu_count: DEFAULT_CPUS, mem_size_mib: DEFAULT_MEMORY_MIB };
/** Our word for Firecracker's. */
export const HUGE_PAGES = { None: "none", Transparent: "transparent", "2M": "2M" } as const;

export class Settings {
  bootSource: BootSource | undefined;
  machine: MachineConfiguration = DEFAULT_MACHINE;
  /** A custom template; a named one stands in the machine's configuration. */
  cpuConfig: CpuConfig | undefined;
  /** The root first. */
  drives: readonly Drive[] = [];
  nets: readonly NetworkInterface[] = [];
  vsock: Vsock | undefined;
  balloon: Balloon | undefined;
  entropy: Entropy | undefined;
  serial: Serial | undefined;
  mmdsConfig: MmdsConfig | undefined;
  readonly mmds: MmdsStore;
  /** Something was configured that a snapshot brings by itself. */
  isForBoot = false;

  constructor(mmds: MmdsOptions) {
    this.mmds = new MmdsStore(mmds);
  }

  setBootSource(source: BootSource): void {
    this.isForBoot = true;
    checkFile(source.kernel_image_path, "Boot source: kernel_image_path", "read");
    const { initrd_path: initrd, boot_args: words } = source;
    if (isGiven(initrd)) checkFile(initrd, "Boot source: initrd_path", "read");
    if (isGiven(words)) checkBootArgs(words);
    this.bootSource = source;
  }

  setMachine(machine: MachineConfiguration): void {
    this.#replaceMachine({ ...machine, cpu_template: machine.cpu_template ?? this.machine.cpu_template ?? null });
  }

  updateMachine(update: Section<"PartialMachineConfiguration">): void {
    const given = Object.fromEntries(Object.entries(update).filter(([, value]) => value !== null));
    this.#replaceMachine({ ...this.machine, ...given });
  }

  #replaceMachine(machine: MachineConfiguration): void {
    this.isForBoot = true;
    const { vcpu_count: vcpus, mem_size_mib: mib, smt = false, huge_pages: pages = "None" } = machine;
    const settings = { cpus: vcpus, smt, memoryMib: mib, hugePages: HUGE_PAGES[pages] };
    const [problem] = machineProblems(settings, { cpus: "vcpu_count", memoryMib: "mem_size_mib" });
    if (problem !== undefined) throw new Fault(`Machine configuration: ${problem}`);
    if (this.balloon !== undefined && this.balloon.amount_mib > mib) {
      throw new Fault(
        `Machine configuration: mem_size_mib ${String(mib)} is less than the ${String(this.balloon.amount_mib)} MiB of the balloon`,
      );
    }
    const template = machine.cpu_template === "None" ? null : machine.cpu_template;
    if (isGiven(template)) this.cpuConfig = undefined;
    this.machine = { ...machine, cpu_template: template ?? null };
  }

  setCpuConfig(config: CpuConfig): void {
    this.cpuConfig = config;
    this.machine = { ...this.machine, cpu_template: null };
  }

  setDrive(drive: Drive): void {
    this.isForBoot = true;
    const { drive_id: id, path_on_host: path, is_root_device: isRoot, socket } = drive;
    if (isGiven(socket)) throw new Fault(`Drive ${id}: vmlet has no vhost-user disks; give path_on_host`);
    if (!isGiven(path)) throw new Fault(`Drive ${id}: no path_on_host is given`);
    const root = this.drives.find((one) => one.is_root_device);
    if (isRoot && root !== undefined && root.drive_id !== id) {
      throw new Fault(`Drive ${id}: ${root.drive_id} is the root device already`);
    }
    checkFile(path, `Drive ${id}: path_on_host`, drive.is_read_only === true ? "read" : "write");
    const others = this.drives.filter((one) => one.drive_id !== id);
    const at = this.drives.findIndex((one) => one.drive_id === id);
    if (isRoot) this.drives = [drive, ...others];
    else if (at < 0) this.drives = [...others, drive];
    else this.drives = this.drives.map((one) => (one.drive_id === id ? drive : one));
  }

  setNet(net: NetworkInterface): void {
    this.isForBoot = true;
    const { iface_id: id, guest_mac: mac, host_dev_name: tap } = net;
    const others = this.nets.filter((one) => one.iface_id !== id);
    const key = mac?.toLowerCase();
    if (key !== undefined && others.some((one) => one.guest_mac?.toLowerCase() === key)) {
      throw new Fault(`Network interface ${id}: the address ${String(mac)} is another interface's`);
    }
    const user = others.find((one) => one.host_dev_name === tap);
    if (user !== undefined) throw new Fault(`Network interface ${id}: ${tap} is that of ${user.iface_id}`);
    checkInterface(tap);
    this.nets = [...others, net];
  }

  setVsock(vsock: Vsock): void {
    this.isForBoot = true;
    checkSocketPath(vsock.uds_path, "Vsock: uds_path");
    this.vsock = vsock;
  }

  setBalloon(balloon: Balloon): void {
    this.isForBoot = true;
    const { mem_size_mib: mib } = this.machine;
    if (balloon.amount_mib > mib) {
      throw new Fault(
        `Balloon: amount_mib ${String(balloon.amount_mib)} is more than the ${String(mib)} MiB of the guest's memory`,
      );
    }
    this.balloon = balloon;
  }

  setEntropy(entropy: Entropy): void {
    this.isForBoot = true;
    this.entropy = entropy;
  }

  setSerial(serial: Serial): void {
    this.serial = serial;
  }

  setMmdsConfig(config: MmdsConfig): void {
    this.isForBoot = true;
    const { network_interfaces: ids } = config;
    if (ids.length === 0) throw new Fault("MMDS configuration: network_interfaces is empty");
    const unknown = ids.find((id) => !this.nets.some((net) => net.iface_id === id));
    if (unknown !== undefined) throw new Fault(`MMDS configuration: there is no network interface ${unknown}`);
    this.mmdsConfig = config;
  }

  /** What a snapshot brings: nothing of it is looked for on this host. */
  restore(saved: ConfigFile): void {
    this.bootSource = saved["boot-source"];
    this.machine = saved["machine-config"] ?? DEFAULT_MACHINE;
    this.drives = saved.drives;
    this.nets = saved["network-interfaces"] ?? [];
    this.vsock = saved.vsock ?? undefined;
    this.balloon = saved.balloon ?? undefined;
    this.entropy = saved.entropy ?? undefined;
    this.mmdsConfig = saved["mmds-config"] ?? undefined;
  }

  /** As GET /vm/config has it. */
  describe(): Readonly<Record<string, unknown>> {
    return {
      balloon: this.describeBalloon() ?? null,
      drives: this.drives.map(describeDrive),
      "boot-source": {
        kernel_image_path: this.bootSource?.kernel_image_path ?? "",
        initrd_path: this.bootSource?.initrd_path ?? null,
        boot_args: this.bootSource?.boot_args ?? null,
      },
      "cpu-config": null,
      logger: null,
      "machine-config": this.describeMachine(),
      metrics: null,
      "mmds-config": this.#describeMmds(),
      "network-interfaces": this.nets.map(describeNet),
      vsock: this.vsock === undefined ? null : { guest_cid: this.vsock.guest_cid, uds_path: this.vsock.uds_path },
      entropy: this.entropy === undefined ? null : { rate_limiter: this.entropy.rate_limiter ?? null },
      pmem: [],
      "memory-hotplug": null,
    };
  }

  describeMachine(): Readonly<Record<string, unknown>> {
    const { vcpu_count, mem_size_mib, smt, cpu_template: template, track_dirty_pages, huge_pages } = this.machine;
    return {
      vcpu_count,
      mem_size_mib,
      smt: smt ?? false,
      ...(isGiven(template) ? { cpu_template: template } : {}),
      track_dirty_pages: track_dirty_pages ?? false,
      huge_pages: huge_pages ?? "None",
    };
  }

  describeBalloon(): Readonly<Record<string, unknown>> | undefined {
    if (this.balloon === undefined) return undefined;
    const { amount_mib, deflate_on_oom, stats_polling_interval_s = 0 } = this.balloon;
    const { free_page_hinting = false, free_page_reporting = false } = this.balloon;
    return { amount_mib, deflate_on_oom, stats_polling_interval_s, free_page_hinting, free_page_reporting };
  }

  #describeMmds(): unknown {
    if (this.mmdsConfig === undefined) return null;
    const { version = "V1", network_interfaces, ipv4_address, imds_compat = false } = this.mmdsConfig;
    return { version, network_interfaces, ipv4_address: ipv4_address ?? DEFAULT_MMDS_ADDRESS, imds_compat };
  }
}

export function isGiven<Value>(value: Value | null | undefined): value is Value {
  return value !== undefined && value !== null;
}

function checkBootArgs(words: string): void {
  if (!/^[\x20-\x7e\t\n\r]*$/.test(words)) {
    throw new Fault("Boot source: boot_args has characters that are not printable ASCII");
  }
  if (words.length < COMMAND_LINE_SIZE) return;
  throw new Fault(
    `Boot source: boot_args has ${String(words.length)} characters; ${String(COMMAND_LINE_SIZE - 1)} fit`,
  );
}

function describeDrive(drive: Drive): Readonly<Record<string, unknown>> {
  return {
    drive_id: drive.drive_id,
    partuuid: drive.partuuid ?? null,
    is_root_device: drive.is_root_device,
    cache_type: drive.cache_type ?? "Unsafe",
    is_read_only: drive.is_read_only ?? false,
    path_on_host: drive.path_on_host ?? null,
    rate_limiter: drive.rate_limiter ?? null,
    io_engine: drive.io_engine ?? "Sync",
    socket: null,
  };
}

function describeNet(net: NetworkInterface): Readonly<Record<string, unknown>> {
  return {
    iface_id: net.iface_id,
    host_dev_name: net.host_dev_name,
    guest_mac: net.guest_mac ?? null,
    mtu: net.mtu ?? null,
    rx_rate_limiter: net.rx_rate_limiter ?? null,
    tx_rate_limiter: net.tx_rate_limiter ?? null,
  };
}
