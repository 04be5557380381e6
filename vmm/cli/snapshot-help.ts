// Texts of `vmlet snapshot ... --help`; as those of help.ts.

export const SNAPSHOT_HELP = `Saves a running guest to a folder, and lets it go on from there.

Usage:
  vmlet snapshot create [options] SOCKET FOLDER    save a running guest
  vmlet snapshot restore [options] FOLDER          let a saved guest go on
  vmlet snapshot receive [options] ADDRESS         wait for a guest that moves
  vmlet snapshot inspect [options] FOLDER          what is in a snapshot
  vmlet snapshot delete FOLDER                     remove a snapshot
  vmlet snapshot cpu-template HOST...              what several hosts all have

Examples:
  vmlet boot --control vm.sock & vmlet snapshot create --stop vm.sock saved
  vmlet snapshot inspect saved
  vmlet snapshot restore saved

"vmlet snapshot create --help" tells more, and so on. snapshots.md has the rest;
"vmlet --help" says where.
`;

export const SNAPSHOT_CREATE_HELP = `Saves a running guest to a folder.

Usage: vmlet snapshot create [options] SOCKET FOLDER

SOCKET is that of "vmlet boot --control SOCKET". The guest rests until all of it
is written, and then goes on as before. FOLDER is made, or holds nothing but an
earlier snapshot, which this one replaces when it is whole. It has all that the
guest has in memory, and is for its owner alone. If it cannot be written, the
guest goes on, and the earlier snapshot stays.

Options:
      --stop             end the guest once it is saved
      --diff BASE        save only the memory that has changed since the
                         snapshot in the folder BASE; a restore needs both
      --watch            follow what changes from here on: a later --diff over
                         this one takes less time, and the guest a little more
      --json             id, size and time as JSON
  -h, --help             print this text

Examples:
  vmlet boot --control vm.sock & vmlet snapshot create vm.sock saved
  vmlet snapshot create --diff saved vm.sock saved2
`;

export const SNAPSHOT_RESTORE_HELP = `Lets a saved guest go on, as if it had never rested.

Usage: vmlet snapshot restore [options] FOLDER

Terminal, keys, signals and exit status are those of "vmlet boot". Any number of
processes may go on from one snapshot. Its disks must be as they were when it
was made; two guests cannot write to one disk. It needs a /dev/kvm.

Options:
      --disk NAME=PATH   another file for a disk: vda=copy.img; repeatable
      --net NAME=NET     another network for a device: net0=tap=tap7; NET as in
                         vmlet boot --help, without mac= and mtu=; repeatable
      --share NAME=PATH[,ro]
                         another folder: share0=here; as it was if there is no
                         ro; repeatable
      --vsock VSOCK      [path=SOCKET][,cid=N]: another socket or context id for
                         vsock0
      --hostname NAME    the guest's own name
      --report FILE      write as JSON what happened: times, exits, outcome
      --metrics FILE     write a line of JSON a second, for vmlet stats
      --control SOCKET   make a Unix socket, as vmlet boot does
  -q, --quiet            say less
  -h, --help             print this text

Examples:
  vmlet snapshot restore saved
  vmlet snapshot restore --disk vda=copy.img --vsock path=copy.sock saved
`;

export const SNAPSHOT_INSPECT_HELP = `Shows what is in a snapshot. Needs no /dev/kvm.

Usage: vmlet snapshot inspect [--json] [--verify] FOLDER

Options:
      --json             for programs, with all of the saved state
      --verify           read all of the memory, and compare its checksum
  -h, --help             print this text

Example:
  vmlet snapshot inspect --verify saved
`;

export const SNAPSHOT_DELETE_HELP = `Removes a snapshot.

Usage: vmlet snapshot delete FOLDER

FOLDER must be your own, and hold nothing but a snapshot; else nothing is
removed. Guests that go on from it are not disturbed.

Options:
  -h, --help             print this text

Example:
  vmlet snapshot delete saved
`;

export const SNAPSHOT_RECEIVE_HELP = `Waits for a guest that "vmlet migrate" moves here, and lets it go on.

Usage: vmlet snapshot receive [options] ADDRESS

ADDRESS is unix:PATH, a socket that is made for its owner alone, or
tcp:HOST:PORT: HOST is the address of this host that it listens at, PORT may be
0. What comes is not encrypted, and whoever can connect can send a guest, which
opens the disks that its sender names: listen only where you trust everybody.

Disks have the same paths here, or get others; terminal, keys, signals and exit
status are those of "vmlet boot". It takes one guest. It needs a /dev/kvm.

Options:
      --disk NAME=PATH   another path for a disk: vda=/mnt/vda.img; repeatable
      --net NAME=NET     another network for a device: net0=tap=tap7; NET as in
                         vmlet boot --help, without mac= and mtu=; repeatable
      --vsock VSOCK      [path=SOCKET][,cid=N]: another socket or context id for
                         vsock0
      --report FILE      write as JSON what happened: times, exits, outcome
      --metrics FILE     write a line of JSON a second, for vmlet stats
      --control SOCKET   make a Unix socket, as vmlet boot does
  -q, --quiet            say less
  -h, --help             print this text

Examples:
  vmlet snapshot receive unix:/run/user/1000/moves.sock
  vmlet snapshot receive --control vm.sock tcp:10.0.0.2:7000
`;

export const MIGRATE_HELP = `Moves a running guest to another vmlet, here or on another host.

Usage: vmlet migrate [--json] SOCKET ADDRESS

SOCKET is that of "vmlet boot --control SOCKET". ADDRESS is that of another
vmlet, which waits with "vmlet snapshot receive ADDRESS": unix:PATH or
tcp:HOST:PORT. The guest runs while its memory is copied, rests for the last of
it, and goes on there; here it ends. If anything fails before, it goes on here.
What is sent is not encrypted.

Options:
      --json             times, bytes and rounds as JSON
  -h, --help             print this text

Example:
  vmlet migrate vm.sock tcp:10.0.0.2:7000
`;

export const SNAPSHOT_CPU_TEMPLATE_HELP = `Prints a CPU template: what the processors of several hosts have in common.

Usage: vmlet snapshot cpu-template HOST...

HOST is a file that "vmlet doctor --json" has written on one of the hosts. A
guest that is booted with the template on any of them goes on on all of them.

Options:
  -h, --help             print this text

Examples:
  vmlet doctor --json > one.json
  vmlet snapshot cpu-template one.json two.json > ours.json
  vmlet boot --cpu-template ours.json --control vm.sock
`;
