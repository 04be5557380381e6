// Images that tests boot from, made with the package's own tools and what the lab keeps anyway.
import { execFileSync } from "node:child_process";
import { chmodSync, mkdirSync, readdirSync, writeFileSync } from "node:fs";
import { dirname, join, resolve } from "node:path";

const RC_LOCAL = `#!/bin/sh
boots=$(cat /root/boots 2>/dev/null || echo 0)
echo $((boots + 1)) >/root/boots
echo "boot $((boots + 1)), init is $(cat /proc/1/comm), root is $(sed -n 's/.* \\/ \\(ext4 r.\\),.*/\\1/p' /proc/mounts)"
poweroff
`;
const VIRTIO_MODULES = ["virtio_ring", "virtio", "virtio_mmio", "virtio_blk"];
/** Those of a guest whose devices are on a PCI bus; in the order in which they depend on each other. */
export const PCI_MODULES = [
  ...["virtio_ring", "virtio", "virtio_pci_legacy_dev", "virtio_pci_modern_dev", "virtio_pci"],
  ...["virtio_blk", "failover", "net_failover", "virtio_net", "virtio_balloon"],
];
/** In the order in which they depend on each other; the processor decides about the last. */
export const NESTED_MODULES = [...VIRTIO_MODULES, "irqbypass", "kvm", "kvm-amd"];

function shell(script: string, ...args: string[]): void {
  execFileSync("bash", ["-euo", "pipefail", "-c", script, "bash", ...args], { stdio: ["ignore", "ignore", "inherit"] });
}

/** A busybox root disk whose init counts its boots and powers off. */
export function makeRootDisk(folder: string): string {
  const extra = join(folder, "extra");
  mkdirSync(join(extra, "etc"), { recursive: true });
  writeFileSync(join(extra, "etc/rc.local"), RC_LOCAL);
  chmodSync(join(extra, "etc/rc.local"), 0o755);
  const image = join(folder, "root.ext4");
  shell(`guest/rootfs/build --size 24 --add "$1" "$2" 2>/dev/null`, extra, image);
  return image;
}

/** The package's initramfs and a second archive with modules of the Debian kernel that the lab boots. */
export function withDebianModules(kernel: string, folder: string): string {
  const modules = [...new Set([...VIRTIO_MODULES, ...PCI_MODULES])];
  return addDebianModules(kernel, folder, "debian-initramfs.cpio", modules);
}

/** The same with what it takes to run guests in the guest. */
export function withNestedModules(kernel: string, folder: string): string {
  return addDebianModules(kernel, folder, "nested-initramfs.cpio", NESTED_MODULES);
}

function addDebianModules(kernel: string, folder: string, name: string, modules: readonly string[]): string {
  const cache = dirname(dirname(kernel));
  const debs = readdirSync(cache).filter((name) => /^linux-image-.*\.deb$/.test(name));
  const [deb] = debs.sort().slice(-1);
  if (deb === undefined) throw new Error(`No Debian kernel package in ${cache}`);
  const image = join(folder, name);
  const work = join(folder, `${name}-tree`);
  shell(
    `mkdir -p "$1/deb" "$1/tree/modules"
     dpkg-deb --fsys-tarfile "$2" | tar -x -C "$1/deb" --wildcards ${modules.map((module) => `'*/${module}.ko'`).join(" ")}
     find "$1/deb" -name '*.ko' -exec cp {} "$1/tree/modules/" \\;
     (cd "$1/tree" && find . -mindepth 1 | cpio --quiet -o -H newc) | cat "$3" - >"$4"`,
    work,
    join(cache, deb),
    resolve("guest/out/initramfs.cpio"),
    image,
  );
  return image;
}
