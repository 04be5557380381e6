// Texts of --help: at most 80 columns, no more than a screen or two; the documents tell the rest.
import { join } from "node:path";
import { packageRoot } from "../host/guest-files.js";

/** The pages of docs/, and what each tells. */
const PAGES: readonly (readonly [name: string, tells: string])[] = [
  ["command-line.md", "every command, option, key and exit code; the report"],
  ["run.md", "programs and images in VMs: run, exec, ps and others"],
  ["devices.md", "disks, networks, sockets, console, balloon, shared folders"],
  ["firecracker.md", "Firecracker's command line, configuration file and API"],
  ["jailer.md", "namespaces, a root and limits for it: vmlet-jailer"],
  ["oci.md", "containers of Docker and others as VMs: vmlet-runtime"],
  ["kubernetes.md", "pods of Kubernetes as VMs"],
  ["snapshots.md", "save a running guest, let it go on, many of one"],
  ["api.md", "vmlet from TypeScript and JavaScript"],
  ["kernels.md", "your own kernel, and the kernels that vmlet builds"],
  ["ci.md", "continuous integration, containers, systemd"],
  ["lab.md", "hosts with and without hardware virtualization; the lab"],
  ["limits.md", "what vmlet does not do"],
  ["images.md", "container images, archives and folders as a root"],
  ["agent-protocol.md", "how the monitor talks to the agent in a guest"],
  ["performance.md", "start-up time, memory, and what isolation costs"],
];

/** Where the documents are on this host: the package brings them. */
function documentation(): string {
  const rows = PAGES.map(([name, tells]) => `  ${name.padEnd(18)} ${tells}\n`);
  return `Documentation, in ${join(packageRoot(), "docs")}:\n${rows.join("")}`;
}

export function help(): string {
  return `${HELP}\n${documentation()}`;
}

const HELP = `vmlet boots Linux in a micro-VM through /dev/kvm.

Usage:
  vmlet run [options] IMAGE [COMMAND...]  a program in a VM of its own
  vmlet exec, ps, logs, attach, cp        use, list and watch such VMs
  vmlet stop, kill, wait, rm, inspect     end them, and what is left of them
  vmlet images, rmi                       the images that are kept
  vmlet boot [options] [-- COMMAND...]    boot a guest; run COMMAND or a shell
  vmlet stats [--follow] [--json] FILE    show what a running guest uses
  vmlet balloon SOCKET MIB                change a running guest's memory
  vmlet pause SOCKET                      let a running guest rest
  vmlet resume SOCKET                     let it go on
  vmlet snapshot COMMAND ...              save a running guest, let it go on
  vmlet migrate SOCKET ADDRESS            move a running guest to another host
  vmlet oci install ENGINE                containers of Docker and others as VMs
  vmlet doctor [--json | --fix]           what this host can do, and what helps
  vmlet bench [options]                   what isolation costs on this host
  vmlet lab [--cpu CPU] [-- COMMAND...]   a shell on an emulated host with KVM
  vmlet --version | --help

"vmlet COMMAND --help" tells more.

Examples:
  vmlet run -it docker-daemon:busybox sh  a shell in an image
  vmlet boot                              a shell in a fresh guest
  vmlet boot --quiet -- uname -a          one command; vmlet exits as it does
  vmlet boot --memory 2G --cpus 4 --report boot.json -- nproc
  vmlet boot --kernel ./vmlinux --initrd ./rootfs.cpio --cmdline "debug"
`;

