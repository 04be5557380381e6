// Needs: hardware KVM, or the lab. The package's own kernel and Debian's, and their drivers, against our devices on the PCI bus.
import assert from "node:assert/strict";
import { PCI_MODULES } from "../helpers/guest-images.js";
import { guestRunner, whyNoBoot, type GuestRunner } from "../helpers/guest-runner.js";
import { skip } from "../helpers/skip.js";
import { tapProblem, vhostProblem } from "../helpers/tap-guard.js";

const DISK = "/tmp/vmlet-pci.img";
const HOST = "172.31.248.1";
const GUEST = "172.31.248.2";
/** A stock kernel takes its time where it is emulated twice. */
const LIMIT_MS = 600_000;

describe("boot: pci", function () {
  this.timeout(LIMIT_MS);
  let guest: GuestRunner;

  before(async function () {
    const reason = whyNoBoot();
    if (reason !== undefined) skip(this, reason);
    guest = await guestRunner();
  });

  it("the package's own kernel finds the bus without ACPI: a disk, the host's vhost-net, an interrupt a queue; without --pci it looks for none, and says nothing", async function () {
    const problem = guest.isLab ? undefined : (tapProblem() ?? vhostProblem());
    if (problem !== undefined) skip(this, problem);
    const script = `ls /sys/bus/pci/devices | tr '\\n' ' '; echo; grep -c pci=off /proc/cmdline
      dd if=/dev/urandom of=/tmp/a bs=64k count=16 2>/dev/null; dd if=/tmp/a of=/dev/vda bs=4k conv=fsync 2>/dev/null
      echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/vda bs=64k count=16 2>/dev/null | cmp - /tmp/a && echo same
      ip link set eth0 up; ip addr add ${GUEST}/24 dev eth0; ping -c 3 ${HOST} | grep -o '3 packets received'
      grep -c 'PCI-MSI.*virtio[01]-' /proc/interrupts`;
    const without = "ls /sys/bus/pci/devices | wc -l; grep -c pci=off /proc/cmdline; dmesg | grep -c 'PCI: Fatal'";
    const { stdout } = await guest.shell(
      `truncate -s 16M ${DISK}
       timeout 200 $VMLET boot --accel kvm --quiet --pci --initrd ${guest.files.initramfs} --disk path=${DISK} --net tap=auto,ip=${HOST}/24,vhost=on --report /tmp/pci-report -- sh -c '${script.replaceAll("'", "'\\''")}' </dev/null
       echo "status $?"
       timeout 200 $VMLET boot --accel kvm --quiet --initrd ${guest.files.initramfs} -- sh -c "${without}" </dev/null
       cat /tmp/pci-report; rm -f ${DISK} /tmp/pci-report`,
    );
    const expected = [
      "0000:00:00.0 0000:00:01.0 0000:00:02.0 ",
      "0",
      "same",
      "3 packets received",
      "5",
      "status 0",
      "0",
      "1",
      "0",
    ];
    assert.deepEqual(stdout.split("\n").slice(0, expected.length), expected, stdout);
    const { devices, kernel } = JSON.parse(stdout.slice(stdout.indexOf("{"), stdout.lastIndexOf("}") + 1)) as {
      devices: Record<string, Record<string, number>>;
      kernel: { path: string };
    };
    assert.match(kernel.path, /guest\/out\/default\/vmlinux$/);
    const { rx_frames: received = 0, tx_frames: sent = 0, interrupts, notifications } = devices["net0"] ?? {};
    assert.ok(received >= 3 && sent >= 3, stdout);
    assert.deepEqual(
      [interrupts, notifications],
      [0, 0],
      "the host's kernel and the guest wake each other by themselves",
    );
  });

  it("Debian's stock kernel, two vCPUs: a disk, a network and more on the bus, an interrupt a queue, no word about virtio_mmio", async function () {
    const problem = guest.isLab ? undefined : tapProblem();
    if (problem !== undefined) skip(this, problem);
    const { debianKernel, debianInitramfs } = guest.files;
    const script = `for m in ${PCI_MODULES.join(" ")}; do insmod /modules/$m.ko || echo no $m; done
      nproc; ls /sys/bus/pci/devices | tr '\\n' ' '; echo
      dmesg | grep -c -i -e virtio_mmio -e virtio-mmio
      dmesg | grep -c 'PCI: MMCONFIG at .* reserved'
      grep -o 'virtio[0-9]-[a-z]*' /proc/interrupts | sort -u | tr '\\n' ' '; echo
      mke2fs -F /dev/vda >/dev/null 2>&1; mkdir /mnt; mount -t ext4 /dev/vda /mnt
      dd if=/dev/urandom of=/tmp/a bs=64k count=16 2>/dev/null
      taskset 1 dd if=/tmp/a of=/mnt/a bs=4k conv=fsync 2>/dev/null & taskset 2 dd if=/tmp/a of=/mnt/b bs=64k conv=fsync 2>/dev/null
      wait; umount /mnt; echo 3 >/proc/sys/vm/drop_caches; mount -t ext4 /dev/vda /mnt
      cmp /tmp/a /mnt/a && cmp /tmp/a /mnt/b && echo same
      ip link set eth0 up; ip addr add ${GUEST}/24 dev eth0; ping -c 2 ${HOST} | grep -o '2 packets received'`;
    const { stdout } = await guest.shell(
      `truncate -s 16M ${DISK}
       timeout 500 $VMLET boot --accel kvm --quiet --pci --kernel ${debianKernel} --initrd ${debianInitramfs} --memory 256 --cpus 2 ` +
        `--disk path=${DISK} --net tap=auto,ip=${HOST}/24,vhost=off --balloon 0 --report /tmp/pci-report -- sh -c "$SCRIPT" </dev/null
       echo "status $?"; cat /tmp/pci-report; rm -f ${DISK} /tmp/pci-report`.replace(
          '"$SCRIPT"',
          `'${script.replaceAll("'", "'\\''")}'`,
        ),
    );
    const lines = stdout.split("\n").map((line) => line.trimEnd());
    const expected = [
      "2",
      "0000:00:00.0 0000:00:01.0 0000:00:02.0 0000:00:03.0",
      "0",
      "1",
      "",
      "same",
      "2 packets received",
      "status 0",
    ];
    assert.deepEqual(lines.slice(0, 4), expected.slice(0, 4), stdout);
    assert.match(lines[4] ?? "", /virtio0-config virtio0-req virtio1-config virtio1-input virtio1-output/);
    assert.deepEqual(lines.slice(5, 8), expected.slice(5), stdout);
    const { devices } = JSON.parse(stdout.slice(stdout.indexOf("{"), stdout.lastIndexOf("}") + 1)) as {
      devices: Record<string, Record<string, number>>;
    };
    for (const name of ["vda", "net0"]) {
      const { interrupts = 0, notifications = 0, failures } = devices[name] ?? {};
      assert.ok(interrupts > 0 && notifications > 0, name);
      assert.equal(failures, 0);
    }
  });
});
