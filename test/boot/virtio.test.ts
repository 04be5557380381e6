// Needs: hardware KVM, or the lab. Linux's own drivers against our virtio devices.
import assert from "node:assert/strict";
import { guestRunner, whyNoBoot, type Boot, type GuestRunner } from "../helpers/guest-runner.js";
import { skip } from "../helpers/skip.js";

const DISK = "/tmp/vmlet-disk.img";

describe("boot: virtio", function () {
  this.timeout(200_000);
  let guest: GuestRunner;

  before(async function () {
    const reason = whyNoBoot();
    if (reason !== undefined) skip(this, reason);
    guest = await guestRunner();
  });

  const counters = ({ report }: Boot, device = "vda"): Readonly<Record<string, number>> =>
    report?.devices[device] ?? {};

  for (const cpus of [1, 2]) {
    it(`a file system on /dev/vda with ${String(cpus)} vCPU: written, flushed, read back, trimmed`, async () => {
      const last = String(1 << (cpus - 1));
      const script = `set -e
        mke2fs -F /dev/vda >/dev/null 2>&1
        mkdir /mnt && mount /dev/vda /mnt
        dd if=/dev/urandom of=/tmp/a bs=64k count=24 2>/dev/null
        taskset 1 dd if=/tmp/a of=/mnt/a bs=4k conv=fsync 2>/dev/null &
        taskset ${last} dd if=/tmp/a of=/mnt/b bs=64k conv=fsync 2>/dev/null
        wait
        umount /mnt && echo 3 >/proc/sys/vm/drop_caches && mount /dev/vda /mnt
        cmp /tmp/a /mnt/a && cmp /tmp/a /mnt/b && echo same
        rm /mnt/b && sync && fstrim /mnt && umount /mnt && echo trimmed`;
      const { status, stdout, stderr, ...boot } = await guest.boot(
        ["--quiet", "--cpus", String(cpus), "--disk", `path=${DISK}`, "--", "sh", "-c", script],
        { files: `truncate -s 32M ${DISK}` },
      );
      assert.deepEqual([status, stdout, stderr], [0, "same\ntrimmed\n", ""]);
      const { read_bytes, write_bytes, flushes, discards, host_errors, refused, failures } = counters({
        ...{ status, stdout, stderr },
        ...boot,
      });
      assert.ok((write_bytes ?? 0) >= 2 * 24 * 65536 && (read_bytes ?? 0) >= 2 * 24 * 65536);
      assert.ok((flushes ?? 0) >= 2 && (discards ?? 0) >= 1);
      assert.deepEqual([host_errors, refused, failures], [0, 0, 0]);
    });
  }

  it("disks come in the order given, each with its size, serial number and block size, a read-only one is not written; IRQs above 15 work", async () => {
    const only = (i: number): string => ["readonly", "block=4096"][i] ?? "cache=writeback";
    const disks = Array.from({ length: 9 }, (_, i) => [
      "--disk",
      `path=/tmp/vmlet-${String(i)}.img,id=disk-${String(i)},${only(i)}`,
    ]).flat();
    const script = `for d in /sys/block/vd*; do
        printf '%s %s %s %s ' $(basename $d) $(cat $d/serial) $(cat $d/size) $(cat $d/queue/logical_block_size)
        head -c 6 /dev/$(basename $d)
      done; grep -c virtio /proc/interrupts
      (echo x >/dev/vda) 2>/dev/null || echo refused
      dd if=/dev/zero of=/dev/vda bs=512 count=1 conv=fsync 2>/dev/null && echo written
      blockdev --getro /dev/vda; head -c 6 /dev/vda`;
    const { status, stdout, after } = await guest.boot(["--quiet", ...disks, "--", "sh", "-c", script], {
      files: `for i in 0 1 2 3 4 5 6 7 8; do
        echo disk$i >/tmp/vmlet-$i.img; truncate -s $((i + 1))M /tmp/vmlet-$i.img; done; chmod 444 /tmp/vmlet-0.img`,
      after: "head -c 6 /tmp/vmlet-0.img; rm -f /tmp/vmlet-?.img",
    });
    const names = Array.from("abcdefghi");
    const lines = names.map((letter, i) => {
      const size = String((i + 1) * 2048);
      return `vd${letter} disk-${String(i)} ${size} ${i === 1 ? "4096" : "512"} disk${String(i)}\n`;
    });
    assert.deepEqual([status, stdout], [0, `${lines.join("")}9\nrefused\n1\ndisk0\n`]);
    assert.equal(after, "disk0\n");
  });

  it("a root disk without an initramfs: the kernel starts its init, and what it wrote is there at the next boot", async () => {
    const args = ["--quiet", "--disk", `path=${DISK},root`];
    for (const boots of [1, 2]) {
      const { status, stdout, report } = await guest.boot(args, {
        isBare: true,
        shell: boots === 1 ? `rm -f ${DISK}; cp ${guest.files.rootDisk} ${DISK};` : "",
      });
      assert.match(stdout, new RegExp(`^boot ${String(boots)}, init is init, root is ext4 rw`, "m"));
      assert.deepEqual([status, report?.outcome], [0, "poweroff"]);
    }
  });

  it("a command on a root disk, whole or a partition, runs in it, hands its status on, and leaves a clean file system", async () => {
    const script = "cd /root && pwd && ls /etc/rc.local && echo kept >file && exit 9";
    const { status, stdout, stderr } = await guest.boot(
      ["--quiet", "--disk", `path=${DISK},root`, "--", "sh", "-c", script],
      { isBare: true, shell: `rm -f ${DISK}; cp ${guest.files.rootDisk} ${DISK};` },
    );
    assert.deepEqual([status, stdout, stderr], [9, "/root\n/etc/rc.local\n", ""]);
    // Mounted read-only, the file system can recover nothing: it must be clean. This time it is the second
    // partition of an MBR disk, which the user's own root= finds; Linux cuts its size to what there is.
    const again = "cat /root/file; touch /root/other 2>/dev/null || echo read-only; dmesg | grep -c 'recovery'";
    const poke = (at: number, bytes: string): string => `printf '${bytes}' | dd bs=1 seek=${String(at)} of=$p $quiet; `;
    const second = await guest.boot(
      ["--quiet", "--disk", `path=${DISK}.mbr,readonly`, "-c", "root=PARTUUID=deadbeef-02", "--", "sh", "-c", again],
      {
        isBare: true,
        shell:
          `p=${DISK}.mbr; quiet="conv=notrunc status=none"; (head -c 1048576 /dev/zero; cat ${DISK}) >$p; ` +
          poke(440, "\\xef\\xbe\\xad\\xde") +
          poke(462 + 4, "\\x83") +
          poke(462 + 9, "\\x08\\0\\0\\xff\\xff\\xff\\x00") +
          poke(510, "\\x55\\xaa"),
      },
    );
    assert.equal(second.stdout, "kept\nread-only\n0\n");
  });

  it("a root disk whose init mounts nothing has a /dev all the same", async () => {
    const { status, stdout } = await guest.boot(
      ["--quiet", "--disk", `path=${DISK},root,readonly`, "--cmdline", "init=/bin/ls -- /dev/vda"],
      { isBare: true, shell: `rm -f ${DISK}; cp ${guest.files.rootDisk} ${DISK};` },
    );
    // The end of init is a panic.
    assert.match(stdout, /^\/dev\/vda\r?$/m);
    assert.equal(status, 101);
  });

  it("a root disk that holds no file system: init says so", async () => {
    const { status, stdout } = await guest.boot(["--quiet", "--disk", `path=${DISK},root`, "--", "true"], {
      isBare: true,
      shell: `rm -f ${DISK}; truncate -s 1M ${DISK};`,
    });
    assert.deepEqual(
      [status, stdout],
      [126, "init: cannot mount /dev/vda: it has no file system that the kernel knows\n"],
    );
  });

  it("Debian's stock kernel finds the disk through ACPI, once", async () => {
    const script = `ls /sys/bus/acpi/devices | grep -c LNRO0005
      for m in virtio_ring virtio virtio_mmio virtio_blk; do insmod /modules/$m.ko; done
      ls /sys/bus/virtio/devices | tr '\\n' ' '; head -c 6 /dev/vda; grep virtio0 /proc/interrupts`;
    const { files } = guest;
    const { status, stdout, report } = await guest.boot(
      [
        ...["--quiet", "--kernel", files.debianKernel, "--initrd", files.debianInitramfs, "--memory", "256"],
        ...["--cpus", "2", "--disk", `path=${DISK}`, "--", "sh", "-c", script],
      ],
      { isBare: true, files: `echo image >${DISK}; truncate -s 1M ${DISK}` },
    );
    assert.match(stdout, /^1\nvirtio0 image\n +\d+: .*IO-APIC +5-edge +virtio0\n$/);
    assert.deepEqual([status, report?.devices["vda"]?.["failures"]], [0, 0]);
  });

  it("kill -9 of the monitor loses nothing that the guest has flushed", async () => {
    const write =
      "mke2fs -F /dev/vda >/dev/null 2>&1; mkdir /mnt; mount /dev/vda /mnt; echo flushed >/mnt/f; sync; echo ready; sleep 100";
    const boot = `$VMLET boot --accel kvm --quiet --kernel ${guest.files.vmlinux} --initrd ${guest.files.initramfs} --disk path=${DISK}`;
    const { stdout } = await guest.shell(`rm -f ${DISK} /tmp/out; truncate -s 8M ${DISK}
      ${boot} -- sh -c '${write}' </dev/null >/tmp/out 2>&1 & pid=$!
      until grep -q ready /tmp/out; do sleep 1; done; kill -9 $pid; wait $pid; echo "status $?"
      ${boot} -- sh -c 'mkdir /mnt; mount /dev/vda /mnt; cat /mnt/f' </dev/null`);
    assert.equal(stdout, "status 137\nflushed\n");
  });

  it("a disk that becomes shorter while the guest runs: I/O errors, and everything else goes on; --metrics has a line a second and one at the end, counters growing", async () => {
    const script = `cat /dev/vda >/dev/null; echo ready
      while dd if=/dev/vda of=/dev/null bs=4096 count=1 skip=1000 2>/tmp/e; do
        echo 3 >/proc/sys/vm/drop_caches; usleep 200000
      done
      grep -o "Input/output error" /tmp/e; dd if=/dev/vda of=/dev/null bs=4096 count=1 2>/dev/null && echo alive; sleep 3`;
    const boot = `$VMLET boot --accel kvm --quiet --kernel ${guest.files.vmlinux} --initrd ${guest.files.initramfs}`;
    const { stdout } = await guest.shell(`rm -f ${DISK} /tmp/out; truncate -s 4M ${DISK}
      ${boot} --disk path=${DISK} --metrics /tmp/metrics -- sh -c '${script}' </dev/null >/tmp/out 2>/tmp/err & pid=$!
      until grep -q ready /tmp/out; do sleep 0.5; done; truncate -s 1M ${DISK}; wait $pid; echo "status $?"
      cat /tmp/out; grep -o 'vda: .*' /tmp/err | head -1; cat /tmp/metrics`);
    const [said, ...metrics] = stdout.split(/^(?={)/m);
    assert.match(
      said ?? "",
      /^status 0\nready\nInput\/output error\nalive\nvda: Request .* failed: the file is shorter/,
    );
    const lines = metrics.map(
      (line) => JSON.parse(line) as { time_ms: number; devices: { vda: { read_bytes: number } } },
    );
    assert.ok(lines.length >= 4, stdout);
    const times = lines.map(({ time_ms }) => time_ms);
    assert.ok(times.every((time, i) => i === 0 || time > (times[i - 1] ?? 0)));
    const reads = lines.map(({ devices }) => devices.vda.read_bytes);
    assert.ok(reads.every((bytes, i) => i === 0 || bytes >= (reads[i - 1] ?? 0)));
    assert.ok((reads.at(-1) ?? 0) >= 4 * 2 ** 20);
  });
});
