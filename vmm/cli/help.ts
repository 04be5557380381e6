// Texts of --help: at most 80 columns, no more than a screen or two; the documents tell the rest.
import { join } from "node:path";
import { packageRoot } from "../host/guest-files.js";

/** The pages of docs/, and what each tells. */
const PAGES: readonly (readonly [name: string, tells: string])[] = [
  ["command-line.md", "every command, option, key and exit code; the report"],
  ["devices.md", "disks, networks, sockets, console, entropy, balloon, limits"],
  ["api.md", "vmlet from TypeScript and JavaScript"],
  ["kernels.md", "your own kernel, and the kernels that vmlet builds"],
  ["ci.md", "continuous integration, containers, systemd"],
  ["lab.md", "hosts with and without hardware virtualization; the lab"],
  ["limits.md", "what vmlet does not do"],
  ["performance.md", "start-up time, memory, and what isolation costs"],
];

/** Where the documents are on this host: the package brings them. */
function documentation(): string {
  const rows = PAGES.map(([name, tells]) => `  ${name.padEnd(17)} ${tells}\n`);
  return `Documentation, in ${join(packageRoot(), "docs")}:\n${rows.join("")}`;
}

export function help(): string {
  return `${HELP}\n${documentation()}`;
}

const HELP = `vmlet boots Linux in a micro-VM through /dev/kvm.

Usage:
  vmlet boot [options] [-- COMMAND...]   boot a guest; run COMMAND or a shell in it
  vmlet stats [--follow] FILE            what a running guest uses; FILE is that of boot's --metrics
  vmlet balloon SOCKET MIB               change a running guest; SOCKET is that of boot's --control
  vmlet doctor [--json | --fix]          what this host can do, and what would make it better
  vmlet bench [options]                  what isolation costs here, from chroot to a micro-VM
  vmlet lab [--cpu CPU] [-- COMMAND...]  a shell or a command in the lab: an emulated host with AMD-V or VT-x
  vmlet --version | --help

Examples:
  vmlet boot                             a shell in a fresh guest
  vmlet boot --quiet -- uname -a         one command; its exit status is vmlet's
  vmlet boot --memory 2G --cpus 4 --report boot.json -- nproc
  vmlet boot --kernel ./vmlinux --initrd ./rootfs.cpio --cmdline "debug"

"vmlet boot --help" and "vmlet bench --help" list the options.
`;

export const BOOT_HELP = `Boots a guest kernel and shows its serial console.

Usage: vmlet boot [options] [-- COMMAND...]

With COMMAND, the guest runs it and powers off; vmlet exits with its status. Without, the
guest gives a shell if vmlet runs on a terminal, else it describes itself and powers off.

Options:
  -k, --kernel PATH     ELF vmlinux or bzImage; default: the guest kernel of this package
  -i, --initrd PATH     initramfs archive; default: the one of this package
      --no-initrd       none at all
  -c, --cmdline TEXT    added to the kernel's command line
      --bare-cmdline    do not add vmlet's own defaults to it
  -m, --memory SIZE     guest RAM in MiB, or with a unit: 256, 512M, 2G; default 128
      --cpus N          number of vCPUs, 1 to 32; default 1
      --accel KIND      auto, kvm (this host's /dev/kvm), lab (an emulated host with AMD-V), or lab-intel
                        (one with VT-x, slower); default auto
      --protocol NAME   entry of an ELF kernel: auto, linux64 or pvh
      --nested          show the guest VT-x or AMD-V
      --disk SPEC       attach a raw image or block device as /dev/vda, /dev/vdb, ...; repeatable
      --net NET         a network device: in user mode, or on a TAP interface of this host; repeatable
      --vsock VSOCK     sockets between programs of the guest and of this host
      --console KIND    the guest's terminal: serial, or virtio (hvc0, follows the window's size); default serial
      --rng             an entropy device, /dev/hwrng
      --balloon BALLOON memory that the guest gives back to this host
      --report FILE     write what happened as JSON: times, exits by reason, devices, outcome
      --control SOCKET  a Unix socket for what may be changed while the guest runs: vmlet balloon
      --metrics FILE    write a line of JSON a second: memory, exits by reason, devices
  -q, --quiet           keep the kernel's log off the console
  -h, --help

SPEC of a disk: path=FILE[,root][,readonly][,id=NAME][,cache=MODE][,block=512|4096][,lock=on|off]
             [,bw=SIZE][,ops=N]
  root         the guest's root file system; without --initrd and COMMAND the kernel starts its
               /sbin/init, with COMMAND the command runs in it
  readonly     the guest cannot write to it
  id=NAME      serial number in the guest; default: the start of the file's name
  cache=MODE   writeback (default): what the guest flushes is on the host's medium; unsafe: it is not
  lock=off     do not care who else has the disk; else one that is written is refused to all others
  bw=, ops=    limits per second: bytes (with K, M, G) and requests

NET: user[,forward=[ADDRESS:]PORT:PORT[/udp]]...[,host=off] or tap=NAME|auto[,ip=ADDRESS/PREFIX],
     each with [,mac=ADDRESS][,mtu=BYTES][,bw=SIZE][,ops=N]
  user         a network that needs no rights (Debian package passt): the guest is 10.0.2.15, this
               host's 127.0.0.1 is 10.0.2.2; set up in the guest without a word
  forward=     this host's port, on 127.0.0.1 or ADDRESS, leads to the guest's; repeatable
  host=off     the guest does not reach this host's 127.0.0.1
  tap=         an interface that exists, or auto: a new one that goes with the guest (root rights)
  ip=          IPv4 address of this host's end of a new interface
  bw=, ops=    limits per second and direction: bytes and frames

VSOCK: cid=N,path=SOCKET
  cid=         the guest's context id, from 3 on
  path=        a Unix socket that vmlet makes: connect, write "CONNECT PORT\\n", read "OK ...\\n"; the
               guest's connections to port PORT of this host (context id 2) go to SOCKET_PORT

BALLOON: MIB[,deflate-on-oom][,reporting]
  deflate-on-oom   the guest takes memory back before it runs out of it
  reporting        the guest tells which pages it does not use, and this host gets them back

On a terminal: Ctrl-A x leaves, Ctrl-A z stops vmlet as Ctrl-Z stops a program (fg goes on), Ctrl-A b
sends a break, Ctrl-A Ctrl-A sends one Ctrl-A.

Exit status: the guest's own when it powers off; 64 bad usage, 65 bad configuration or kernel
image, 69 the host cannot, 70 a defect of vmlet, 73 a file cannot be written, 74 standard output
cannot, 100 reboot, 101 kernel panic, 102 triple fault, 103 left with Ctrl-A x, 104 the guest did
what no machine answers, 105 halted for ever, 128+N ended by signal N.

Examples:
  vmlet boot
  vmlet boot --quiet -- sh -c 'cat /proc/cpuinfo; exit 3'
  vmlet boot --kernel /boot/vmlinuz-6.1.0-28-cloud-amd64 --memory 512 --cpus 2
  vmlet boot --disk path=root.ext4,root
  vmlet boot --net user,forward=8080:80 -- httpd -f
  vmlet boot --net tap=auto,ip=172.16.0.1/24 -- sh -c 'ip addr add 172.16.0.2/24 dev eth0; ...'
  vmlet boot --disk path=data.ext4 -- sh -c 'mount /dev/vda /mnt && ls /mnt'
`;

