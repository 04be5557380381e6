// Needs: nothing. Every diagnosis of the doctor, on hosts that exist as text.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CHECKS, PASSTHROUGH_CHECKS, lookAt } from "../../vmm/doctor/all-checks.js";
import type { Finding } from "../../vmm/doctor/checks.js";
import { containerEngine } from "../../vmm/doctor/container.js";
import { fixScript } from "../../vmm/doctor/fix-script.js";
import { HYPERVISORS, levelAbove } from "../../vmm/doctor/level-above.js";
import { filesBelow } from "../../vmm/doctor/this-host.js";
import { decide } from "../../vmm/doctor/verdict.js";
import {
  AMD,
  INTEL,
  INTEL_WITHOUT,
  IN_VM,
  KVM_DEVICE,
  fixtureHost,
  signature,
  status,
  type Fixture,
  type Tree,
} from "../helpers/fixture-host.js";

const ALL = [...CHECKS, ...PASSTHROUGH_CHECKS];
const NO_MODULE: Tree = { "/sys/module/kvm_intel": undefined, "/sys/module/kvm_intel/parameters/nested": undefined };
const NO_KVM: Tree = { ...NO_MODULE, "/dev/kvm": undefined };
const IN_DOCKER: Tree = { "/proc/self/mounts": "tmpfs /dev tmpfs rw,nosuid 0 0\n", "/.dockerenv": "" };
const NOT_MEMBER = status({ groups: "1000" });
const ROOT = status({ uid: 0, capabilities: 2n ** 41n - 1n });

interface Case {
  readonly code: string;
  readonly when: string;
  readonly host: Fixture;
  readonly detail: RegExp;
  readonly cure: RegExp;
  readonly status?: "note" | "bad";
  /** Other problems that may be reported beside it. */
  readonly beside?: readonly string[];
}

// What only restates that it does not work, or the machine.
const RESTATE = ["kvm-open", "kvm-device", "kvm-module", "cpu"];

