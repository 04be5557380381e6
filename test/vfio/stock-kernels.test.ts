// Needs: root, the lab, mmdebstrap with Debian's archive. Debian's kernels with their own initrd and root, on the PCI bus alone; and the
// package's own kernel with a device of the lab.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { chmodSync, mkdtempSync, readdirSync, rmSync, truncateSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { V8_FLAGS } from "../../vmm/host/v8-flags.js";
import { findProgram } from "../../vmm/host/programs.js";
import { LAB_CLI, packageInputs } from "../../vmm/lab/checkout.js";
import { labDiskPath } from "../../vmm/lab/disks.js";
import { missingLabPrograms } from "../../vmm/lab/programs.js";
import { LabSession } from "../../vmm/lab/session.js";
import { skip } from "../helpers/skip.js";

/** All kernels of one root together; each takes a minute where it is emulated twice. */
const LIMIT_MS = 1_800_000;
const GUEST_LIMIT_S = 900;
const FLAVOURS = ["amd64", "cloud-amd64"] as const;
const PACKAGES = [...FLAVOURS.map((flavour) => `linux-image-${flavour}`), "iproute2", "busybox"];
/** Interrupts by MSI, and has no MSI-X; the cloud kernel has no driver for it. */
const CONTROLLER = "0000:00:0e.0";
const HOST = "172.31.247.1";
const GUEST = "172.31.247.2";
const ROOT_MIB = 1200;
const NVME_BYTES = 64 * 2 ** 20;

/** What a system's init would do, and no more: it looks around, answers and powers off. */
const INIT = `#!/bin/sh
mount -t proc proc /proc 2>/dev/null; mount -t sysfs sys /sys 2>/dev/null
exec </dev/console >/dev/console 2>&1
echo "cpus $(nproc)"
echo "root $(sed -n 's/^\\([^ ]*\\) \\/ ext4 .*/\\1/p' /proc/mounts)"
for path in /sys/class/net/*; do [ ! -e $path/device ] || net=\${path##*/}; done
ip link set "$net" up; ip addr add ${GUEST}/24 dev "$net"
echo "network $(busybox ping -c 3 ${HOST} | grep -o '3 packets received')"
echo "devices $(ls /sys/bus/pci/devices | tr '\\n' ' ')"
echo "messages $(grep -c 'PCI-MSI.*virtio[01]-' /proc/interrupts)"
echo "words about virtio-mmio $(dmesg | grep -c -i -e 'virtio[_-]mmio')"
n=0; until [ -b /dev/sda ] || [ ! -d /sys/bus/pci/drivers/ahci ] || [ $n = 50 ]; do sleep 0.2; n=$((n + 1)); done
echo "controller $(sed -n 's/.*\\(PCI-MSI\\|IO-APIC\\).*ahci.*/\\1/p' /proc/interrupts) $(head -c 65536 /dev/sda 2>/dev/null | wc -c)"
echo hello >/root/file; sync
busybox poweroff -f
`;

function output(stdout: Buffer): string {
  return stdout.toString("latin1").replaceAll("\r", "");
}

