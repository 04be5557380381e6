// Needs: the lab, with an IOMMU and an NVMe disk that has virtual functions. Guests have one each: what they write, the host finds.
import assert from "node:assert/strict";
import { assignableLab, GUEST_LIMIT_S } from "../helpers/assignable-lab.js";

const LIMIT_MS = 900_000;
/** What each guest has of the disk that both share, `MiB`. */
const [FIRST_MIB, SECOND_AT_MIB] = [64, 80];
/** The files' own, `MiB`. */
const DATA_MIB = 4;
/** Of a guest that reads 64 MiB, most while it boots. Were the device's doorbells exits, there would be two a request more. */
const MAX_MMIO_EXITS = 500;
const DEVICES = "/sys/bus/pci/devices";

describe("vfio", function () {
  this.timeout(LIMIT_MS);
  const { shell } = assignableLab();

  it("a device that cannot be had is one error, with what helps, before anything is made", async () => {
    const stdout = await shell(`
      for device in 01:00.5 0000:00:02.0 ${DEVICES}/0000:01:00.0 00:1f.2; do $BOOT --vfio $device </dev/null 2>&1 | grep -v "^ *at "; done
      ls /dev/vfio`);
    assert.deepEqual(stdout.trimEnd().split("\n"), [
      "vmlet: Assigned device 0000:01:00.5: this host has no such PCI device",
      "vmlet: what helps: vmlet doctor --passthrough lists those that it has",
      "vmlet: Assigned device 0000:00:02.0: 0000:00:02.0 is a bridge, not a device that a guest can have",
      "vmlet: Assigned device 0000:01:00.0: the driver nvme has 0000:01:00.0; vfio-pci must have it",
      "vmlet: what helps: modprobe vfio-pci && echo vfio-pci > /sys/bus/pci/devices/0000:01:00.0/driver_override && " +
        "echo 0000:01:00.0 > /sys/bus/pci/devices/0000:01:00.0/driver/unbind && echo 0000:01:00.0 > /sys/bus/pci/drivers_probe",
      "vmlet: Assigned device 0000:00:1f.2: no driver has 0000:00:1f.2; vfio-pci must have it",
      "vmlet: what helps: modprobe vfio-pci && echo vfio-pci > /sys/bus/pci/devices/0000:00:1f.2/driver_override && " +
        "echo 0000:00:1f.2 > /sys/bus/pci/drivers_probe",
      "vfio",
    ]);
  });

  it("two guests at once, each with a virtual function: what they write is found by the host, whose driver has the function again", async () => {
    const made = await shell(`
      echo 0 >${DEVICES}/0000:01:00.0/sriov_drivers_autoprobe; echo 2 >${DEVICES}/0000:01:00.0/sriov_numvfs
      /input/nvme-functions /dev/nvme0 1 2 2>&1
      for n in 1 2; do
        echo 1 >${DEVICES}/0000:01:00.$n/reset
        echo vfio-pci >${DEVICES}/0000:01:00.$n/driver_override; echo 0000:01:00.$n >/sys/bus/pci/drivers_probe
      done; ls /dev/vfio | wc -l`);
    assert.equal(made, "3\n");
    const first = `cat /sys/bus/pci/devices/0000:00:01.0/vendor /sys/bus/pci/devices/0000:00:01.0/class
      mke2fs -F /dev/nvme0n1 ${String(1024 * FIRST_MIB)} >/dev/null 2>&1; mkdir /mnt; mount -t ext4 /dev/nvme0n1 /mnt
      dd if=/dev/urandom of=/mnt/a bs=1M count=${String(DATA_MIB)} 2>/dev/null; md5sum </mnt/a; umount /mnt
      echo ready; read line; dd if=/dev/nvme0n1 of=/dev/null bs=1M count=64 2>/dev/null
      echo 3 >/proc/sys/vm/drop_caches; mount -o ro -t ext4 /dev/nvme0n1 /mnt; md5sum </mnt/a; umount /mnt
      grep -c 'PCI-MSI.*nvme0q' /proc/interrupts`;
    const second = `dd if=/dev/urandom of=/tmp/b bs=1M count=${String(DATA_MIB)} 2>/dev/null; md5sum </tmp/b
      dd if=/tmp/b of=/dev/nvme0n1 bs=1M seek=${String(SECOND_AT_MIB)} conv=fsync 2>/dev/null
      ls /sys/bus/pci/devices | tr '\\n' ' '`;
    const stdout = await shell(`cd /tmp; mkfifo in
      $BOOT --vfio 0000:01:00.1 --control control --report report -- sh -c '${first.replaceAll("'", "'\\''")}' <in >first 2>&1 & one=$!
      exec 3>in
      $BOOT --jail strict --vfio ${DEVICES}/0000:01:00.2 --rng -- sh -c '${second.replaceAll("'", "'\\''")}' </dev/null >second 2>&1; echo "second $?"
      n=0; until grep -q ready first || [ $n = ${String(GUEST_LIMIT_S)} ]; do sleep 1; n=$((n + 1)); done
      $BOOT --vfio 01:00.1 </dev/null 2>&1 | head -1
      $VMLET snapshot create control saved 2>&1 | grep cannot; ls -d saved 2>/dev/null
      echo go >&3; exec 3>&-; wait $one; echo "first $?"
      echo = ; cat first; echo = ; cat second; echo =
      for n in 1 2; do echo 0000:01:00.$n >/sys/bus/pci/drivers/vfio-pci/unbind; done
      echo nvme >${DEVICES}/0000:01:00.1/driver_override; echo 0000:01:00.1 >/sys/bus/pci/drivers_probe
      basename $(readlink ${DEVICES}/0000:01:00.1/driver); ls /dev/vfio
      mkdir -p disk; mount -o ro -t ext4 /dev/nvme0n1 disk; md5sum <disk/a; umount disk
      dd if=/dev/nvme0n1 bs=1M skip=${String(SECOND_AT_MIB)} count=${String(DATA_MIB)} 2>/dev/null | md5sum
      echo = ; cat report`);
    const [host = "", one = "", two = "", after = "", report = ""] = stdout.split("=\n");
    assert.deepEqual(
      host.replace(/vfio\/\d+/, "vfio/N").split("\n"),
      [
        "second 0",
        "vmlet: /dev/vfio/N cannot be opened (EBUSY)",
        "vmlet: This guest cannot be saved or moved: it has a device of this host (vfio), whose state nobody can read",
        "first 0",
        "",
      ],
      stdout,
    );
    const [vendor, classCode, written, , read, interrupts] = one.split("\n");
    assert.deepEqual([vendor, classCode], ["0x1b36", "0x010802"], stdout);
    assert.match(written ?? "", /^[0-9a-f]{32} {2}-$/);
    assert.equal(read, written, stdout);
    assert.ok(Number(interrupts) >= 1, stdout);
    const [pattern, devices] = two.split("\n");
    // A host bridge, the entropy device, the function.
    assert.equal(devices?.trim(), "0000:00:00.0 0000:00:01.0 0000:00:02.0", stdout);
    assert.deepEqual(after.split("\n"), ["nvme", "vfio", written, pattern, ""], stdout);
    const { exits } = JSON.parse(report) as { exits: { mmio: number } };
    assert.ok(exits.mmio < MAX_MMIO_EXITS, report);
  });

  it("a guest that has its device write outside of its memory is stopped by the IOMMU: the host's page is unchanged", async () => {
    const stdout = await shell(`cd /tmp; mkfifo end
      /input/dma victim <end >page & victim=$!; exec 3>end
      n=0; until grep -q 0x page || [ $n = 100 ]; do sleep 0.2; n=$((n + 1)); done
      echo 0000:01:00.2 >/sys/bus/pci/drivers_probe; dmesg -c >/dev/null
      $BOOT --jail on --vfio 01:00.2 -- sh -c "echo 0000:00:01.0 >/sys/bus/pci/drivers/nvme/unbind; dma attack $(cat page)" </dev/null 2>&1; echo "status $?"
      exec 3>&-; wait $victim; cat page; dmesg | grep -o 'DMA Write.*fault addr [^ ]*' | head -1`);
    const lines = stdout.trimEnd().split("\n");
    assert.deepEqual(lines.slice(0, 3), ["outside answered", "inside written", "status 0"], stdout);
    const [, , , address = "", state, fault] = lines;
    assert.ok(parseInt(address, 16) >= 2 ** 28, stdout);
    assert.equal(state, "unchanged");
    assert.match(fault ?? "", new RegExp(`\\[01:00\\.2\\] fault addr ${address}`));
  });
});