const CASES: readonly Case[] = [
  {
    code: "host-gvisor",
    when: "the kernel is gVisor's",
    host: {
      files: { "/proc/version": "Linux version 4.19.0-gvisor #1 SMP Sun Jan 10 15:06:54 PST 2016" },
      openFails: "ENOENT",
    },
    detail: /gVisor/,
    cure: /runc/,
  },
  {
    code: "host-wsl1",
    when: "Windows plays Linux",
    host: {
      files: { ...NO_KVM, "/proc/cpuinfo": INTEL_WITHOUT, "/proc/sys/kernel/osrelease": "4.4.0-19041-Microsoft" },
      openFails: "ENOENT",
    },
    detail: /WSL 1/,
    cure: /--set-version/,
    beside: ["firmware-off"],
  },
  {
    code: "host-user-mode-linux",
    when: "the kernel is a program",
    host: { files: { ...NO_KVM, "/proc/cpuinfo": "vendor_id : User Mode Linux\n" }, openFails: "ENOENT" },
    detail: /cannot have KVM/,
    cure: /other Linux/,
  },
  {
    code: "firmware-off",
    when: "CPUID has VMX and the kernel hides it",
    host: { files: { ...NO_KVM, "/proc/cpuinfo": INTEL_WITHOUT }, openFails: "ENOENT", cpuid: { 1: { ecx: 1 << 5 } } },
    detail: /CPUID has VMX/,
    cure: /BIOS/,
  },
  {
    code: "firmware-off",
    when: "the lock of IA32_FEATURE_CONTROL is readable",
    host: { files: NO_KVM, openFails: "ENOENT", msrs: { 0x3a: 1n } },
    detail: /IA32_FEATURE_CONTROL/,
    cure: /BIOS/,
    beside: ["kvm-not-loaded"],
  },
  {
    code: "firmware-off",
    when: "SVMDIS is set",
    host: { files: { ...NO_KVM, "/proc/cpuinfo": AMD }, openFails: "ENOENT", msrs: { 0xc0010114: 0x18n } },
    detail: /SVMDIS/,
    cure: /SVM Mode/,
    beside: ["kvm-not-loaded"],
  },
  {
    code: "firmware-off",
    when: "the kernel's log has it",
    host: { files: NO_KVM, openFails: "ENOENT", log: "6,1,2,-;kvm_intel: VMX (outside TXT) disabled by BIOS\n" },
    detail: /log says so/,
    cure: /BIOS/,
    beside: ["kvm-not-loaded"],
  },
  {
    code: "firmware-off",
    when: "only the kind of processor tells",
    host: { files: { ...NO_KVM, "/proc/cpuinfo": INTEL_WITHOUT }, openFails: "ENOENT" },
    detail: /does not show/,
    cure: /BIOS/,
  },
  {
    code: "nested-off",
    when: "nothing but a hypervisor is there",
    host: {
      files: { ...NO_KVM, "/proc/cpuinfo": IN_VM },
      openFails: "ENOENT",
      cpuid: { 0x40000000: signature("KVMKVMKVM") },
    },
    detail: /^KVM runs this machine/,
    cure: /nested=1/,
  },
  {
    code: "nested-off",
    when: "a software KVM works all the same",
    host: {
      files: { ...NO_MODULE, "/sys/module/kvm_pvm": {}, "/proc/cpuinfo": IN_VM },
      kvm: { mips: 1.6, quirks: { missing: ["int3"], syscallStaysInUserMode: true, tscKhz: 1, xsaveComponents: [] } },
    },
    detail: /unknown hypervisor/,
    cure: /nested/,
    status: "note",
    beside: ["kvm-speed", "kvm-quirks"],
  },
  {
    code: "kvm-not-loaded",
    when: "vmx is there, the module is not",
    host: { files: NO_KVM, openFails: "ENOENT" },
    detail: /kvm_intel is not loaded/,
    cure: /modprobe kvm_intel/,
  },
  {
    code: "kvm-not-loaded",
    when: "the host of a container has not loaded it",
    host: { files: { ...NO_KVM, ...IN_DOCKER, "/proc/cpuinfo": AMD }, openFails: "ENOENT" },
    detail: /kvm_amd is not loaded on the host of this container/,
    cure: /there: sudo modprobe kvm_amd/,
  },
  {
    code: "kvm-not-built",
    when: "the kernel's modules are known and KVM is not among them",
    host: {
      files: { ...NO_KVM, "/lib/modules/6.1.0-28-amd64/modules.dep": "kernel/fs/ext4.ko:\n" },
      openFails: "ENOENT",
    },
    detail: /built without KVM/,
    cure: /linux-image-amd64/,
  },
  {
    code: "kvm-busy",
    when: "VirtualBox holds VT-x",
    host: {
      files: { "/sys/module/vboxdrv": {} },
      kvm: { failure: { request: "KVM_CREATE_VM", errno: "EBUSY", message: "KVM_CREATE_VM failed with EBUSY" } },
    },
    detail: /^VirtualBox/,
    cure: /unload vboxdrv/,
  },
  {
    code: "device-not-in-container",
    when: "Docker was not told",
    host: { files: { ...IN_DOCKER, "/dev/kvm": undefined }, openFails: "ENOENT" },
    detail: /\(docker\) was not given/,
    cure: /--device \/dev\/kvm/,
  },
  {
    code: "device-not-in-container",
    when: "a pod did not ask",
    host: {
      files: { ...IN_DOCKER, "/dev/kvm": undefined },
      environment: { KUBERNETES_SERVICE_HOST: "10.0.0.1" },
      openFails: "ENOENT",
    },
    detail: /\(kubernetes\)/,
    cure: /device plugin/,
  },
  {
    code: "device-missing",
    when: "KVM is loaded and nobody made the node",
    host: { files: { "/dev/kvm": undefined }, openFails: "ENOENT" },
    detail: /nothing like udev/,
    cure: /mknod/,
  },
  {
    code: "device-wrong",
    when: "a volume made a folder of it",
    host: { files: { "/dev/kvm": { kind: "directory", mode: 0o755 } }, openFails: "EISDIR" },
    detail: /a directory/,
    cure: /--device/,
  },
  {
    code: "device-no-driver",
    when: "the node is older than the module's end",
    host: { files: NO_MODULE, openFails: "ENODEV" },
    detail: /no driver answers \(ENODEV\)/,
    cure: /dmesg/,
  },
  {
    code: "device-group",
    when: "the user is not in the group",
    host: {
      files: { "/proc/self/status": NOT_MEMBER, "/etc/group": "kvm:x:105:bob\n" },
      openFails: "EACCES",
    },
    detail: /mode 0660, owner root:kvm: ann is not in the group kvm/,
    cure: /usermod -aG kvm ann/,
  },
  {
    code: "device-group",
    when: "a container's user is not",
    host: { files: { ...IN_DOCKER, "/proc/self/status": NOT_MEMBER, "/etc/group": "" }, openFails: "EACCES" },
    detail: /not in the group 105/,
    cure: /--group-add 105/,
  },
  {
    code: "device-group",
    when: "rootless podman has not kept the groups",
    host: {
      files: {
        ...IN_DOCKER,
        "/.dockerenv": undefined,
        "/run/.containerenv": 'engine="podman-4.3.1"',
        "/proc/self/status": NOT_MEMBER,
        "/dev/kvm": { ...KVM_DEVICE, gid: 65534 },
      },
      openFails: "EACCES",
    },
    detail: /65534/,
    cure: /keep-groups/,
  },
  {
    code: "device-login",
    when: "the session is older than the membership",
    host: { files: { "/proc/self/status": NOT_MEMBER }, openFails: "EACCES" },
    detail: /began before/,
    cure: /newgrp kvm/,
  },
  {
    code: "device-mode",
    when: "only root may",
    host: { files: { "/dev/kvm": { ...KVM_DEVICE, mode: 0o600, gid: 0 } }, openFails: "EACCES" },
    detail: /mode 0600, owner root:root: only its owner/,
    cure: /udev rule/,
  },
  {
    code: "device-nodev",
    when: "the mount says nodev",
    host: {
      files: {
        "/proc/self/mountinfo": "25 30 0:5 / /dev rw - tmpfs t rw\n26 25 0:5 / /dev/kvm rw,nodev - tmpfs t rw\n",
      },
      openFails: "EACCES",
    },
    detail: /nodev/,
    cure: /bind/,
  },
  {
    code: "device-cgroup",
    when: "a container's device list leaves it out",
    host: { files: { ...IN_DOCKER, "/proc/self/status": ROOT }, openFails: "EPERM" },
    detail: /c 10:232 \(EPERM\)/,
    cure: /--device/,
  },
  {
    code: "device-cgroup",
    when: "a unit's device list leaves it out",
    host: { openFails: "EPERM" },
    detail: /control group/,
    cure: /DeviceAllow/,
  },
  {
    code: "lsm-apparmor",
    when: "a profile forbids it",
    host: { files: { "/proc/self/attr/current": "docker-default (enforce)" }, openFails: "EACCES" },
    detail: /docker-default/,
    cure: /dev\/kvm rw/,
  },
  {
    code: "lsm-selinux",
    when: "SELinux enforces",
    host: {
      files: {
        ...IN_DOCKER,
        "/sys/fs/selinux/enforce": "1",
        "/proc/self/attr/current": "system_u:system_r:container_t:s0",
      },
      openFails: "EACCES",
    },
    detail: /container_t/,
    cure: /container_use_devices/,
  },
  {
    code: "lsm-other",
    when: "nothing known forbids it",
    host: { files: { "/sys/kernel/security/lsm": "landlock,yama" }, openFails: "EACCES" },
    detail: /landlock/,
    cure: /sandbox/,
  },
  {
    code: "seccomp",
    when: "a filter answers ioctl",
    host: {
      files: { ...IN_DOCKER, "/proc/self/status": status({ groups: "105", seccomp: 2 }) },
      kvm: { failure: { request: "KVM_GET_API_VERSION", errno: "EPERM", message: "m" }, capabilities: [] },
    },
    detail: /KVM_GET_API_VERSION gets EPERM: a seccomp filter/,
    cure: /seccomp profile/,
  },
  {
    code: "seccomp",
    when: "the same without a filter is an LSM",
    host: { kvm: { failure: { request: "KVM_CREATE_VM", errno: "EACCES", message: "m" } } },
    detail: /a security module/,
    cure: /filter/,
  },
  {
    code: "kvm-capabilities",
    when: "one is missing",
    host: { kvm: { capabilities: [{ name: "KVM_CAP_IRQCHIP", present: false, required: true }] } },
    detail: /KVM_CAP_IRQCHIP/,
    cure: /newer/,
  },
  {
    code: "memory-free",
    when: "the host is full",
    host: { files: { "/proc/meminfo": "MemAvailable: 100000 kB\n" } },
    detail: /98 MiB available.*192 MiB/,
    cure: /--memory/,
  },
  {
    code: "memory-cgroup",
    when: "v2 leaves too little, two levels up",
    host: {
      files: {
        "/proc/self/cgroup": "0::/a/b\n",
        "/sys/fs/cgroup/a/b/memory.max": "max",
        "/sys/fs/cgroup/a/b/memory.current": "1",
        "/sys/fs/cgroup/a/memory.max": String(256 * 2 ** 20),
        "/sys/fs/cgroup/a/memory.current": String(200 * 2 ** 20),
        "/sys/fs/cgroup/a/memory.stat": `anon 1\ninactive_file ${String(20 * 2 ** 20)}\n`,
      },
    },
    detail: /^76 MiB left/,
    cure: /MemoryMax/,
  },
  {
    code: "memory-cgroup",
    when: "v1 leaves too little in a container",
    host: {
      files: {
        ...IN_DOCKER,
        "/proc/self/cgroup": "4:memory:/docker/abc\n0::/\n",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes": String(128 * 2 ** 20),
        "/sys/fs/cgroup/memory/memory.usage_in_bytes": String(28 * 2 ** 20),
      },
    },
    detail: /^100 MiB left/,
    cure: /larger --memory/,
  },
  {
    code: "memory-rlimit",
    when: "ulimit -v is low",
    host: { files: { "/proc/self/limits": "Max address space         1024000000   1024000000   bytes\n" } },
    detail: /RLIMIT_AS leaves 98 MiB/,
    cure: /ulimit -v/,
  },
  {
    code: "hugepages",
    when: "they are turned off",
    host: { files: { "/sys/kernel/mm/transparent_hugepage/enabled": "always madvise [never]" } },
    detail: /transparent: never/,
    cure: /madvise/,
    status: "note",
  },
  {
    code: "tap",
    when: "there is no tun",
    host: { files: { "/dev/net/tun": undefined } },
    detail: /no \/dev\/net\/tun/,
    cure: /modprobe tun/,
    status: "note",
  },
  {
    code: "guest",
    when: "it cannot be built",
    host: { guest: { isBuilt: false, missingPackages: ["flex", "bison"] } },
    detail: /not built yet.*flex, bison/,
    cure: /apt-get install .*flex bison/,
    status: "note",
  },
  {
    code: "lab",
    when: "QEMU is missing",
    host: { without: ["qemu-system-x86_64"] },
    detail: /missing: qemu-system-x86/,
    cure: /apt-get install .*qemu-system-x86/,
    status: "note",
  },
  {
    code: "lab-intel",
    when: "Bochs is missing",
    host: { without: ["bochs-bin"] },
    detail: /missing: bochs/,
    cure: /apt-get install .*bochs/,
    status: "note",
  },
  {
    code: "lab",
    when: "this is not Debian",
    host: { files: { "/etc/os-release": 'NAME="Ubuntu"\nID=ubuntu\nID_LIKE=debian\n' } },
    detail: /this is ubuntu/,
    cure: /node:20-bookworm/,
    status: "note",
  },
  {
    code: "iommu",
    when: "it is off",
    host: {},
    detail: /no groups/,
    cure: /intel_iommu=on/,
    status: "note",
  },
  {
    code: "vfio",
    when: "it is not loaded",
    host: {},
    detail: /no \/dev\/vfio\/vfio/,
    cure: /vfio-pci/,
    status: "note",
  },
  {
    code: "vfio-memlock",
    when: "little may be locked",
    host: { files: { "/proc/self/limits": "Max locked memory         8388608   8388608   bytes\n" } },
    detail: /8 MiB/,
    cure: /LimitMEMLOCK/,
    status: "note",
  },
];

