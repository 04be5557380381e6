// Needs: nothing.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { DetachKeys } from "../../vmm/cli/vms/detach-keys.js";
import { DOCKER_FLAGS } from "../../vmm/cli/vms/docker-options.js";
import { variables } from "../../vmm/cli/vms/file-lines.js";
import { parsePorts, parseRun, parseVolume, RUN_FLAGS } from "../../vmm/cli/vms/run-arguments.js";
import { splitAtCommand } from "../../vmm/cli/vms/split-at-command.js";
import { UsageError } from "../../vmm/cli/usage-error.js";

const usage = (words: string[], message: RegExp): void => {
  assert.throws(
    () => parseRun(words),
    (error: unknown) => error instanceof UsageError && message.test(error.message),
    words.join(" "),
  );
};

/** What `docker run --help` of version 28 lists. */
const DOCKERS = (
  "add-host annotation attach blkio-weight blkio-weight-device cap-add cap-drop cgroup-parent cgroupns cidfile cpu-period " +
  "cpu-quota cpu-rt-period cpu-rt-runtime cpu-shares cpus cpuset-cpus cpuset-mems detach detach-keys device " +
  "device-cgroup-rule device-read-bps device-read-iops device-write-bps device-write-iops disable-content-trust dns " +
  "dns-option dns-search domainname entrypoint env env-file expose gpus group-add health-cmd health-interval health-retries " +
  "health-start-interval health-start-period health-timeout help hostname init interactive ip ip6 ipc isolation label " +
  "label-file link link-local-ip log-driver log-opt mac-address memory memory-reservation memory-swap memory-swappiness " +
  "mount name network network-alias no-healthcheck oom-kill-disable oom-score-adj pid pids-limit platform privileged " +
  "publish publish-all pull quiet read-only restart rm runtime security-opt shm-size sig-proxy stop-signal stop-timeout " +
  "storage-opt sysctl tmpfs tty ulimit use-api-socket user userns uts volume volume-driver volumes-from workdir"
).split(" ");

