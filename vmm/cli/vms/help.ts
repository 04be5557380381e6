// Texts of --help of the commands about VMs that run programs; as those of ../help.ts.

export const RUN_HELP = `Runs a program in a VM of its own.

Usage: vmlet run [options] IMAGE [COMMAND...]
       vmlet run [options] --rootfs DIR [--] COMMAND...
       vmlet run [options] --disk FILE [--] COMMAND...

IMAGE is named as skopeo does: docker-archive:FILE, oci:DIR, oci-archive:FILE,
docker-daemon:NAME, docker://HOST/NAME, dir:DIR, the path of a tar or folder, or
a name that the local engine knows. The first run of a kind boots a guest and
keeps it; later ones go on from there. vmlet exits as COMMAND does.

Options:
      --rootfs DIR       a folder of this host as the root, as it is now
      --disk FILE        a file system's image as the root; the guest writes it
  -m, --memory SIZE      guest RAM, in MiB or as 512m, 2G; default 512
      --cpus N           number of vCPUs; default 1
  -e, --env NAME[=VALUE] a variable; without VALUE, this process's; repeatable
      --env-file FILE    lines of NAME=VALUE; repeatable
  -w, --workdir DIR      where COMMAND starts
  -u, --user USER        NAME, UID, NAME:GROUP or UID:GID
      --entrypoint FILE  in place of the image's; "" for none
  -v, --volume HOST:GUEST[:ro]
                         a folder or file of this host in the guest; repeatable
      --mount type=bind,source=HOST,target=GUEST[,readonly]
              type=tmpfs,target=GUEST[,tmpfs-size=SIZE][,tmpfs-mode=MODE]
                         the same in Docker's other words; repeatable
      --tmpfs GUEST[:OPTIONS]
                         a folder in the guest's memory, with options of mount
                         such as size=64m,mode=1777,exec; repeatable
  -p, --publish [ADDRESS:]HOST:GUEST[/udp]
                         a port of this host leads to the guest's, or several:
                         8000-8002:80-82; without HOST any that is free, see
                         vmlet ps; repeatable
  -P, --publish-all      a free port of this host for each that IMAGE names
      --expose PORT[/udp]
                         one more than IMAGE names; repeatable
      --network KIND     none (default), user: needs no rights (default with
                         --publish), tap[=NAME]: an interface of this host
  -h, --hostname NAME    the guest's host name; default: vmlet
      --add-host NAME:ADDRESS
                         a line of /etc/hosts; repeatable
      --dns ADDRESS      a name server, in place of the network's; repeatable
      --dns-search DOMAIN
      --dns-option OPTION
                         of /etc/resolv.conf; repeatable
      --group-add GID    one more group of COMMAND's; repeatable
      --ulimit NAME=SOFT[:HARD]
                         a limit, such as nofile=1024 or core=-1; repeatable
      --shm-size SIZE    of /dev/shm, in bytes or as 64m; default: half of RAM
      --sysctl NAME=VALUE
                         a setting of the guest's kernel; repeatable
      --name NAME        of the VM; default: made from its id
  -l, --label NAME=VALUE for vmlet ps and inspect; repeatable
      --label-file FILE  lines of NAME=VALUE; repeatable
      --cidfile FILE     write the VM's id to a new file
      --read-only        the guest cannot write to its root
      --pull WHEN        missing (default), always, never
      --timeout TIME     end the VM after 90 (seconds), 500ms, 2m, 1h: exit 124
      --accel WHERE      auto (default): /dev/kvm, and where there is none that
                         can be used, the lab, an emulated host; kvm; lab
      --jail MODE        walls around vmlet itself while the guest runs: on
                         (default), strict, off
  -i, --interactive      COMMAND reads standard input
  -t, --tty              COMMAND has a terminal
  -d, --detach           print the VM's id and let it run
      --detach-keys KEYS leave a terminal without ending the VM; default:
                         ctrl-p,ctrl-q
      --stop-signal SIG  for vmlet stop
      --stop-timeout S   seconds that vmlet stop gives it; default 10
      --rm               keep nothing of it after its end
      --init             taken, and always so: the guest has an init
  -q, --quiet            no progress
      --help             print this text
Docker's other options are refused with what to do in their place, or taken
where a VM is so anyway: docs/run.md has them all.

Exit codes: COMMAND's own; 128+N if signal N ended it; 127: there is no such
COMMAND; 126: it cannot be run; 125: vmlet has failed; 124: --timeout.

Examples:
  vmlet run docker-daemon:busybox echo hello
  vmlet run -i docker-archive:image.tar sh -c 'wc -c' <file
  vmlet run -d --name web -p 8080:80 docker://localhost:5000/web:1
  vmlet run -it --rootfs ./root /bin/sh
`;