/** Codes of findings that ask for something to be done. */
function problems(findings: readonly Finding[]): string[] {
  return findings.filter(({ status: s, cure }) => s !== "ok" && cure !== undefined).map(({ code }) => code);
}

describe("doctor: diagnoses", () => {
  for (const { code, when, host, detail, cure, status: expected = "bad", beside = [] } of CASES) {
    it(`${code}: ${when}`, () => {
      const findings = lookAt(fixtureHost(host), ALL);
      const found = findings.find((finding) => finding.code === code);
      assert.ok(found !== undefined, `found only ${findings.map((f) => f.code).join(", ")}`);
      assert.match(found.detail, detail);
      assert.match(found.cure ?? "", cure);
      assert.equal(found.status, expected);
      for (const text of [found.title, found.detail, found.cure ?? ""]) assert.ok(!text.includes("\n"), text);
      // One cause, one diagnosis: no second one that sends the reader elsewhere.
      const usual = ["iommu", "vfio", "vfio-memlock", "tap"];
      const others = problems(findings).filter((other) => other !== code);
      assert.deepEqual(
        others.filter((other) => ![...RESTATE, ...usual, ...beside].includes(other)),
        [],
      );
    });
  }

  it("every check that can find a problem is tried above", () => {
    const tried = new Set(CASES.map(({ code }) => code));
    const untried = ALL.filter(({ worst, code }) => worst !== "ok" && !tried.has(code)).map(({ code }) => code);
    assert.deepEqual(untried.sort(), ["cpu", "kvm-device", "kvm-module", "kvm-open", "kvm-quirks", "kvm-speed"]);
  });

  it("the usual host has nothing to complain of, and codes are unique", () => {
    const findings = lookAt(fixtureHost(), CHECKS);
    assert.deepEqual(
      findings.filter(({ status: s, code }) => s !== "ok" && code !== "tap"),
      [],
    );
    assert.equal(new Set(ALL.map(({ code }) => code)).size, ALL.length);
  });

  it("no finding is worse than its check admits", () => {
    const rank = { ok: 0, note: 1, bad: 2 };
    for (const { host } of CASES) {
      for (const { code, status: s } of lookAt(fixtureHost(host), ALL)) {
        assert.ok(rank[s] <= rank[ALL.find((check) => check.code === code)?.worst ?? "ok"], code);
      }
    }
  });
});