describe("run: arguments", () => {
  const splits: readonly (readonly [string[], string[], string[]])[] = [
    [["-it", "image", "-x"], ["-it"], ["image", "-x"]],
    [
      ["-e", "A=1", "--env", "B=2", "image", "--", "ls"],
      ["-e", "A=1", "--env", "B=2"],
      ["image", "--", "ls"],
    ],
    [["--env=A=1", "image"], ["--env=A=1"], ["image"]],
    [["-ite", "A=1", "image"], ["-ite", "A=1"], ["image"]],
    [["-m512", "image"], ["-m512"], ["image"]],
    [["--rm", "--", "image", "-v"], ["--rm"], ["image", "-v"]],
    [["-"], [], ["-"]],
    [["--name"], ["--name"], []],
    [[], [], []],
  ];
  for (const [argv, args, rest] of splits) {
    it(`options end before the command: ${argv.join(" ")}`, () => {
      const [gotArgs, gotRest] = splitAtCommand(argv, RUN_FLAGS);
      assert.deepEqual([gotArgs, gotRest], [args, rest]);
    });
  }

  it("what follows the image is the command's, options and all", () => {
    const { vm, command, isInteractive, hasTerminal } = parseRun([
      "-it",
      "busybox",
      "ls",
      "--all",
      "-t",
      "--name",
      "x",
    ]);
    assert.equal(vm.image, "busybox");
    assert.equal(vm.name, undefined);
    assert.deepEqual(command, ["ls", "--all", "-t", "--name", "x"]);
    assert.ok(isInteractive && hasTerminal);
  });

  it("with a root of its own there is no image, and a -- may stand before the command", () => {
    for (const words of [
      ["true", "-x"],
      ["--", "true", "-x"],
    ]) {
      const { vm, command } = parseRun(["--rootfs", "/srv/root", ...words]);
      assert.equal(vm.image, undefined);
      assert.equal(vm.rootfs, "/srv/root");
      assert.deepEqual(command, ["true", "-x"]);
    }
  });

  it("an entrypoint is replaced, or taken away", () => {
    assert.deepEqual(parseRun(["--entrypoint", "/bin/sh", "image"]).entrypoint, ["/bin/sh"]);
    assert.deepEqual(parseRun(["--entrypoint=", "image", "ls"]).entrypoint, []);
    assert.equal(parseRun(["image"]).entrypoint, undefined);
  });

  it("sizes, times, ports, volumes and networks are read as Docker reads them", () => {
    const { vm } = parseRun([
      ...["-m", "1G", "--cpus", "2", "--timeout", "1.5m", "-p", "8080:80", "-p", "0.0.0.0:53:5353/udp"],
      ...["-v", "/tmp:/data:ro", "--tmpfs", "/run:size=1m", "--network", "user", "-h", "box", "-l", "a=b=c", "image"],
    ]);
    assert.equal(vm.memoryMib, 1024);
    assert.equal(vm.cpus, 2);
    assert.equal(vm.timeoutMs, 90_000);
    assert.deepEqual(vm.ports, [
      { hostAddress: undefined, hostPort: 8080, guestPort: 80, protocol: undefined },
      { hostAddress: "0.0.0.0", hostPort: 53, guestPort: 5353, protocol: "udp" },
    ]);
    assert.deepEqual(vm.volumes, [{ hostPath: "/tmp", guestPath: "/data", readonly: true }]);
    assert.deepEqual(vm.tmpfs, [{ guestPath: "/run", options: "size=1m" }]);
    assert.equal(vm.network, "user");
    assert.equal(vm.hostName, "box");
    assert.deepEqual(vm.labels, { a: "b=c" });
  });

  it("what cannot be read names the option, its value and what is expected", () => {
    usage([], /no IMAGE is given/);
    usage([""], /the IMAGE is an empty word/);
    usage(["--memory", "lots", "image"], /--memory "lots"/);
    usage(["-m", "1k", "image"], /--memory "1k" is not a whole number of MiB/);
    usage(["--cpus", "1.5", "image"], /--cpus "1.5": a VM has whole vCPUs/);
    usage(["--timeout", "0", "image"], /--timeout "0" is not a time/);
    usage(["--timeout", "soon", "image"], /--timeout "soon"/);
    usage(["--pull", "sometimes", "image"], /--pull "sometimes" is not one of missing, always, never/);
    usage(["--accel", "lab-intel", "image"], /--accel "lab-intel" is not one of auto, kvm, lab/);
    usage(["--network", "host", "image"], /network of its own/);
    usage(["--network", "bridge", "image"], /--network "bridge" is not none, user, tap or tap=NAME/);
    usage(["-p", "web", "image"], /--publish "web" is not \[IPV4ADDRESS:\]HOSTPORT:GUESTPORT/);
    usage(["-p", "[::1]:80:80", "image"], /IPV4ADDRESS/);
    usage(["-p", "8000-8002:80-81", "image"], /"8000-8002:80-81": the ranges are not of one length/);
    usage(["-p", "8002-8000:82-80", "image"], /or end before they begin/);
    usage(["-v", "data:/data", "image"], /volumes have no names here; write a path: \.\/data/);
    usage(["-v", "/a:/b:rx", "image"], /--volume "\/a:\/b:rx"/);
    usage(["-v", "/a", "image"], /--volume "\/a" is not HOST:GUEST/);
    usage(["--unknown", "image"], /unknown/i);
    usage(["-it", "--detach-keys", "ctrl-p,zz", "image"], /"zz" is no key/);
    usage(["-e", "=x", "image"], /--env "=x"/);
  });

  it("a port and a volume by themselves", () => {
    assert.equal(parsePorts("127.0.0.1:1:2/tcp")[0]?.protocol, "tcp");
    const ends = (text: string): unknown[] =>
      parsePorts(text).map(({ hostAddress, hostPort, guestPort }) => [hostAddress, hostPort, guestPort]);
    assert.deepEqual(ends("80"), [[undefined, 0, 80]]);
    assert.deepEqual(ends("1.2.3.4::80"), [["1.2.3.4", 0, 80]]);
    assert.deepEqual(ends("0:80"), [[undefined, 0, 80]]);
    assert.deepEqual(ends("8000-8001:80-81/udp"), [
      [undefined, 8000, 80],
      [undefined, 8001, 81],
    ]);
    assert.deepEqual(ends("80-81"), [
      [undefined, 0, 80],
      [undefined, 0, 81],
    ]);
    assert.equal(parseVolume("./a:/b").readonly, false);
    for (const wrong of [
      "1:2:3:4",
      "123456:1",
      "",
      ":",
      "1:",
      "1:2/sctp",
      "1:2/udp/tcp",
      "-1:2",
      "1-:2",
      "1:2-",
      "1.1:2",
    ]) {
      assert.throws(() => parsePorts(wrong), UsageError, wrong);
    }
  });

  it("variables: files first, words win, a name alone is this process's own", () => {
    const folder = mkdtempSync(join(tmpdir(), "vmlet-env-"));
    process.env["VMLET_TEST_OWN"] = "own value";
    try {
      const file = join(folder, "env");
      writeFileSync(file, "# comment\r\nA=file\n\n  B= spaces stay \nVMLET_TEST_OWN\nGONE_NOWHERE\nC=x=y\n");
      assert.deepEqual(variables([file], ["A=word", "D="]), {
        A: "word",
        B: " spaces stay ",
        VMLET_TEST_OWN: "own value",
        C: "x=y",
        D: "",
      });
      assert.throws(() => variables([join(folder, "none")], []), /--env-file .*none: cannot be read/);
      assert.deepEqual(variables([], ["A B=1", "C=\u00e9\n2", "D= "]), { "A B": "1", C: "\u00e9\n2", D: " " });
      const wrong: readonly (readonly [string | Buffer, RegExp])[] = [
        ["A=1\n=x\n", /env: line 2 "=x" is not NAME=VALUE or NAME/],
        ["A=1\n\nC = 3\n", /env: line 3 "C = 3": the name of a variable has no blanks/],
        [Buffer.from([65, 61, 0xc3, 10]), /env is not UTF-8/],
        ["A=1\n".repeat(300_000), /env has 1200000 bytes; the limit is 1048576/],
      ];
      for (const [content, message] of wrong) {
        writeFileSync(file, content);
        assert.throws(() => variables([file], []), message);
      }
      writeFileSync(file, "\ufeffA=1\r\n   \n\t# no\r\n  B=# yes\nC=last");
      assert.deepEqual(variables([file], []), { A: "1", B: "# yes", C: "last" });
      writeFileSync(file, "");
      assert.deepEqual(variables([file], []), {});
    } finally {
      delete process.env["VMLET_TEST_OWN"];
      rmSync(folder, { recursive: true });
    }
  });
});