export const BOOT_HELP = `Boots a Linux guest; its console is this terminal.

Usage: vmlet boot [options] [-- COMMAND...]

With COMMAND, the guest runs it and powers off; vmlet exits with its status.
Without, the guest gives a shell if vmlet runs on a terminal; else it describes
itself and powers off.

Options:
  -k, --kernel PATH      ELF vmlinux or bzImage; default: this package's kernel
  -i, --initrd PATH      initramfs archive; default: this package's
      --no-initrd        no initramfs
  -c, --cmdline TEXT     add TEXT to the kernel's command line
      --bare-cmdline     leave vmlet's own words out of it
  -m, --memory SIZE      guest RAM, in MiB or as 512M, 2G; default 128
      --cpus N           number of vCPUs, 1 to 32; default 1
      --accel KIND       auto (default); kvm: this host's /dev/kvm; lab: an
                         emulated host with AMD-V; lab-intel: with VT-x, slower
      --protocol NAME    entry of an ELF kernel: auto (default), linux64, pvh
      --nested           show the guest VT-x or AMD-V
      --pci              virtio devices on a PCI bus, as stock kernels want them
      --vfio DEVICE      a PCI device of this host for the guest alone, such as
                         0000:01:00.1, on a PCI bus; repeatable
      --cpu-template NAME
                         show the guest a part of the processor: T2, T2S, T2CL
                         (Intel), T2A (AMD), or a file; its snapshots then go on
                         on all hosts that have that part
      --disk SPEC        a raw image or block device as /dev/vda, /dev/vdb, ...;
                         repeatable
      --net NET          a network device; repeatable
      --vsock VSOCK      sockets between programs of guest and host
      --console KIND     the guest's terminal: serial (default), or virtio:
                         hvc0, which follows the window's size
      --rng              an entropy device, /dev/hwrng
      --balloon BALLOON  memory that the guest gives back to this host
      --share SHARE      a folder of this host that the guest mounts; repeatable
      --report FILE      write as JSON what happened: times, exits, outcome
      --metrics FILE     write a line of JSON a second, for vmlet stats
      --from-template    go on from where a guest like this was before it got
                         its COMMAND: the first time boots it and keeps that in
                         the cache, later ones take milliseconds
      --control SOCKET   make a Unix socket for vmlet balloon, pause, resume,
                         snapshot create
      --config-file FILE the machine as Firecracker's configuration file has it,
                         in place of all options about it
      --jail MODE        walls around vmlet itself while the guest runs: off
                         (default), on, or strict: no thread begins later
  -q, --quiet            keep the kernel's log off the console
  -h, --help             print this text

SPEC: path=FILE[,root][,readonly][,format=raw|parts][,id=NAME][,cache=MODE]
      [,block=BYTES][,lock=on|off][,bw=SIZE][,ops=N]
  root              the guest's root file system: COMMAND runs in it; without
                    COMMAND, the kernel starts its /sbin/init
  readonly          the guest cannot write to it
  format=raw        take the file as it is, whatever it looks like; else an
                    image of another format is refused
  format=parts      the file lists others which are the disk; with readonly
  id=NAME           serial number in the guest; default: the file's name
  cache=MODE        writeback (default): what the guest has flushed is on the
                    host's medium; unsafe: vmlet ignores flushes
  block=BYTES       size of a logical block: 512 (default) or 4096
  lock=off          do not look who else has the disk; else a disk that one
                    guest writes is refused to all others
  bw=SIZE, ops=N    at most SIZE bytes (with K, M, G) and N requests a second

NET:  user[,forward=[ADDRESS:]PORT:PORT[/udp]]...[,host=off] or
      tap=NAME|auto[,ip=ADDRESS/PREFIX]; each with [,vhost=auto|off|on]
      [,mac=ADDRESS][,mtu=BYTES][,bw=SIZE][,ops=N]
  user              a network that needs no rights (Debian package passt): the
                    guest is 10.0.2.15, this host's 127.0.0.1 is 10.0.2.2
  forward=          this host's port, on 127.0.0.1 or ADDRESS, leads to the
                    guest's; repeatable
  host=off          the guest does not reach this host's 127.0.0.1
  tap=NAME          a TAP interface that exists
  tap=auto          a new one, which goes with the guest (needs root rights)
  ip=               IPv4 address of this host's end of a new interface
  vhost=            this host's vhost-net, or a passt since 2025_01_21, moves
                    the frames: where it can (auto, the default), never, or
                    surely
  mac=, mtu=        of the guest's interface; default: a random address
  bw=SIZE, ops=N    at most SIZE bytes and N frames a second and direction

VSOCK: cid=N[,path=SOCKET]
  cid=N             the guest's context id, from 3 on. Without path=, programs
                    of this host reach the guest there by AF_VSOCK, and the
                    guest theirs at context id 2 (this host's vhost-vsock)
  path=SOCKET       a Unix socket that vmlet makes. Connect, write the line
                    "CONNECT PORT", read the line "OK ...", then talk. The
                    guest's connections to port PORT of context id 2 go to
                    SOCKET_PORT

BALLOON: MIB[,deflate-on-oom][,reporting]
  MIB               how much the guest gives up; vmlet balloon changes it
  deflate-on-oom    the guest takes memory back before it runs out of it
  reporting         the guest tells which pages it does not use, and this host
                    gets them back

SHARE: PATH[,tag=NAME][,ro]
  PATH              the folder; in the guest: mount -t virtiofs NAME /mnt
  tag=NAME          its name there; default: share0, share1, ...
  ro                the guest cannot change anything in it

A comma inside a value is written twice.

Keys on a terminal:
  Ctrl-A x          leave: stop the guest as it stands
  Ctrl-A z          stop vmlet, as Ctrl-Z stops a program; fg goes on
  Ctrl-A b          send a break; Linux takes the next key as SysRq
  Ctrl-A p          pause the guest; again: let it go on
  Ctrl-A Ctrl-A     send one Ctrl-A

Exit status:
  0-255  the guest powered off: its command's status
  64     bad usage                       100    the guest asked for a reboot
  65     bad configuration or kernel     101    kernel panic
  69     the host cannot                 102    triple fault
  70     a defect of vmlet               103    left with Ctrl-A x
  73     a file cannot be written        104    the guest did what no machine
  74     output was lost (disk full)            answers
  128+N  signal N ended vmlet            105    every vCPU halted for ever
                                         148    a call that --jail refuses

Examples:
  vmlet boot
  vmlet boot --quiet -- sh -c 'cat /proc/cpuinfo; exit 3'
  vmlet boot --kernel /boot/vmlinuz-6.1.0-28-cloud-amd64 --memory 512 --cpus 2
  vmlet boot --disk path=root.ext4,root
  vmlet boot --disk path=data.ext4 -- sh -c 'mount /dev/vda /mnt && ls /mnt'
  vmlet boot --share . -- \\
    sh -c 'mkdir /mnt && mount -t virtiofs share0 /mnt && ls /mnt'
  vmlet boot --net user,forward=8080:80 -- httpd -f
  vmlet boot --net tap=auto,ip=172.16.0.1/24 -- \\
    sh -c 'ip link set eth0 up; ip addr add 172.16.0.2/24 dev eth0; ip addr'

More: command-line.md, devices.md, kernels.md; "vmlet --help" says where.
`;