describe("doctor: surroundings", () => {
  it("tells the hypervisors apart, by maker or by CPUID", () => {
    const above = (files: Tree, name = ""): string | undefined =>
      levelAbove(fixtureHost({ files: { "/proc/cpuinfo": IN_VM, ...files }, cpuid: { 0x40000000: signature(name) } }))
        ?.name;
    const dmi = (vendor: string, product: string): Tree => ({
      "/sys/class/dmi/id/sys_vendor": vendor,
      "/sys/class/dmi/id/product_name": product,
    });
    assert.equal(above(dmi("Microsoft Corporation", "Virtual Machine")), "Hyper-V");
    assert.equal(
      above({
        ...dmi("Microsoft Corporation", "Virtual Machine"),
        "/sys/class/dmi/id/chassis_asset_tag": "7783-7084-3265-9085-8269-3286-77",
      }),
      "Azure",
    );
    // VirtualBox shows KVM's leaf to Linux, KVM shows Hyper-V's to Windows: the maker's name decides.
    assert.equal(above(dmi("innotek GmbH", "VirtualBox"), "KVMKVMKVM"), "VirtualBox");
    assert.equal(above(dmi("QEMU", "Standard PC (Q35 + ICH9, 2009)"), "Microsoft Hv"), "KVM");
    assert.equal(above(dmi("VMware, Inc.", "VMware Virtual Platform")), "VMware");
    assert.equal(above(dmi("Google", "Google Compute Engine"), "KVMKVMKVM"), "Google Compute Engine");
    assert.equal(above(dmi("Amazon EC2", "m5.large"), "KVMKVMKVM"), "Amazon EC2");
    assert.equal(above(dmi("Xen", "HVM domU")), "Xen");
    assert.equal(above({ "/sys/hypervisor/type": "xen" }), "Xen");
    assert.equal(above({ "/proc/sys/kernel/osrelease": "5.15.153.1-microsoft-standard-WSL2" }), "WSL 2");
    for (const { signature: text, name } of HYPERVISORS) {
      if (text !== undefined) assert.equal(above({}, text), name);
    }
    assert.equal(above({}, "????????????"), "an unknown hypervisor");
    assert.equal(above({ "/proc/cpuinfo": INTEL }), undefined);
  });

  it("tells the container engines apart, and a machine made from an image from a container", () => {
    const engine = (files: Tree, environment = {}): string | undefined =>
      containerEngine(
        fixtureHost({ files: { "/proc/self/mounts": "tmpfs /dev tmpfs rw 0 0\n", ...files }, environment }),
      );
    assert.equal(engine({}), undefined);
    assert.equal(engine({ "/.dockerenv": "" }), "docker");
    assert.equal(engine({ "/.dockerenv": "", "/proc/self/mounts": "dev /dev devtmpfs rw 0 0\n" }), undefined);
    assert.equal(engine({ "/run/.containerenv": "" }), "podman");
    assert.equal(engine({ "/proc/1/environ": "PATH=/bin\0container=lxc\0" }), "lxc");
    assert.equal(engine({ "/run/systemd/container": "systemd-nspawn" }), "systemd-nspawn");
    assert.equal(engine({ "/proc/1/cgroup": "0::/kubepods/besteffort/pod1\n" }), "kubernetes");
    assert.equal(engine({ "/proc/1/cgroup": "5:devices:/lxc.payload.one\n" }), "lxc");
    assert.equal(engine({}, { container: "rocket" }), "unknown");
  });

  it("reads a tree of files", () => {
    const root = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    try {
      mkdirSync(join(root, "sys/module/kvm_amd"), { recursive: true });
      writeFileSync(join(root, "sys/module/kvm_amd/x"), " text \n", { mode: 0o640 });
      const files = filesBelow(root);
      assert.equal(files.read("/sys/module/kvm_amd/x"), "text");
      assert.deepEqual(files.list("/sys/module"), ["kvm_amd"]);
      assert.equal(files.facts("/sys/module/kvm_amd/x")?.mode, 0o640);
      assert.equal(files.facts("/sys/module")?.kind, "directory");
      assert.deepEqual([files.read("/none"), files.list("/none"), files.facts("/none")], [undefined, [], undefined]);
      const device = filesBelow("").facts("/dev/null");
      assert.deepEqual([device?.kind, device?.major, device?.minor], ["character-device", 1, 3]);
    } finally {
      rmSync(root, { recursive: true });
    }
  });
});

