// /dev/kvm itself: API version, capabilities, supported CPUID. KVM api.rst §4.1 to §4.5.
import { closeSync, openSync } from "node:fs";
import { HostError } from "../errors.js";
import {
  KVM_API_VERSION,
  KVM_CAP_GET_MSR_FEATURES,
  KVM_CHECK_EXTENSION,
  KVM_CREATE_VM,
  KVM_GET_API_VERSION,
  KVM_GET_MSRS,
  KVM_GET_MSR_INDEX_LIST,
  KVM_GET_SUPPORTED_CPUID,
  KVM_GET_VCPU_MMAP_SIZE,
  SIZEOF_KVM_CPUID2,
  SIZEOF_KVM_CPUID_ENTRY2,
  SIZEOF_KVM_MSRS,
  SIZEOF_KVM_MSR_ENTRY,
  SIZEOF_KVM_MSR_LIST,
  kvm_msr_entry,
} from "../sys/kvm-abi.js";
import { cureFor } from "../sys/cures.js";
import { ioctl, ioctlStruct } from "../sys/ioctl-calls.js";
import { decodeCpuid, type CpuidEntry } from "./cpuid-list.js";
import { VmFd } from "./vm-fd.js";

/** KVM's own bound on CPUID entries is 256 (KVM_MAX_CPUID_ENTRIES). */
const MAX_CPUID_ENTRIES = 256;
const MAX_MSRS = 1024;

const OPEN_CURES: Readonly<Record<string, [problem: string, cure: string]>> = {
  ENOENT: ["does not exist", "load kvm_intel or kvm_amd, pass --device /dev/kvm to the container, or use --accel lab"],
  EACCES: ["may not be opened by this user", 'join the group: sudo usermod -aG kvm "$USER", then log in again'],
  EPERM: ["is forbidden here", "allow the device (10:232) in the container's device cgroup: --device /dev/kvm"],
  ENODEV: [
    "has no driver behind it",
    "turn on VT-x or AMD-V in the firmware, or nested virtualization one level above",
  ],
  ENXIO: ["has no driver behind it", "turn on VT-x or AMD-V in the firmware, or nested virtualization one level above"],
  EBUSY: ["is in use by another hypervisor", "stop VirtualBox or VMware, or use --accel lab"],
};

let kept: KvmSystem | undefined;

/** The open KVM device. */
export class KvmSystem {
  readonly fd: number;

  private constructor(fd: number) {
    this.fd = fd;
  }

  /** For a process that opens nothing later: from now on `open` results in this one. Throws as `open` does. */
  static keep(): void {
    kept ??= KvmSystem.open();
  }

  /** Throws HostError with the cure when the device is missing, forbidden or of another API version. */
  static open(path = "/dev/kvm"): KvmSystem {
    if (kept !== undefined) return kept;
    let fd: number;
    try {
      fd = openSync(path, "r+");
    } catch (error) {
      const code = (error as NodeJS.ErrnoException).code ?? "";
      const [problem, cure] = OPEN_CURES[code] ?? [
        `cannot be opened (${code})`,
        cureFor("open", code) ?? "see: vmlet doctor",
      ];
      throw new HostError(`${path} ${problem}`, { cause: error, cure });
    }
    try {
      const version = ioctl(fd, "KVM_GET_API_VERSION", KVM_GET_API_VERSION);
      if (version !== KVM_API_VERSION) {
        throw new HostError(`${path} speaks KVM API version ${String(version)}, needed is ${String(KVM_API_VERSION)}`);
      }
    } catch (error) {
      closeSync(fd);
      throw error;
    }
    return new KvmSystem(fd);
  }

  /** KVM_CHECK_EXTENSION: 0 if absent, else 1 or the capability's number. */
  checkExtension(capability: number): number {
    return ioctl(this.fd, "KVM_CHECK_EXTENSION", KVM_CHECK_EXTENSION, capability);
  }

  /** Size in bytes of the mapping of a vCPU. */
  vcpuMmapSize(): number {
    return ioctl(this.fd, "KVM_GET_VCPU_MMAP_SIZE", KVM_GET_VCPU_MMAP_SIZE);
  }

  /** The CPUID entries that this host supports. */
  supportedCpuid(): CpuidEntry[] {
    const list = new DataView(new ArrayBuffer(SIZEOF_KVM_CPUID2 + MAX_CPUID_ENTRIES * SIZEOF_KVM_CPUID_ENTRY2));
    list.setUint32(0, MAX_CPUID_ENTRIES, true);
    ioctlStruct(this.fd, "KVM_GET_SUPPORTED_CPUID", KVM_GET_SUPPORTED_CPUID, list);
    return decodeCpuid(list);
  }

  /** Indices of the MSRs that KVM can get and set. */
  msrIndices(): number[] {
    const list = new Uint32Array(SIZEOF_KVM_MSR_LIST / 4 + MAX_MSRS);
    list[0] = MAX_MSRS;
    ioctlStruct(this.fd, "KVM_GET_MSR_INDEX_LIST", KVM_GET_MSR_INDEX_LIST, list);
    return [...list.subarray(1, 1 + list[0])];
  }

  /** What a guest may find in this MSR, which says what the processor has; undefined if KVM does not tell. */
  featureMsr(index: number): bigint | undefined {
    if (this.checkExtension(KVM_CAP_GET_MSR_FEATURES) <= 0) return undefined;
    const argument = new DataView(new ArrayBuffer(SIZEOF_KVM_MSRS + SIZEOF_KVM_MSR_ENTRY));
    argument.setUint32(0, 1, true);
    argument.setUint32(SIZEOF_KVM_MSRS, index, true);
    const done = ioctlStruct(this.fd, "KVM_GET_MSRS", KVM_GET_MSRS, argument);
    return done === 1 ? argument.getBigUint64(SIZEOF_KVM_MSRS + kvm_msr_entry.data, true) : undefined;
  }

  createVm(): VmFd {
    return new VmFd(ioctl(this.fd, "KVM_CREATE_VM", KVM_CREATE_VM, 0));
  }

  close(): void {
    if (this !== kept) closeSync(this.fd);
  }
}
