// Needs: nothing. Every diagnosis of the doctor, on hosts that exist as text.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CHECKS, PASSTHROUGH_CHECKS, lookAt } from "../../vmm/doctor/all-checks.js";
import { vfio, vfioDevices } from "../../vmm/doctor/checks/passthrough.js";
import type { Finding } from "../../vmm/doctor/checks.js";
import { containerEngine } from "../../vmm/doctor/container.js";
import { fixScript } from "../../vmm/doctor/fix-script.js";
import { HYPERVISORS, levelAbove } from "../../vmm/doctor/level-above.js";
import { filesBelow } from "../../vmm/doctor/this-host.js";
import { decide } from "../../vmm/doctor/verdict.js";
import { CASES, NO_KVM, IN_DOCKER, NOT_MEMBER } from "../helpers/doctor-cases.js";
import { INTEL, IN_VM, fixtureHost, pciDevice, signature, type Fixture, type Tree } from "../helpers/fixture-host.js";

const ALL = [...CHECKS, ...PASSTHROUGH_CHECKS];

// What only restates that it does not work, or the machine.
const RESTATE = ["kvm-open", "kvm-device", "kvm-module", "cpu"];

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
      const usual = ["iommu", "vfio", "vfio-memlock", "vfio-devices", "tap"];
      const others = problems(findings).filter((other) => other !== code);
      assert.deepEqual(
        others.filter((other) => ![...RESTATE, ...usual, ...beside].includes(other)),
        [],
      );
    });
  }

  it("vfio-devices: one that vfio-pci has can be given away, with whom it shares its group", () => {
    const [finding] = lookAt(
      fixtureHost({
        files: {
          ...pciDevice("0000:01:00.0", "5", "nvme"),
          ...pciDevice("0000:02:00.0", "6", "vfio-pci"),
          ...pciDevice("0000:02:00.1", "6"),
        },
      }),
      [vfioDevices],
    );
    assert.equal(finding?.status, "ok");
    assert.equal(
      finding.detail,
      "0000:01:00.0: has the driver nvme, in group 5 alone; " +
        "0000:02:00.0: can be given to a guest, in group 6 with 0000:02:00.1; " +
        "0000:02:00.1: without a driver, in group 6 with 0000:02:00.0",
    );
  });

  it("vfio: by groups, by iommufd, or both", () => {
    const told = (...paths: readonly string[]): string | undefined =>
      lookAt(fixtureHost({ files: Object.fromEntries(paths.map((path) => [path, ""])) }), [vfio])[0]?.detail;
    const groups = ["/dev/vfio/vfio", "/dev/vfio/7", "/dev/vfio/12"];
    const devices = ["/dev/iommu", "/dev/vfio/devices/vfio0"];
    assert.equal(told(...groups), "2 groups of devices are bound to it");
    assert.equal(told(...devices), "1 devices by iommufd");
    assert.equal(told(...groups, ...devices), "2 groups of devices are bound to it, 1 devices by iommufd");
  });

  it("guest: built is what one kind of host needs, and what is not there is said", () => {
    const told = (kernels: readonly ("default" | "fast")[], hasInitramfs = true): string[] =>
      lookAt(fixtureHost({ guest: { hasInitramfs, kernels, missingPackages: [] } }), CHECKS)
        .filter(({ code }) => code === "guest")
        .map(({ status: s, detail }) => `${s}: ${detail}`);
    assert.deepEqual(told(["default", "fast"]), ["ok: kernels and initramfs are built"]);
    const other = "are built; the other kernel is built where it is needed";
    assert.deepEqual(told(["fast"]), [`ok: initramfs and the kernel for software KVMs ${other}`]);
    assert.deepEqual(told(["default"]), [`ok: initramfs and the kernel for hardware KVM and the lab ${other}`]);
    for (const some of [told([]), told(["fast"], false)]) {
      assert.deepEqual(some, ["ok: the first boot builds it, once, in some minutes"]);
    }
  });

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

  it("no script that is run as a whole ends the host or takes away what somebody may want to keep", () => {
    const harm = /\b(reboot|shutdown|poweroff|halt|mkfs|dd|wsl)\b|\brm\s+-\w*[rf]|[^>]>\s*\/(?!sys\/|proc\/|dev\/null)/;
    for (const { host } of CASES) {
      const text = fixScript(lookAt(fixtureHost(host), ALL));
      const run = text
        .split("\n")
        .filter((line) => line !== "" && !line.startsWith("#") && !line.startsWith("echo now "));
      assert.deepEqual(
        run.filter((line) => harm.test(line)),
        [],
      );
    }
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