describe("doctor: verdict", () => {
  const verdict = (fixture: Fixture): ReturnType<typeof decide> => {
    const host = fixtureHost(fixture);
    return decide(host, lookAt(host, CHECKS));
  };

  it("hardware, software, the lab, nothing", () => {
    assert.deepEqual(verdict({}).accelerator, "kvm");
    const quirks = { missing: [], syscallStaysInUserMode: true, tscKhz: 1, xsaveComponents: [] };
    assert.deepEqual(verdict({ kvm: { quirks, mips: 2 } }).accelerator, "kvm");
    assert.match(verdict({ kvm: { quirks, mips: 2 } }).reason, /emulates/);
    const lab = verdict({ files: NO_KVM, openFails: "ENOENT" });
    assert.equal(lab.accelerator, "lab");
    assert.match(lab.better[0] ?? "", /modprobe/);
    const none = verdict({ files: NO_KVM, openFails: "ENOENT", without: ["mke2fs"] });
    assert.equal(none.accelerator, "none");
    assert.match(none.better.join(), /e2fsprogs/);
  });

  it("without memory nothing boots, not even in the lab", () => {
    const { accelerator, better } = verdict({ files: { "/proc/meminfo": "MemAvailable: 1000 kB\n" } });
    assert.equal(accelerator, "none");
    assert.match(better.join(), /--memory/);
  });
});

