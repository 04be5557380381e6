// How virtiofsd is started with the rights that there are: it needs capabilities to shut itself into the shared folder,
// which an ordinary user has in a user namespace of his own. Pure: what is there is asked elsewhere.

/** Where Debian's package has it; it is in nobody's PATH. */
export const VIRTIOFSD = "/usr/lib/qemu/virtiofsd";
export const VIRTIOFSD_PACKAGE = "qemu-system-common";

/** Descriptor that it finds its listening socket at. */
export const VIRTIOFSD_FD = 3;

/** So long a guest may take what it knows of a name or a file for true, `s`. */
const ATTRIBUTE_SECONDS = 0.1;

/** linux/capability.h. */
const CAP_SYS_CHROOT = 18n;
const CAP_SYS_ADMIN = 21n;

/** What decides how it can be started. */
export interface VirtiofsdHost {
  /** Paths of programs; undefined for one that is not there. */
  readonly virtiofsd: string;
  readonly unshare: string | undefined;
  readonly setpriv: string | undefined;
  readonly perl: string | undefined;
  /** The capabilities in effect, as a mask. */
  readonly capabilities: bigint;
  /** This user has more ids than his own to give to a namespace, and newuidmap to do it. */
  readonly hasSubordinateIds: boolean;
}

/** What is shared; absolute, and without a symbolic link in it. */
export interface VirtiofsdFolder {
  readonly path: string;
  readonly isReadonly: boolean;
  /** A file: the guest gets a folder with it alone. */
  readonly isFile: boolean;
}

/** Where that folder is in the server's namespace: one that is there everywhere, and that the server needs nothing of. */
const FILE_FOLDER = "/tmp";

/**
 * In a mount namespace of its own: all that is mounted at the folder or below becomes read-only, whatever it was, and
 * whatever the guest, or virtiofsd, does. mount(2) and mount_setattr(2) by their numbers on x86-64; the second one is in
 * Linux from 5.12 on. Perl, because a program of the base system has to do it, between fork and exec.
 */
const MAKE_READONLY = `
my ($folder, @command) = @ARGV;
my ($none, $attr) = ("none", pack("QQQQ", 1, 0, 0, 0));
syscall(165, my $from = $folder, my $to = $folder, $none, 0x5000, 0) == 0 or die "mount: $!\\n";
syscall(442, -100, my $root = $folder, 0x8000, $attr, 32) == 0 or die "mount_setattr: $!\\n";
exec { $command[0] } @command or die "$command[0]: $!\\n";`;

/**
 * In such a namespace, too: a file system with nothing but the file, which no guest can fill. The file's descriptor outlives
 * its path, which may lie below the folder. open(2), mount(2), mount_setattr(2), close(2).
 */
const MAKE_FILE_FOLDER = `
my ($file, $folder, $readonly, @command) = @ARGV;
my ($none, $tmpfs, $data, $attr) = ("none", "tmpfs", "size=4k,nr_inodes=4,mode=0755", pack("QQQQ", 1, 0, 0, 0));
(my $fd = syscall(2, $file, 010000000 | 02000000, 0)) >= 0 or die "open: $!\n";
my $from = "/proc/self/fd/$fd";
my $to = $folder . "/" . ($file =~ m{([^/]+)$})[0];
syscall(165, $none, $folder, $tmpfs, 6, $data) == 0 or die "mount: $!\n";
open(my $made, ">", $to) or die "open: $!\n";
close($made);
syscall(165, $from, $to, $none, 0x1000, 0) == 0 or die "mount: $!\n";
syscall(442, -100, $folder, $readonly ? 0x8000 : 0, $attr, 32) == 0 or die "mount_setattr: $!\n";
syscall(3, $fd);
exec { $command[0] } @command or die "$command[0]: $!\n";`;

/** Command lines to try, the best first; none if the rights do not do. */
export function virtiofsdCommands(host: VirtiofsdHost, folder: VirtiofsdFolder, level = "err"): string[][] {
  const isAdmin = has(host.capabilities, CAP_SYS_ADMIN);
  const commands: string[][] = [];
  const add = (namespaces: readonly string[], sandbox: Sandbox): void => {
    const mustMount = needsMounts(folder);
    const words = mustMount ? [...namespaces, "--mount"] : namespaces;
    // In a namespace that is not there, nothing can be mounted.
    if (words.length > 0 && host.unshare === undefined) return;
    if (mustMount && host.perl === undefined) return;
    commands.push([
      ...(host.setpriv === undefined ? [] : [host.setpriv, "--pdeathsig", "KILL"]),
      ...(words.length > 0 && host.unshare !== undefined ? [host.unshare, ...words, "--"] : []),
      ...(mustMount && host.perl !== undefined ? mountWords(host.perl, folder) : []),
      ...serverWords(host.virtiofsd, folder.isFile ? FILE_FOLDER : folder.path, sandbox, level),
    ]);
  };
  if (isAdmin) {
    add([], "namespace");
    add([], "chroot");
  } else {
    if (has(host.capabilities, CAP_SYS_CHROOT) && !needsMounts(folder)) add([], "chroot");
    const own = ["--user", "--map-root-user"];
    for (const more of host.hasSubordinateIds ? [["--map-auto"], []] : [[]]) {
      add([...own, ...more], "namespace");
      // Where /proc is partly hidden, as in containers, no other one may be mounted.
      add([...own, ...more], "chroot");
    }
  }
  return commands;
}

/** What is shared is not what lies there. */
export function needsMounts({ isReadonly, isFile }: VirtiofsdFolder): boolean {
  return isReadonly || isFile;
}

function mountWords(perl: string, { path, isReadonly, isFile }: VirtiofsdFolder): string[] {
  return isFile
    ? [perl, "-e", MAKE_FILE_FOLDER, path, FILE_FOLDER, isReadonly ? "1" : ""]
    : [perl, "-e", MAKE_READONLY, path];
}

type Sandbox = "namespace" | "chroot";

function serverWords(program: string, path: string, sandbox: Sandbox, level: string): string[] {
  const options = [
    `source=${escaped(path)}`,
    `sandbox=${sandbox}`,
    // Device nodes would be the guest's way to the host's devices, if somebody opened them here.
    "modcaps=-mknod",
    // What is mounted below the folder is another file system for the guest, too.
    "announce_submounts",
    // The guest keeps what it has read until it hears that the file has changed, and asks for that as often: by default it
    // would read a program anew each time that somebody opens it.
    "cache=always",
    `timeout=${String(ATTRIBUTE_SECONDS)}`,
    `log_level=${level}`,
  ];
  return [program, `--fd=${String(VIRTIOFSD_FD)}`, ...options.flatMap((option) => ["-o", option])];
}

/** As libfuse reads lists of options. */
function escaped(path: string): string {
  return path.replace(/[\\,]/g, "\\$&");
}

function has(capabilities: bigint, bit: bigint): boolean {
  return ((capabilities >> bit) & 1n) === 1n;
}
