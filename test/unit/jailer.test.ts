// Needs: root and gcc; for some, hierarchies of control groups. The launcher of jails with a program that looks around: what it sees, what it
// is refused, and what stays behind.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { once } from "node:events";
import {
  existsSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  readlinkSync,
  rmSync,
  rmdirSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { GID, JailRig, UID, seen, type Seen } from "../helpers/jailed.js";
import { rows, section } from "../helpers/documents.js";
import { skip } from "../helpers/skip.js";

const KINDS = ["user", "mnt", "pid", "ipc", "uts", "net", "cgroup"] as const;
type Kind = (typeof KINDS)[number];
const OWN_DEVICES = ["/dev/kvm", "/dev/net/tun", "/dev/urandom", "/dev/userfaultfd"].filter((path) => existsSync(path));
/** Where version 1 has its hierarchies, and version 2. */
const V1_PIDS = "/sys/fs/cgroup/pids";
const MOUNTS = readFileSync("/proc/self/mountinfo", "utf8").split("\n");
const V2 = MOUNTS.find((line) => line.includes(" - cgroup2 "))?.split(" ")[4];

const hostNamespace = (kind: Kind): string => readlinkSync(`/proc/self/ns/${kind}`);

function others(found: Seen): Kind[] {
  return KINDS.filter((kind, at) => found.get("namespace")?.[at] !== hostNamespace(kind));
}

describe("the launcher of jails", function () {
  this.timeout(60_000);
  let rig: JailRig;

  before(function () {
    if (process.getuid?.() !== 0) skip(this, "no root");
    rig = new JailRig();
  });

  beforeEach(() => {
    rig.reset();
  });

  // Skipped hosts have made none.
  after(() => {
    (rig as JailRig | undefined)?.remove();
  });

  function look(options: readonly string[] = [], extra: readonly string[] = []): Seen {
    const { status, stdout, stderr } = rig.run(rig.words("a", options, extra));
    assert.deepEqual([status, stderr], [0, ""]);
    return seen(stdout);
  }

  /** What the program has written into a file of its root, once it has. */
  async function written(id: string, program = "jailed"): Promise<Seen> {
    const file = join(rig.root(id, program), "run/seen");
    for (let tries = 0; tries < 400; tries++) {
      if (existsSync(file) && readFileSync(file, "utf8").includes("urandom: ")) return seen(readFileSync(file, "utf8"));
      await sleep(25);
    }
    throw new Error(`Nothing in ${file}`);
  }

  it("namespaces of its own: user, mount, IPC, UTS, cgroup; PID and network if asked", () => {
    assert.deepEqual(others(look()), ["user", "mnt", "ipc", "uts", "cgroup"]);
    const found = look(["--new-net-ns"]);
    assert.deepEqual(others(found), ["user", "mnt", "ipc", "uts", "net", "cgroup"]);
    assert.deepEqual(found.get("interface"), ["lo"]);
    assert.deepEqual(found.get("host"), ["a"]);
  });

  it("an empty root but for devices, the program, its entry in /proc, and /run", () => {
    const files = ["/proc/self", "/vmlet/bin/jailed", ...OWN_DEVICES];
    assert.deepEqual(look().get("file")?.toSorted(), files.toSorted());
    const { stdout } = rig.run(rig.words("b", ["--exec-file", rig.dynamic]));
    const libraries = (seen(stdout).get("file") ?? []).filter((path) => /^\/(usr\/)?lib/.test(path));
    assert.ok(libraries.length >= 2 && libraries.every((path) => /\.so\b/.test(path)), libraries.join());
    assert.equal((seen(stdout).get("file") ?? []).length, files.length + libraries.length);
  });

  it("the user and group that were asked for, no other group, no capability, none to come", () => {
    const found = look();
    assert.deepEqual([found.get("uid"), found.get("gid"), found.get("groups")], [[String(UID)], [String(GID)], ["0"]]);
    for (const set of ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"])
      assert.deepEqual(found.get(set), ["0000000000000000"], set);
    assert.deepEqual(found.get("NoNewPrivs"), ["1"]);
  });

  it("no variable and no descriptor of the caller's; its id and its words", () => {
    const words = rig.words("a", [], ["--config-file", "x y"]);
    const { stdout } = rig.run(["sh", "-c", 'exec 9</etc/passwd; SECRET=1 exec "$@"', "sh", ...words]);
    const found = seen(stdout);
    assert.deepEqual(found.get("variable"), undefined);
    assert.deepEqual(found.get("descriptor"), ["0", "1", "2"]);
    const given = found.get("word") ?? [];
    assert.deepEqual(
      [...given.slice(0, 3), ...given.slice(-2)],
      ["/vmlet/bin/jailed", "--id", "a", "--config-file", "x y"],
    );
  });

  it("the caller's umask is the program's, and hides nothing from it", () => {
    const words = rig.words("a", ["--exec-file", rig.dynamic]);
    const { status, stdout } = rig.run(["sh", "-c", 'umask 0077; exec "$@"', "sh", ...words]);
    assert.deepEqual([status, seen(stdout).get("umask")], [0, ["077"]]);
  });

  it("what it is refused, and what it may", () => {
    const found = look();
    for (const [what, answer] of Object.entries({
      mount: "EPERM",
      unmount: "EPERM",
      node: "EPERM",
      "root user": "EINVAL",
      "own root": "EPERM",
      "own program": "EACCES",
      "file beside it": "EROFS",
      outside: "ENOENT",
      "file in the root": "done",
      urandom: "done",
    }))
      assert.deepEqual(found.get(what), [answer], what);
    for (const [device, what] of [
      ["/dev/kvm", "kvm"],
      ["/dev/net/tun", "tun"],
    ] as const)
      if (OWN_DEVICES.includes(device)) assert.notDeepEqual(found.get(what), ["EACCES"], what);
  });

  it("it has no key of the caller's", function () {
    const withKey = (words: readonly string[]): Seen => {
      const { status, stdout } = rig.run([rig.program, "with-key", ...words]);
      if (status === 8) skip(this, "no keyrings");
      return seen(stdout);
    };
    assert.deepEqual(withKey([rig.program]).get("key of the caller's"), ["done"], "this can fail");
    assert.deepEqual(withKey(rig.words("a")).get("key of the caller's"), ["ENOKEY"]);
  });

  it("limits of the process", () => {
    assert.deepEqual(look().get("no-file"), ["2048 2048"]);
    const found = look(["--resource-limit", "fsize=4096", "--resource-limit=no-file=256"]);
    assert.deepEqual([found.get("fsize"), found.get("no-file")], [["4096 4096"], ["256 256"]]);
  });

  it("--new-pid-ns: process 1; its number on the host is in a file", async () => {
    assert.equal(rig.exitCode(rig.words("a", ["--new-pid-ns"], ["to", "/run/seen", "stay"])), 0);
    const found = await written("a");
    const pid = Number(readFileSync(join(rig.root("a"), "jailed.pid"), "utf8"));
    try {
      assert.deepEqual(others(found), ["user", "mnt", "pid", "ipc", "uts", "cgroup"]);
      assert.deepEqual(found.get("pid"), ["1"]);
      assert.match(readFileSync(`/proc/${String(pid)}/cmdline`, "latin1"), /jailed/);
    } finally {
      process.kill(pid, "SIGKILL");
    }
  });

  it("--daemonize: returns at once; a session of its own, /dev/null for its standard files", async () => {
    const words = rig.words("a", ["--daemonize"], ["to", "/run/seen", "stay"]);
    assert.deepEqual(rig.run(words), { status: 0, stdout: "", stderr: "" });
    const found = await written("a");
    const pid = Number(readFileSync(join(rig.root("a"), "jailed.pid"), "utf8"));
    try {
      assert.deepEqual([found.get("pid"), found.get("standard")], [[String(pid)], ["null", "null"]]);
      assert.notDeepEqual(found.get("session"), [String(pid)], "a leader could get a terminal");
      // Its session's leader has ended.
      assert.ok(!existsSync(`/proc/${found.get("session")?.[0] ?? ""}`));
    } finally {
      process.kill(pid, "SIGKILL");
    }
  });

  it("a start that fails is told to who asked for a daemon, too", () => {
    const file = join(rig.folder, "no-loader");
    spawnSync("gcc", ["-xc", "-", "-o", file], { input: "int main(void){return 0;}" });
    const bytes = readFileSync(file);
    // The loader of another machine: the kernel refuses to start it.
    bytes.write("/vmlet/bin/no-loader\0", bytes.indexOf("/lib64/ld-linux"), "latin1");
    writeFileSync(file, bytes);
    const { status, stderr } = rig.run(rig.words("a", ["--exec-file", file, "--daemonize"]));
    assert.equal(status, 1);
    assert.match(stderr, /no-loader/);
  });

  it("--netns: the network of that namespace", async () => {
    const child = spawn("unshare", ["-n", "sh", "-c", "echo ready; exec sleep 100"], {
      stdio: ["ignore", "pipe", "ignore"],
    });
    await once(child.stdout, "data");
    try {
      const path = `/proc/${String(child.pid)}/ns/net`;
      const found = look(["--netns", path]);
      assert.equal(found.get("namespace")?.[KINDS.indexOf("net")], readlinkSync(path));
      assert.deepEqual(found.get("interface"), ["lo"]);
    } finally {
      child.kill("SIGKILL");
    }
  });

  it("control groups of version 1: their limits hold, and the group is the program's own", async function () {
    if (!existsSync(join(V1_PIDS, "cgroup.procs"))) skip(this, "no hierarchy of version 1 with pids");
    const group = join(V1_PIDS, "vmlet-test/parent/a");
    const limits = ["--cgroup", "pids.max=7", "--parent-cgroup", "vmlet-test/parent"];
    const child = rig.start(rig.words("a", limits, ["to", "/run/seen", "stay"]));
    await written("a");
    try {
      assert.equal(readFileSync(join(group, "pids.max"), "utf8"), "7\n");
      assert.equal(readFileSync(join(group, "cgroup.procs"), "utf8"), `${String(child.pid)}\n`);
    } finally {
      child.child.kill("SIGKILL");
      await child.ended;
      // What the documents say stays.
      rmdirSync(group);
      rmdirSync(join(group, ".."));
      rmdirSync(join(group, "../.."));
    }
  });

  it("cpuset of version 1 has what its parent has, and takes one limit", function () {
    const top = "/sys/fs/cgroup/cpuset";
    if (!existsSync(join(top, "cpuset.cpus"))) skip(this, "no hierarchy of version 1 with cpuset");
    try {
      look(["--cgroup", "cpuset.cpus=0"]);
      assert.equal(readFileSync(join(top, "jailed/a/cpuset.cpus"), "utf8"), "0\n");
      assert.equal(
        readFileSync(join(top, "jailed/a/cpuset.mems"), "utf8"),
        readFileSync(join(top, "cpuset.mems"), "utf8"),
      );
    } finally {
      rmdirSync(join(top, "jailed/a"));
      rmdirSync(join(top, "jailed"));
    }
  });

  it("control groups of version 2: files of the core, and of controllers that the host gives", function () {
    if (V2 === undefined) skip(this, "no hierarchy of version 2");
    const given = readFileSync(join(V2, "cgroup.controllers"), "utf8").split(/\s/);
    const limits = given.includes("pids") ? ["--cgroup", "pids.max=7"] : [];
    try {
      look(["--cgroup-version", "2", "--cgroup", "cgroup.max.depth=3", ...limits]);
      assert.equal(readFileSync(join(V2, "jailed/a/cgroup.max.depth"), "utf8"), "3\n");
      if (limits.length > 0) assert.equal(readFileSync(join(V2, "jailed/a/pids.max"), "utf8"), "7\n");
    } finally {
      rmdirSync(join(V2, "jailed/a"));
      rmdirSync(join(V2, "jailed"));
    }
  });

  it("version 2 without limits: a group of somebody else's, if it is there", async function () {
    if (V2 === undefined) skip(this, "no hierarchy of version 2");
    look(["--cgroup-version", "2", "--parent-cgroup", "vmlet-test"]);
    assert.ok(!existsSync(join(V2, "vmlet-test")));
    mkdirSync(join(V2, "vmlet-test"));
    const words = ["--cgroup-version", "2", "--parent-cgroup", "vmlet-test"];
    const child = rig.start(rig.words("b", words, ["to", "/run/seen", "stay"]));
    await written("b");
    try {
      assert.equal(readFileSync(join(V2, "vmlet-test/cgroup.procs"), "utf8"), `${String(child.pid)}\n`);
    } finally {
      child.child.kill("SIGKILL");
      await child.ended;
      rmdirSync(join(V2, "vmlet-test"));
    }
  });

  it("kill -9 leaves the folder with places of mounts, no mount and no process; the same id starts again", async () => {
    const words = rig.words("a", [], ["to", "/run/seen", "stay"]);
    const child = rig.start(words);
    await written("a");
    assert.ok(!readFileSync("/proc/self/mountinfo", "utf8").includes(rig.base));
    child.child.kill("SIGKILL");
    assert.equal((await child.ended).status, 137);
    const left = readdirSync(rig.base, { recursive: true }).toSorted();
    assert.deepEqual(
      left,
      ["", "/dev", "/file", "/proc", "/run", "/run/seen", "/vmlet"]
        .map((path) => `jailed/a/root${path}`)
        .concat("jailed", "jailed/a")
        .toSorted(),
    );
    look();
  });

  const BAD: readonly (readonly [readonly string[], string])[] = [
    [["--id", "a_b"], "--id a_b: letters, digits and - alone"],
    [["--id", "x".repeat(65)], `--id ${"x".repeat(65)}: 65 characters, and it can have 1 to 64`],
    [["--id", ""], "--id : 0 characters, and it can have 1 to 64"],
    [["--uid", "-1"], "--uid -1: a number from 0 to 4294967294"],
    [["--uid", "4294967295"], "--uid 4294967295: a number from 0 to 4294967294"],
    [["--gid", "users"], "--gid users: a number from 0 to 4294967294"],
    [["--exec-file", "/nope"], "--exec-file /nope: No such file or directory"],
    [["--exec-file", "/etc/passwd"], "--exec-file /etc/passwd: not a file that can be executed"],
    [["--exec-file", "/"], "--parent-cgroup : a path without . and .., below the top of the hierarchy"],
    [["--chroot-base-dir", "/nope"], "--chroot-base-dir /nope: No such file or directory"],
    [["--chroot-base-dir", "/etc/passwd"], "--chroot-base-dir /etc/passwd: not a folder"],
    [["--netns", "/nope"], "--netns /nope: No such file or directory"],
    [["--netns", "/etc/passwd"], "--netns /etc/passwd: not a network namespace"],
    [["--netns", "/proc/self/ns/uts"], "--netns /proc/self/ns/uts: not a network namespace"],
    [["--netns", "/x", "--new-net-ns"], "--netns /x and --new-net-ns: one of them"],
    [["--daemonize=yes"], "--daemonize takes no value: yes"],
    [["--new-pid-ns=1"], "--new-pid-ns takes no value: 1"],
    [["--new-net-ns=1"], "--new-net-ns takes no value: 1"],
    [["--cgroup", "memory"], "--cgroup memory: FILE=VALUE, such as memory.max=1G"],
    [["--cgroup", "memory.max="], "--cgroup memory.max=: FILE=VALUE, such as memory.max=1G"],
    [["--cgroup", "memory=1"], "--cgroup memory=1: the file is CONTROLLER.NAME, such as memory.max"],
    [["--cgroup", "a.b/../../c=1"], "--cgroup a.b/../../c=1: the file is CONTROLLER.NAME, such as memory.max"],
    [["--cgroup", "nope.max=1"], "--cgroup nope.max=1: no hierarchy of version 1 has this controller here"],
    [["--cgroup-version", "3"], "--cgroup-version 3: 1 or 2"],
    [["--parent-cgroup", "../x"], "--parent-cgroup ../x: a path without . and .., below the top of the hierarchy"],
    [["--parent-cgroup", "/x"], "--parent-cgroup /x: a path without . and .., below the top of the hierarchy"],
    [["--resource-limit", "memory=1"], "--resource-limit memory=1: fsize=BYTES or no-file=COUNT"],
    [["--resource-limit", "fsize=-1"], "--resource-limit fsize=-1: a number from 0 to 18446744073709551614"],
    [["--nope"], "--nope: no such option; try --help"],
    [["nope"], "nope: not an option; what is for the program comes behind --"],
    [["--cgroup"], "--cgroup needs a value"],
    [["--daemonize", "--daemonize"], "--daemonize can be given 1 time at most: "],
  ];

  for (const [options, message] of BAD) {
    it(`${options.join(" ").slice(0, 40)}: one line, before anything is made`, () => {
      const { status, stdout, stderr } = rig.run(rig.words("a", options));
      assert.deepEqual([status, stdout, stderr], [1, "", `vmlet-jailer: ${message}\n`]);
      assert.deepEqual(readdirSync(rig.base), []);
    });
  }

  it("its help names the options that docs/jailer.md has", () => {
    const help = rig.run([rig.launcher, "--help"]).stdout;
    assert.ok(help.split("\n").every((line) => line.length <= 80));
    const listed = rows(section("docs/jailer.md", "Options")).map(([cell = ""]) => cell.match(/--[a-z-]+/g) ?? []);
    const known = [...(help.match(/^ {2}--[a-z-]+/gm) ?? []).map((line) => line.trim()), "--help", "--version"];
    assert.deepEqual(listed.flat().toSorted(), known.toSorted());
    assert.equal(rig.run([rig.launcher, "--version"]).stdout, "Jailer v1.9.0\n");
  });

  it("each option that is needed is asked for, and numbers of files have their limits", () => {
    for (const name of ["id", "exec-file", "uid", "gid"]) {
      const words = rig.words("a");
      words.splice(words.indexOf(`--${name}`), 2);
      assert.equal(rig.run(words).stderr, `vmlet-jailer: --${name} is needed\n`);
    }
    const { stderr } = rig.run(rig.words("a", ["--resource-limit", "no-file=99999999999"]));
    assert.match(stderr, /^vmlet-jailer: --resource-limit no-file=99999999999: (from 64 to \d+|\d+ at most.*)\n$/);
  });

  it("a limit that the kernel refuses: what was made by then is taken back", function () {
    if (!existsSync(join(V1_PIDS, "cgroup.procs"))) skip(this, "no hierarchy of version 1 with pids");
    for (const [limit, message] of [
      ["pids.max=many", `${V1_PIDS} refuses it: Invalid argument`],
      ["pids.nope=1", `${V1_PIDS} has no such file in its groups`],
    ] as const) {
      const { status, stderr } = rig.run(rig.words("a", ["--cgroup", "pids.max=5", "--cgroup", limit]));
      assert.deepEqual([status, stderr], [1, `vmlet-jailer: --cgroup ${limit}: ${message}\n`]);
      assert.deepEqual(readdirSync(rig.base), []);
      assert.ok(!existsSync(join(V1_PIDS, "jailed")));
    }
  });

  it("links that a former program has left in its root lead nowhere", () => {
    const outside = join(rig.folder, "outside");
    for (const name of ["dev", "run", "proc", "vmlet"]) {
      rmSync(outside, { recursive: true, force: true });
      mkdirSync(outside);
      mkdirSync(rig.root("a"), { recursive: true });
      symlinkSync(outside, join(rig.root("a"), name));
      const { status, stderr } = rig.run(rig.words("a"));
      assert.equal(status, 1, name);
      assert.match(stderr, new RegExp(`^vmlet-jailer: folder ${name} in the jail: .*\n$`));
      assert.deepEqual([readdirSync(outside), statSync(outside).uid], [[], 0]);
      rig.reset();
    }
    mkdirSync(rig.root("a"), { recursive: true });
    symlinkSync(join(outside, "pid"), join(rig.root("a"), "jailed.pid"));
    assert.equal(rig.run(rig.words("a", ["--new-pid-ns"])).status, 0);
    assert.deepEqual(readdirSync(outside), []);
  });

  it("with rights over less than the host, it says what it goes on without", () => {
    // Root of a user namespace, which makes no device node, drops no group and is allowed no further namespace.
    const forbid = 'echo 0 >/proc/sys/user/max_user_namespaces; exec "$@"';
    const words = rig.words("a", ["--uid", "0", "--gid", "0"]);
    const { status, stdout, stderr } = rig.run(["unshare", "-U", "-r", "sh", "-c", forbid, "sh", ...words]);
    const found = seen(stdout);
    const lines = stderr.trimEnd().split("\n");
    assert.deepEqual(
      [status, lines.slice(-2)],
      [
        0,
        [
          "vmlet-jailer: goes on with the caller's groups: Operation not permitted",
          "vmlet-jailer: goes on without a user namespace: No space left on device",
        ],
      ],
    );
    // A device that everybody may open is the host's own.
    assert.deepEqual(found.get("urandom"), ["done"]);
    if (existsSync("/dev/kvm") && (statSync("/dev/kvm").mode & 0o6) !== 0o6) {
      assert.deepEqual(found.get("kvm"), ["ENOENT"]);
      assert.match(lines[0] ?? "", /goes on without \/dev\/kvm/);
    }
    for (const set of ["CapPrm", "CapEff", "CapBnd"]) assert.deepEqual(found.get(set), ["0000000000000000"], set);
    assert.deepEqual([found.get("mount"), found.get("outside")], [["EPERM"], ["ENOENT"]]);
  });

  it("vmlet boot --jail is started in namespaces, as its words ask; others are started as they are", () => {
    const tells = ["sh", "-c", 'readlink /proc/self/ns/mnt; echo "$VMLET_OWN_NAMESPACES $$"', "--", "vmlet.js"];
    const isAround = (...words: string[]): boolean => {
      const { status, stdout, stderr } = rig.run([rig.launcher, "around", ...tells, "boot", ...words]);
      const [mounts = "", numbers = ""] = stdout.trimEnd().split("\n");
      const [own = "", pid = ""] = numbers.split(" ");
      assert.deepEqual([status, stderr], [0, ""]);
      assert.equal(own, mounts === hostNamespace("mnt") ? "" : pid, stdout);
      return own !== "";
    };
    for (const words of [["--jail", "on"], ["--jail=strict"], ["--quiet", "--jail", "on", "--", "sh"]])
      assert.ok(isAround(...words), words.join(" "));
    for (const words of [["--jail", "off"], ["--jail=off"], ["--jail"], ["--", "--jail", "on"], ["--quiet"]])
      assert.ok(!isAround(...words), words.join(" "));
  });

  describe("without root", () => {
    const USER = 34_567;
    const as = (words: readonly string[]): string[] => [
      "setpriv",
      "--reuid",
      String(USER),
      "--regid",
      String(USER),
      "--clear-groups",
      "--",
      ...words,
    ];
    const identity = ["--uid", String(USER), "--gid", String(USER)];
    const hasNamespaces = (): boolean => spawnSync("setpriv", as(["unshare", "-U", "true"]).slice(1)).status === 0;

    beforeEach(function () {
      rig.reset(USER);
      if (!hasNamespaces()) skip(this, "no user namespaces for users");
    });

    it("the same namespaces and an empty root, as the user that it is; a word about a device that this one may not open", () => {
      const { status, stdout, stderr } = rig.run(as(rig.words("a", [...identity, "--new-net-ns"])));
      const found = seen(stdout);
      assert.deepEqual([status, found.get("uid"), found.get("gid")], [0, [String(USER)], [String(USER)]]);
      assert.deepEqual(others(found), ["user", "mnt", "ipc", "uts", "net", "cgroup"]);
      const isKvmOpen = spawnSync("setpriv", as(["test", "-w", "/dev/kvm"]).slice(1)).status === 0;
      const isKvmThere = existsSync("/dev/kvm");
      assert.equal(
        stderr,
        isKvmThere && !isKvmOpen
          ? `vmlet-jailer: goes on without /dev/kvm: user ${String(USER)} may not open it\n`
          : "",
      );
      const files = (found.get("file") ?? []).filter((path) => !path.startsWith("/dev/"));
      assert.deepEqual(files.toSorted(), ["/proc/self", "/vmlet/bin/jailed"]);
      for (const set of ["CapPrm", "CapEff", "CapBnd"]) assert.deepEqual(found.get(set), ["0000000000000000"], set);
      for (const [what, answer] of [
        ["mount", "EPERM"],
        ["outside", "ENOENT"],
        ["file beside it", "EROFS"],
        ["urandom", "done"],
      ] as const)
        assert.deepEqual(found.get(what), [answer], what);
    });

    it("no other user, and no control group that is not its own", function () {
      assert.deepEqual(rig.run(as(rig.words("a"))), {
        status: 1,
        stdout: "",
        stderr: `vmlet-jailer: --uid ${String(UID)} --gid ${String(GID)}: without root's rights, ${String(USER)} and ${String(USER)} alone, which this is\n`,
      });
      if (!existsSync(join(V1_PIDS, "cgroup.procs"))) skip(this, "no hierarchy of version 1 with pids");
      const { status, stderr } = rig.run(as(rig.words("a", [...identity, "--cgroup", "pids.max=5"])));
      assert.equal(status, 1);
      assert.match(stderr, new RegExp(`control group ${V1_PIDS}/jailed/a: Permission denied\n$`));
      assert.deepEqual(readdirSync(rig.base), []);
    });

    it("without user namespaces either, it says what is missing, and makes nothing", () => {
      const forbid = 'echo 0 >/proc/sys/user/max_user_namespaces; exec setpriv --bounding-set=-sys_admin "$@"';
      const words = rig.words("a", ["--uid", "0", "--gid", "0"]);
      const { status, stderr } = rig.run(as(["unshare", "-U", "-r", "sh", "-c", forbid, "sh", ...words]));
      assert.equal(status, 1);
      assert.match(
        stderr,
        /^vmlet-jailer: needs root's rights, or a user namespace, which the host does not allow \(.*\): .*\n$/,
      );
      assert.deepEqual(readdirSync(rig.base), []);
    });
  });
});