describe("doctor: --fix", () => {
  it("prints a script; what runs elsewhere or has a blank is a comment", () => {
    const script = (fixture: Fixture): string => fixScript(lookAt(fixtureHost(fixture), CHECKS));
    const local = script({
      files: { "/proc/self/status": NOT_MEMBER, "/etc/group": "kvm:x:105:bob\n" },
      openFails: "EACCES",
    });
    assert.match(local, /^# device-group: Group: .*\n# sudo usermod.*\nsudo usermod -aG kvm ann\n/m);
    const contained = script({ files: { ...IN_DOCKER, "/dev/kvm": undefined }, openFails: "ENOENT" });
    assert.match(contained, /^# {3}on the host of this container: docker run --device/m);
    const unit = script({ openFails: "EPERM" });
    assert.match(unit, /^# {3}here: systemctl set-property --runtime <UNIT>/m);
    assert.equal(fixScript([]), "# Nothing to fix.\n");
  });

  it("every script is one for a shell", () => {
    for (const { host } of CASES) {
      const text = fixScript(lookAt(fixtureHost(host), ALL));
      const { status: code, stderr } = spawnSync("sh", ["-n"], { input: text, encoding: "utf8" });
      assert.equal(code, 0, `${stderr}\n${text}`);
    }
  });
});

describe("doctor: documents", () => {
  const [, codes = ""] = readFileSync("vmm/doctor/README.md", "utf8").split("\n## Codes\n");
  const table = codes
    .split("\n")
    .filter((line) => line.startsWith("| `"))
    .map((line) => line.split("|").map((cell) => cell.replaceAll("`", "").trim()));

  it("the table of codes is the list of checks", () => {
    const listed = table.map(([, code = "", worst = ""]) => `${code} ${worst}`);
    assert.deepEqual(
      listed,
      ALL.map(({ code, worst }) => `${code} ${worst}`),
    );
  });
});
