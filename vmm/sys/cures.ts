// What a user can do about a failed system call, by request and errno name.

const CURES: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  KVM_CREATE_VM: {
    EBUSY: "another hypervisor (VirtualBox, VMware) holds the CPU's virtualization: stop it",
    ENOMEM: "free some memory, or raise the memory limit of this process's cgroup",
    EINVAL: "the KVM module does not offer the default VM type; load kvm_intel or kvm_amd",
    EPERM: "a seccomp filter or LSM forbids it: start the container with a profile that allows KVM",
  },
  KVM_CREATE_VCPU: {
    EEXIST: "a vCPU with this number exists already",
    EINVAL: "ask for fewer vCPUs: --cpus",
    ENOMEM: "free some memory, or raise the memory limit of this process's cgroup",
  },
  KVM_CREATE_IRQCHIP: {
    ENOTTY: "this KVM has no in-kernel interrupt controllers; use --accel lab",
    EINVAL: "this KVM has no in-kernel interrupt controllers; use --accel lab",
  },
  KVM_SET_USER_MEMORY_REGION: {
    ENOMEM: "give the guest less memory: --memory",
    EINVAL: "give the guest less memory: --memory",
  },
  KVM_GET_API_VERSION: {
    ENOTTY: "/dev/kvm is not the KVM device: check what the container maps there",
    EPERM: "a seccomp filter or LSM forbids it: start the container with a profile that allows KVM",
  },
  timer_create: {
    EAGAIN: "raise the limit of pending signals: ulimit -i",
  },
  KVM_RUN: {
    EFAULT: "the host had no memory for a page of the guest: free some, or raise the cgroup's limit",
    ENOMEM: "the host had no memory for the guest: free some, or raise the cgroup's limit",
  },
  mmap: {
    ENOMEM: "give the guest less memory (--memory), or raise ulimit -v and vm.overcommit_memory",
  },
};

/** What helps whatever the call was. */
const CURES_OF_ANY: Readonly<Record<string, string>> = {
  EMFILE: "raise the limit of open files: ulimit -n",
  ENFILE: "raise the system's limit of open files: sysctl fs.file-max",
  ENOMEM: "free some memory, or raise the memory limit of this process's cgroup",
};

/** One sentence, or undefined where nothing is known to help. */
export function cureFor(request: string, errnoName: string): string | undefined {
  return CURES[request]?.[errnoName] ?? cureForAny(errnoName);
}

/** The same for a call of Node's. */
export function cureForAny(errnoName: string): string | undefined {
  return CURES_OF_ANY[errnoName];
}