export const STATS_HELP = `Shows what a guest uses, from the file that "vmlet boot --metrics FILE" writes.

Usage: vmlet stats [--follow] [--json] FILE

  -f, --follow   again every second, until the guest ends
      --json     the last line of the file, and rates since the one before it
  -h, --help

Example:
  vmlet boot --metrics vm.metrics --balloon 64 & vmlet stats --follow vm.metrics
`;

export const BALLOON_HELP = `Asks a running guest to give up so much of its memory, or to take it back.

Usage: vmlet balloon SOCKET MIB

SOCKET is that of "vmlet boot --balloon ... --control SOCKET"; MIB is how much the guest shall
have given up in all, from 0 to its memory. The guest does it in its own time: see vmlet stats.

Example:
  vmlet boot --balloon 0 --control vm.sock --metrics vm.metrics & vmlet balloon vm.sock 64
`;

export const DOCTOR_HELP = `Tells what this host can do for VMs.

Usage: vmlet doctor [--json | --fix] [--passthrough]

      --json         the same for programs: findings with stable codes, and the verdict
      --fix          the cures as shell commands; they are printed, not run
      --passthrough  also what handing a device to a guest would need: IOMMU, VFIO, locked memory
  -h, --help

Looks at the CPU, the level above, the KVM modules, the rights on /dev/kvm, what may forbid it,
the speed of guest code, memory, container engines and QEMU; the last line says what "vmlet boot"
will use, why, and what would make it better. It changes nothing.

Exit status: 0 if "vmlet boot" works on this host's /dev/kvm, 72 if only in the lab, 69 if not at all.
`;

export const LAB_HELP = `Runs a command in the lab: an emulated CPU with AMD-V or VT-x, Debian's own kernel with its KVM.

Usage: vmlet lab [--cpu amd|intel] [-- COMMAND...]

Options:
      --cpu CPU         amd (default): QEMU, which is up in seconds; intel: Bochs, with one processor and
                        2 GiB at most, which is up in half a minute or more
  -h, --help

Without COMMAND: a shell. It starts in /input/vmlet, where the package lies, read-only; files
written to /output appear in the working directory of this host afterwards.
The lab needs no /dev/kvm and no root rights. It is slow: everything in it is emulated.

Examples:
  vmlet lab
  vmlet lab -- node dist/vmlet.js doctor
  vmlet lab --cpu intel -- sh -c 'grep -o -m1 -w vmx /proc/cpuinfo; grep . /sys/module/kvm_intel/parameters/*'
`;