export const EXEC_HELP = `Runs another program in a running VM.

Usage: vmlet exec [options] VM COMMAND...

Options:
  -i, --interactive      COMMAND reads standard input
  -t, --tty              COMMAND has a terminal
  -d, --detach           do not wait for it
  -e, --env NAME[=VALUE] a variable; repeatable
      --env-file FILE    lines of NAME=VALUE; repeatable
  -w, --workdir DIR      where COMMAND starts
  -u, --user USER        NAME, UID, NAME:GROUP or UID:GID
  -h, --help             print this text

Exit codes are those of vmlet run.

Examples:
  vmlet exec web ps
  vmlet exec -it web sh
`;

export const PS_HELP = `Lists VMs that run programs.

Usage: vmlet ps [options]

Options:
  -a, --all              those that have ended, too
  -q, --quiet            ids alone
      --no-trunc         whole commands
      --json             as JSON
  -h, --help             print this text
`;

export const INSPECT_HELP = `Prints all that is known of VMs, as JSON.

Usage: vmlet inspect VM...

Options:
      --json             as JSON, which it is anyway
  -h, --help             print this text
`;

export const LOGS_HELP = `Prints what the program of a VM has written; vmlet run --detach keeps it.

Usage: vmlet logs [options] VM

Options:
  -f, --follow           go on until it ends
  -n, --tail N           only the last N lines
  -t, --timestamps       the time before each piece
  -h, --help             print this text
`;

export const ATTACH_HELP = `Puts this terminal at the program of a running VM.

Usage: vmlet attach [options] VM

Options:
      --detach-keys KEYS leave it without ending it; default: ctrl-p,ctrl-q
      --no-stdin         only look
  -h, --help             print this text
`;

export const STOP_HELP = `Asks the program of a VM to end, and ends the VM.

Usage: vmlet stop [--time SECONDS] VM...

Options:
  -t, --time SECONDS     until it is killed; default: what --stop-timeout of
      --timeout SECONDS  vmlet run says, or 10
  -h, --help             print this text
`;

export const KILL_HELP = `Sends a signal to the program of a VM.

Usage: vmlet kill [--signal SIGNAL] VM...

Options:
  -s, --signal SIGNAL    by name or number; default: KILL
  -h, --help             print this text
`;

export const RM_HELP = `Forgets VMs that have ended.

Usage: vmlet rm [--force] VM...

Options:
  -f, --force            end those that run
  -h, --help             print this text
`;

export const WAIT_HELP = `Waits for the end of VMs, and prints their exit codes.

Usage: vmlet wait VM...

Options:
  -h, --help             print this text
`;

export const CP_HELP = `Copies files and folders between this host and a running VM.

Usage: vmlet cp VM:PATH HOSTPATH
       vmlet cp HOSTPATH VM:PATH

As docker cp: into PATH if that is a folder, else in its place. "-" for the
host's side is a tar stream on standard input or output.

Options:
  -a, --archive          keep owners
  -L, --follow-link      copy what a link leads to
  -h, --help             print this text

Examples:
  vmlet cp web:/etc/nginx ./nginx
  vmlet cp page.html web:/var/www/
`;

export const IMAGES_HELP = `Lists the images that are kept on this host.

Usage: vmlet images [options]

Options:
  -q, --quiet            ids alone
      --json             as JSON
  -h, --help             print this text
`;

export const RMI_HELP = `Removes images; layers that others have stay.

Usage: vmlet rmi IMAGE...

Options:
  -h, --help             print this text
`;
