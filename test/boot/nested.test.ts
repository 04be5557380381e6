// Needs: hardware KVM, or the lab. Guests in guests.
import assert from "node:assert/strict";
import { NESTED_MODULES } from "../helpers/guest-images.js";
import { guestRunner, whyNoBoot, type GuestRunner } from "../helpers/guest-runner.js";
import { skip } from "../helpers/skip.js";
import { V8_FLAGS } from "../../vmm/host/v8-flags.js";

describe("boot: nested", function () {
  this.timeout(400_000);
  let guest: GuestRunner;

  before(async function () {
    const reason = whyNoBoot();
    if (reason !== undefined) skip(this, reason);
    guest = await guestRunner();
  });

  const count = "grep -m1 ^flags /proc/cpuinfo | tr ' ' '\\n' | grep -c -x -E 'vmx|svm'";

  // Without --nested, it sees neither: test/boot/linux.test.ts, "CPUID tells".
  it("with --nested the guest sees the one that its host has", async function () {
    if (guest.isLab) skip(this, "the next one shows it, in the lab");
    const host = await guest.shell(`${count}; cat /sys/module/kvm_*/parameters/nested | grep -c '[1Y]'`);
    if (host.stdout !== "1\n1\n") skip(this, "nested virtualization is off on this host");
    const { stdout } = await guest.boot(["--quiet", "--nested", "--", "sh", "-c", count]);
    assert.equal(stdout, "1\n");
  });

  it("a guest with --nested runs vmlet, which boots a guest of its own", async function () {
    if (!guest.isLab) skip(this, "Node and vmlet come into the guest on the lab's own disks");
    const { debianKernel, nestedInitramfs } = guest.files;
    const inner = "uname -sm; grep -c -w -E 'vmx|svm' /proc/cpuinfo; exit 5";
    const script = `${count}
      for module in ${NESTED_MODULES.join(" ")}; do insmod /modules/$module.ko; done
      mkdir -p /mnt; mount -t ext4 -o ro /dev/vda /mnt; mount -t ext4 -o ro /dev/vdb /mnt/input
      for folder in dev proc sys; do mount -o bind /$folder /mnt/$folder; done
      for folder in tmp root; do mount -t tmpfs tmpfs /mnt/$folder; done
      export HOME=/root
      chroot /mnt node ${V8_FLAGS.join(" ")} /input/vmlet/dist/vmlet.js boot --accel kvm --quiet --kernel /input/kernels/vmlinux \\
        --initrd /input/kernels/initramfs.cpio --memory 96 -- sh -c "${inner}" </dev/null`;
    const { status, stdout, stderr } = await guest.boot(
      [
        ...["--quiet", "--nested", "--memory", "640", "--kernel", debianKernel, "--initrd", nestedInitramfs],
        ...["--disk", "path=/dev/vda,readonly", "--disk", "path=/dev/vdb,readonly", "--", "sh", "-c", script],
      ],
      { limitS: 300 },
    );
    assert.deepEqual([stdout, status], ["1\nLinux x86_64\n0\n", 5], stderr);
  });
});