describe("stock kernels on the PCI bus", function () {
  this.timeout(LIMIT_MS);
  let lab: LabSession | undefined;
  let folder = "";

  before(async function () {
    const missing = [...missingLabPrograms(), ...(findProgram("mmdebstrap") === undefined ? ["mmdebstrap"] : [])];
    if (missing.length > 0) skip(this, `there is no ${missing.join(", ")}`);
    if (process.geteuid?.() !== 0) skip(this, "makes a Debian with devices and owners: only for root");
    const packageRoot = resolve(".");
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    const root = join(folder, "root");
    const include = `--include=${PACKAGES.join(",")}`;
    execFileSync("mmdebstrap", ["--quiet", "--variant=essential", include, "bookworm", root], { stdio: "inherit" });
    for (const unused of ["usr/share/doc", "usr/share/locale", "var/cache/apt"]) {
      rmSync(join(root, unused), { recursive: true, force: true });
    }
    writeFileSync(join(root, "sbin/init"), INIT);
    chmodSync(join(root, "sbin/init"), 0o755);
    const image = join(folder, "root.ext4");
    execFileSync("mke2fs", ["-q", "-F", "-t", "ext4", "-d", root, image, `${String(ROOT_MIB)}M`]);
    const nvmeDisk = join(folder, "nvme.img");
    writeFileSync(nvmeDisk, "");
    truncateSync(nvmeDisk, NVME_BYTES);
    const boot = readdirSync(join(root, "boot"));
    const ofFlavour = (kind: string, flavour: string): string => {
      const found = boot.find((name) => new RegExp(`^${kind}-[0-9.]+-[0-9]+-${flavour}$`).test(name));
      assert.ok(found !== undefined, `no ${kind} of ${flavour} in ${boot.join(" ")}`);
      return join(root, "boot", found);
    };
    const inputs = [
      ...packageInputs(packageRoot),
      ...FLAVOURS.flatMap((flavour) => [
        { from: ofFlavour("vmlinuz", flavour), to: `vmlinuz-${flavour}` },
        { from: ofFlavour("initrd.img", flavour), to: `initrd.img-${flavour}` },
      ]),
      // Where `vmlet boot` looks by itself.
      { from: "guest/out/default/vmlinux", to: "vmlet/guest/out/default/vmlinux" },
      { from: "guest/out/initramfs.cpio", to: "vmlet/guest/out/initramfs.cpio" },
    ];
    const disks = [{ path: image, format: "raw", isReadonly: false, cache: "unsafe", lock: false }] as const;
    lab = await LabSession.start({ packageRoot, memoryMib: 2048, cpus: 2, inputs, disks, nvmeDisk });
  });
  after(async () => {
    await lab?.close();
    if (folder !== "") rmSync(folder, { recursive: true, force: true });
  });

  async function shell(script: string): Promise<string> {
    assert.ok(lab !== undefined);
    const env = { BOOT: `timeout ${String(GUEST_LIMIT_S)} node ${V8_FLAGS.join(" ")} ${LAB_CLI} boot --accel kvm` };
    return output((await lab.run({ argv: ["sh", "-c", script], env, stdin: "" })).stdout);
  }

  for (const flavour of FLAVOURS) {
    it(`Debian's ${flavour}, with the initrd that Debian has made for it: a root, a network and two processors`, async () => {
      const disk = labDiskPath(0);
      const hasController = flavour === "amd64";
      const stdout = await shell(
        `echo vfio-pci >/sys/bus/pci/devices/${CONTROLLER}/driver_override; echo ${CONTROLLER} >/sys/bus/pci/drivers_probe
         $BOOT --quiet --pci ${hasController ? `--vfio ${CONTROLLER}` : ""} --kernel /input/vmlinuz-${flavour} --initrd /input/initrd.img-${flavour} --memory 768 --cpus 2 ` +
          `--disk path=${disk},root --net tap=auto,ip=${HOST}/24 --cmdline "loglevel=1" </dev/null; echo "status $?"
         mkdir -p /tmp/root; mount -o ro ${disk} /tmp/root && cat /tmp/root/root/file; umount /tmp/root`,
      );
      const lines = stdout
        .slice(stdout.indexOf("cpus "))
        .trimEnd()
        .split("\n")
        .filter((line) => !line.startsWith("["));
      assert.deepEqual(
        lines,
        [
          ...["cpus 2", "root /dev/vda", "network 3 packets received"],
          `devices 0000:00:00.0 0000:00:01.0 0000:00:02.0 ${hasController ? "0000:00:03.0 " : ""}`,
          ...["messages 5", "words about virtio-mmio 0"],
          `controller ${hasController ? "PCI-MSI 65536" : " 0"}`,
          ...["status 0", "hello"],
        ],
        stdout,
      );
    });
  }

  it("the package's own kernel has the driver of an NVMe disk that it is given, whose registers are 64 bits wide, without ACPI", async () => {
    const devices = "/sys/bus/pci/devices";
    const script = `cat ${devices}/0000:00:01.0/class; echo the guest was here | dd of=/dev/nvme0n1 conv=fsync 2>/dev/null
      dd if=/dev/nvme0n1 bs=1M count=32 of=/dev/null 2>/dev/null && echo read; grep -c 'PCI-MSI.*nvme0q' /proc/interrupts; dmesg | grep -c -w ACPI; true`;
    const stdout = await shell(`
      echo vfio-pci >${devices}/0000:01:00.0/driver_override; echo 0000:01:00.0 >/sys/bus/pci/drivers/nvme/unbind
      echo 0000:01:00.0 >/sys/bus/pci/drivers_probe
      $BOOT --quiet --vfio 01:00.0 -- sh -c "${script.replaceAll('"', '\\"')}" </dev/null; echo "status $?"
      echo 0000:01:00.0 >/sys/bus/pci/drivers/vfio-pci/unbind; echo nvme >${devices}/0000:01:00.0/driver_override
      echo 0000:01:00.0 >/sys/bus/pci/drivers_probe; n=0; until [ -e /dev/nvme0n1 ] || [ $n = 100 ]; do sleep 0.1; n=$((n + 1)); done
      head -c 18 /dev/nvme0n1`);
    const lines = stdout.split("\n");
    assert.deepEqual(lines.slice(0, 2), ["0x010802", "read"], stdout);
    assert.ok(Number(lines[2]) >= 1, stdout);
    assert.deepEqual(lines.slice(3), ["0", "status 0", "the guest was here"], stdout);
  });
});
