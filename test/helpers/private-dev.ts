// Shell for a mount namespace with a /dev of its own: the real device is neither moved nor changed.

/** The words of a command that runs `script` there. `kvm` makes /dev/kvm, or is empty to leave it out. */
export function withPrivateDev(kvm: string, script: string, mountOptions = "mode=755"): readonly string[] {
  const setUp = [
    "set -e",
    "mkdir -p /tmp/vmlet-dev-$$",
    `mount -t tmpfs -o ${mountOptions} none /tmp/vmlet-dev-$$`,
    "cd /tmp/vmlet-dev-$$",
    "mknod -m 666 null c 1 3",
    "mknod -m 666 zero c 1 5",
    "mknod -m 666 random c 1 8",
    "mknod -m 666 urandom c 1 9",
    "mkdir net && mknod -m 666 net/tun c 10 200",
    "ln -s /proc/self/fd fd",
    kvm,
    // Files that are open keep their device; new ones find only what is here.
    "cd / && mount --bind /tmp/vmlet-dev-$$ /dev",
    "umount /tmp/vmlet-dev-$$ && rmdir /tmp/vmlet-dev-$$",
    `exec ${script}`,
  ];
  return ["unshare", "--mount", "sh", "-c", setUp.filter((line) => line !== "").join("\n")];
}