export const STATS_HELP = `Shows what a guest uses, from the file of "vmlet boot --metrics FILE".

Usage: vmlet stats [--follow] [--json] FILE

Options:
  -f, --follow           again every second, until the guest ends
      --json             the last line of the file, with rates
  -h, --help             print this text

Example:
  vmlet boot --metrics vm.metrics --balloon 64 & vmlet stats --follow vm.metrics
`;

export const BALLOON_HELP = `Asks a running guest to give up memory, or to take it back.

Usage: vmlet balloon SOCKET MIB

SOCKET is that of "vmlet boot --balloon ... --control SOCKET". MIB is how much
the guest gives up in all, from 0 to its memory. The guest does it in its own
time: "vmlet stats" shows how far it is.

Options:
  -h, --help             print this text

Example:
  vmlet boot --balloon 0 --control vm.sock & vmlet balloon vm.sock 64
`;

export const PAUSE_HELP = `Pauses a running guest: no processor of it runs, no device of it does anything.

Usage: vmlet pause SOCKET

SOCKET is that of "vmlet boot --control SOCKET". vmlet pause returns once the
guest rests. Its clocks go on: to the guest it is as if it had been slow. The
signal SIGUSR1 to vmlet boot does the same, and Ctrl-A p on its terminal.

Options:
  -h, --help             print this text

Example:
  vmlet boot --control vm.sock & vmlet pause vm.sock
`;

export const RESUME_HELP = `Lets a guest go on that "vmlet pause" has paused.

Usage: vmlet resume SOCKET

SOCKET is that of "vmlet boot --control SOCKET". The signal SIGUSR2 to vmlet
boot does the same, and Ctrl-A p on its terminal. A guest that runs is left
alone.

Options:
  -h, --help             print this text

Example:
  vmlet resume vm.sock
`;

export const DOCTOR_HELP = `Tells what this host can do for VMs, and changes nothing.

Usage: vmlet doctor [--json | --fix] [--passthrough]

Options:
      --json             for programs: findings with stable codes, the verdict
      --fix              print the cures as shell commands, and run none
      --passthrough      also what it takes to hand a device to a guest: IOMMU,
                         VFIO, locked memory
  -h, --help             print this text

Looks at the CPU, the level above, the KVM modules, the rights on /dev/kvm, what
may forbid it, the speed of guest code, memory, container engines and QEMU. The
last line says what "vmlet boot" will use, why, and what would make it better.

Exit status: 0 if "vmlet boot" works on this host's /dev/kvm, 72 if only in the
lab, 69 if not at all.

Examples:
  vmlet doctor
  vmlet doctor --json | jq -r '.findings[] | select(.status == "bad") | .code'

More: lab.md, ci.md; "vmlet --help" says where.
`;

export const LAB_HELP = `Runs a command in the lab, an emulated host with its own KVM.

Usage: vmlet lab [--cpu amd|intel] [--model NAME] [--nvme FILE] [-- COMMAND...]

Options:
      --cpu CPU          amd (default): QEMU emulates AMD-V, up in seconds;
                         intel: Bochs emulates VT-x, one processor and 2 GiB at
                         most, up in half a minute or more
      --model NAME       an AMD processor that QEMU knows, such as EPYC or
                         Opteron_G3, not all that QEMU can emulate: to try what
                         goes on there; such a lab boots each time
      --nvme FILE        devices for --vfio: an IOMMU, FILE as an NVMe disk with
                         virtual functions, two network cards on one wire, a
                         SATA controller; it boots each time
  -h, --help             print this text

Without COMMAND, a shell. It starts in /input/vmlet, where the package lies,
read-only. Files written to /output appear afterwards in this host's working
directory. The lab needs no /dev/kvm and no root rights. It is slow: everything
in it is emulated.

Examples:
  vmlet lab
  vmlet lab -- node dist/vmlet.js doctor
  vmlet lab --model Opteron_G3 -- node dist/vmlet.js doctor --json
  vmlet lab --cpu intel -- grep -o -m1 -w vmx /proc/cpuinfo

More: lab.md; "vmlet --help" says where.
`;