describe("run: Docker's options", () => {
  it("names, limits and mounts are read as Docker reads them", () => {
    const { vm, stopTimeoutMs, idFile } = parseRun([
      ...[
        "--add-host",
        "db:10.0.0.5",
        "--add-host=v6:::1",
        "--add-host=x=[::2]",
        "--dns",
        "9.9.9.9",
        "--dns-search",
        "a.b",
      ],
      ...["--dns-option", "ndots:2", "--dns-opt", "rotate", "--ulimit", "nofile=10:20", "--ulimit", "core=-1"],
      ...["--group-add", "20", "--shm-size", "64mb", "--sysctl", "a.b=c=d", "--cidfile", "id", "--stop-timeout", "3"],
      ...["--mount", "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700", "--mount", "type=bind,src=/tmp,target=/m,ro"],
      ...[
        "--mount=type=bind,source=/tmp,destination=/w,readonly=false",
        "-P",
        "--expose",
        "53/udp",
        "--net",
        "none",
        "i",
      ],
    ]);
    assert.deepEqual(vm.hosts, { db: "10.0.0.5", v6: "::1", x: "::2" });
    assert.deepEqual([vm.dns, vm.dnsSearch, vm.dnsOptions], [["9.9.9.9"], ["a.b"], ["ndots:2", "rotate"]]);
    const core = { soft: "unlimited", hard: "unlimited" };
    assert.deepEqual(vm.limits, { nofile: { soft: 10, hard: 20 }, core });
    assert.deepEqual([vm.groups, vm.shmBytes, vm.sysctls], [[20], 64 * 2 ** 20, { "a.b": "c=d" }]);
    assert.deepEqual(vm.tmpfs, [{ guestPath: "/t", options: "size=1048576,mode=700" }]);
    assert.deepEqual(vm.volumes, [
      { hostPath: "/tmp", guestPath: "/m", readonly: true },
      { hostPath: "/tmp", guestPath: "/w", readonly: false },
    ]);
    assert.deepEqual([vm.publishAll, vm.expose, vm.network], [true, ["53/udp"], "none"]);
    assert.deepEqual([stopTimeoutMs, idFile], [3000, "id"]);
  });

  it("memory is MiB, or has a unit; what would be too much of MiB is bytes, as Docker means it", () => {
    for (const [text, mib] of [
      ["512", 512],
      ["512m", 512],
      ["512MiB", 512],
      ["1g", 1024],
      ["536870912", 512],
      ["536870912b", 512],
    ] as const) {
      assert.equal(parseRun(["-m", text, "image"]).vm.memoryMib, mib, text);
    }
    assert.equal(parseRun(["--cpus", "2.0", "image"]).vm.cpus, 2);
  });

  it("a switch may be written out, and the entrypoint be empty in one word or two", () => {
    const { autoRemove, isInteractive, vm } = parseRun([
      "--rm=true",
      "-i",
      "--interactive=false",
      "--read-only=1",
      "image",
    ]);
    assert.deepEqual([autoRemove, isInteractive, vm.readonly], [true, true, true]);
    assert.deepEqual(parseRun(["--entrypoint", "", "image", "ls"]).entrypoint, []);
    assert.deepEqual(parseRun(["--entrypoint", "", "image", "ls"]).command, ["ls"]);
    usage(["--init=false", "image"], /a guest always has an init/);
    usage(["--sig-proxy=false", "image"], /a signal is always the program's/);
  });

  it("what a VM has anyway is taken", () => {
    const words = [
      "--privileged",
      "--cap-add",
      "ALL",
      "--restart",
      "no",
      "--platform",
      "linux/amd64",
      "--no-healthcheck",
    ];
    assert.equal(parseRun([...words, "--security-opt=seccomp=unconfined", "image"]).vm.image, "image");
  });

  it("every other option of Docker's is refused by one line that says what to do, whatever its value", () => {
    for (const [name, flag] of Object.entries(DOCKER_FLAGS)) {
      const word = flag.type === "boolean" ? [`--${name}`] : [`--${name}`, "value"];
      const isTaken = ["cap-add", "privileged", "no-healthcheck", "disable-content-trust", "sig-proxy"].includes(name);
      if (isTaken) assert.equal(parseRun([...word, "image"]).vm.image, "image");
      else usage([...word, "image"], new RegExp(`^vmlet run: (?:there is no )?--${name}(?: "value")?: [^\n]{20,}$`));
    }
    usage(["-a", "stdout", "image"], /there is no --attach/);
    usage(["--restart=always", "image"], /systemd/);
    usage(["--platform", "linux/arm64", "image"], /linux\/amd64/);
  });

  it("each of Docker's options is known", () => {
    const known = { ...RUN_FLAGS, ...DOCKER_FLAGS };
    for (const name of DOCKERS) assert.ok(Object.hasOwn(known, name), name);
  });

  it("what cannot be read is refused with its value", () => {
    usage(["--add-host", "x", "i"], /--add-host "x" is not NAME:ADDRESS/);
    usage(["--add-host", "x:host-gateway", "i"], /gateway/);
    usage(["--ulimit", "nofile", "i"], /--ulimit "nofile" is not NAME=SOFT/);
    usage(["--group-add", "video", "i"], /--group-add "video" is not the number of a group/);
    usage(["--sysctl", "x", "i"], /--sysctl "x" is not NAME=VALUE/);
    usage(["--mount", "src=a,dst=/b", "i"], /volumes have no names here/);
    usage(["--mount", "type=bind,src=/a", "i"], /--mount .* is not type=bind/);
    usage(["--mount", "type=bind,src=/a,dst=/b,target=/c", "i"], /target is given twice/);
    usage(["--mount", "type=tmpfs,dst=/b,bind-propagation=rslave", "i"], /there is no bind-propagation/);
    usage(["--mount", "type=constructor,dst=/b", "i"], /there is no type=constructor/);
    usage(["--stop-timeout", "99999999", "i"], /the limit is 2000000 seconds/);
  });
});

describe("run: detach keys", () => {
  const typed = (keys: DetachKeys, text: string): { passed: string; isDetached: boolean } => {
    const { passed, isDetached } = keys.take(Buffer.from(text, "latin1"));
    return { passed: Buffer.from(passed).toString("latin1"), isDetached };
  };

  it("ctrl-p ctrl-q leaves, and everything else goes to the program, in order", () => {
    const keys = new DetachKeys();
    assert.deepEqual(typed(keys, "ab\x10"), { passed: "ab", isDetached: false });
    assert.deepEqual(typed(keys, "c"), { passed: "\x10c", isDetached: false });
    assert.deepEqual(typed(keys, "\x10\x10x"), { passed: "\x10\x10x", isDetached: false });
    assert.deepEqual(typed(keys, "x\x10\x11never"), { passed: "x", isDetached: true });
  });

  it("other keys can be given", () => {
    assert.ok(typed(new DetachKeys("a,b,ctrl-c"), "ab\x03").isDetached);
    assert.throws(() => new DetachKeys("ctrl-"), /is no key/);
    assert.throws(() => new DetachKeys("alt-x"), /"alt-x" is no key/);
  });
});
