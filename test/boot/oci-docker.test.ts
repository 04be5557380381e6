// Needs: root, Docker's packages, virtiofsd, a /dev/kvm on which guests run, a built program, busybox. Containers of a real Docker
// engine as VMs: what its commands do and say, and that nothing is left behind.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { countBoot } from "../helpers/booted.js";
import { busyboxTree, whyNoBusybox } from "../helpers/busybox-image.js";
import { openDocker, whyNoDocker, type DockerHost } from "../helpers/docker-host.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { skip } from "../helpers/skip.js";

/** Of a boot on a host that is busy with other tests. */
const LIMIT_MS = 240_000;
const RUNTIME = resolve("dist/vmlet-runtime.js");
const IMAGE = "vmlet-oci:1";

interface Answer {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

describe("oci runtime with Docker", function () {
  this.timeout(LIMIT_MS);
  let docker: DockerHost | undefined;
  let folder = "";

  const call = (args: readonly string[], input: string | Buffer = ""): Answer => {
    const [program = "", ...client] = docker?.client ?? [];
    const { status, stdout, stderr } = spawnSync(program, [...client, ...args], {
      input,
      timeout: LIMIT_MS,
      encoding: "latin1",
    });
    return { status, stdout, stderr };
  };
  const run = (options: readonly string[], command: readonly string[], input?: string | Buffer): Answer =>
    call(["run", "--rm", "--runtime", "vmlet", "--network", "none", ...options, IMAGE, ...command], input);

  before(async function () {
    const why =
      whyNoKvm() ??
      whyNoDocker() ??
      whyNoBusybox() ??
      (existsSync("/usr/lib/qemu/virtiofsd") ? undefined : "virtiofsd is not installed");
    if (why !== undefined) return skip(this, why);
    folder = mkdtempSync(join(tmpdir(), "vmlet-oci-"));
    mkdirSync(join(folder, "volume"));
    writeFileSync(join(folder, "volume/file"), "of the host\n");
    docker = await openDocker(["--add-runtime", `vmlet=${RUNTIME}`]);
    docker.importTree(busyboxTree(folder), IMAGE);
    countBoot();
  });

  after(async () => {
    await docker?.close();
    if (folder !== "") rmSync(folder, { recursive: true });
  });

  it("output apart, exit code, user, variables, working directory, host name, volumes", () => {
    const script =
      'uname -n; id -u; id -g; echo "$A"; pwd; cat /data/file; echo made >/data/new; echo x >/kept/no; ' +
      "grep CapEff /proc/self/status; umask; grep Seccomp: /proc/self/status; mkdir /tmp/denied; ls /dev; cat /etc/hostname; echo err >&2; exit 3";
    const volume = join(folder, "volume");
    const options = ["-u", "1000:1001", "-e", "A=a b", "-w", "/made/here", "-h", "box", "--read-only"];
    writeFileSync(join(volume, "new"), "");
    spawnSync("chmod", ["666", join(volume, "new")]);
    const profile = join(folder, "seccomp.json");
    const denied = { names: ["mkdir", "mkdirat"], action: "SCMP_ACT_ERRNO", errnoRet: 28 };
    writeFileSync(profile, JSON.stringify({ defaultAction: "SCMP_ACT_ALLOW", syscalls: [denied] }));
    const { status, stdout, stderr } = run(
      ["--security-opt", `seccomp=${profile}`, ...options, "-v", `${volume}:/data`, "-v", `${volume}:/kept:ro`],
      ["sh", "-c", script],
    );
    assert.deepEqual(stdout.split("\n").slice(0, 6), ["box", "1000", "1001", "a b", "/made/here", "of the host"]);
    assert.match(stdout, /CapEff:\t0000000000000000\n0022\nSeccomp:\t2\n/);
    assert.match(stdout, /\nnull\n(?:.*\n)*urandom\n/);
    assert.match(stdout, /\nbox\n$/);
    assert.match(stderr, /can't create \/kept\/no: (Read-only file system|Permission denied)/);
    assert.match(stderr, /mkdir: can't create directory '\/tmp\/denied': No space left on device\n/);
    assert.match(stderr, /err\n$/);
    assert.equal(readFileSync(join(volume, "new"), "latin1"), "made\n");
    assert.equal(status, 3);
  });

  it("standard input comes as it is, with its end; a terminal is one", () => {
    const bytes = Buffer.concat([randomBytes(200_000), Buffer.from([0, 3, 4, 10, 13, 255])]);
    const { status, stdout } = run(["-i"], ["cat"], bytes);
    assert.equal(status, 0);
    assert.ok(Buffer.from(stdout, "latin1").equals(bytes));
    const terminal = run(["-t"], ["sh", "-c", "tty; stty -a | head -1; test -t 2 && echo yes"]);
    assert.match(terminal.stdout, /^\/dev\/pts\/\d+\r\nspeed .*\r\nyes\r\n$/);
  });

  it("a program that is not there, cannot be run, or is no program has Docker's exit codes", () => {
    for (const [program, expected, words] of [
      ["nosuch", 127, /executable file not found in \$PATH/],
      ["/bin/nosuch", 127, /no such file or directory/],
      ["/etc", 126, /permission denied/],
    ] as const) {
      const { status, stderr } = run([], [program]);
      assert.match(stderr, words);
      assert.equal(status, expected, program);
    }
    assert.equal(run(["--network", "host"], ["true"]).status, 125);
  });

  it("exec, logs, pause, top, stats, stop, kill and rm work on one that runs; a limit is the VM's size", () => {
    const script = 'trap "echo term; exit 5" TERM; echo up; while :; do sleep 0.2; done';
    const begun = call([
      "run",
      "-d",
      "--name",
      "one",
      "--runtime",
      "vmlet",
      "--network",
      "none",
      IMAGE,
      "sh",
      "-c",
      script,
    ]);
    assert.equal(begun.status, 0, begun.stderr);
    const inside = call(
      [
        "exec",
        "-i",
        "-e",
        "B=c",
        "one",
        "sh",
        "-c",
        'cat; echo "$B"; grep -c "Seccomp:.2" /proc/self/status; ps | grep -q "[t]rap" && echo found; exit 9',
      ],
      "in\n",
    );
    assert.deepEqual([inside.stdout, inside.status], ["in\nc\n1\nfound\n", 9]);
    assert.equal(call(["exec", "one", "nosuch"]).status, 126);
    assert.equal(call(["pause", "one"]).status, 0);
    assert.equal(call(["inspect", "-f", "{{.State.Status}}", "one"]).stdout, "paused\n");
    assert.notEqual(call(["exec", "one", "true"]).status, 0);
    assert.equal(call(["unpause", "one"]).status, 0);
    assert.match(call(["top", "one"]).stdout, /vmlet-runtime.js monitor/);
    assert.match(call(["stats", "--no-stream", "--format", "{{.MemUsage}}", "one"]).stdout, /MiB \//);
    assert.equal(call(["stop", "-t", "20", "one"]).status, 0);
    assert.equal(call(["logs", "one"]).stdout, "up\nterm\n");
    assert.equal(call(["inspect", "-f", "{{.State.ExitCode}}", "one"]).stdout, "5\n");
    assert.equal(call(["start", "one"]).status, 0);
    assert.equal(call(["kill", "one"]).status, 0);
    assert.equal(call(["wait", "one"]).stdout, "137\n");
    assert.equal(call(["rm", "-f", "one"]).status, 0);
  });

  it("a network of the engine's: the same interface as a container of runc's, names, traffic both ways; none has none", () => {
    assert.equal(run([], ["ls", "/sys/class/net"]).stdout, "lo\n");
    const made = call(["network", "create", "--subnet", "198.18.251.0/24", "inner"]);
    assert.equal(made.status, 0, made.stderr);
    const options = ["--network", "inner"];
    const serve = "while :; do echo from the server | nc -l -p 7 -w 60; done";
    const words = ["-d", "--name", "server", "--runtime", "vmlet", "--ip", "198.18.251.9", ...options, IMAGE];
    const begun = call(["run", ...words, "sh", "-c", serve]);
    assert.equal(begun.status, 0, begun.stderr);
    try {
      const look =
        "cat /sys/class/net/eth0/address /sys/class/net/eth0/mtu; ip -4 -o addr show dev eth0 scope global; ip route";
      const seen = call(["exec", "server", "sh", "-c", look]).stdout;
      assert.match(seen, /^02:42:c6:12:fb:09\n1500\n/);
      assert.match(seen, /inet 198\.18\.251\.9\/24 brd 198\.18\.251\.255/);
      assert.match(seen, /default via 198\.18\.251\.1 dev eth0/);
      // Whoever listens may still have to begin again.
      const ask =
        "nslookup server; for i in 1 2 3 4 5 6 7 8 9; do nc -w 20 198.18.251.9 7 </dev/null && break; sleep 1; done";
      const client = (runtime: string): string =>
        call(["run", "--rm", "--runtime", runtime, "--network", "inner", IMAGE, "sh", "-c", ask]).stdout;
      assert.match(client("runc"), /from the server/);
      const answer = client("vmlet");
      assert.match(answer, /Server:\s+169\.254\.77\.1\n/);
      assert.match(answer, /Address: 198\.18\.251\.9\n/);
      assert.match(answer, /from the server/);
      const shared = call(["run", "--rm", "--runtime", "vmlet", "--network", "container:server", IMAGE, "true"]);
      assert.equal(shared.status, 125, shared.stderr);
    } finally {
      call(["rm", "-f", "server"]);
      call(["network", "rm", "inner"]);
    }
  });

  it("killed monitors are ends of containers, and nothing is left of any", async () => {
    const begun = call([
      "run",
      "-d",
      "--name",
      "two",
      "--runtime",
      "vmlet",
      "--network",
      "none",
      IMAGE,
      "sleep",
      "1000",
    ]);
    assert.equal(begun.status, 0, begun.stderr);
    const pid = Number(call(["inspect", "-f", "{{.State.Pid}}", "two"]).stdout);
    process.kill(pid, "SIGKILL");
    assert.equal(call(["wait", "two"]).stdout, "137\n");
    assert.equal(call(["rm", "two"]).status, 0);
    const id = begun.stdout.trim();
    assert.equal(readFileSync("/proc/self/mounts", "latin1").includes(id), false);
    for (const controller of readdirSync("/sys/fs/cgroup")) {
      assert.equal(existsSync(join("/sys/fs/cgroup", controller, "docker", id)), false, controller);
    }
    const left = spawn("sh", ["-c", `ps -eo args | grep -c '[v]mlet-runtime.js monitor.*${id}'`], { stdio: "pipe" });
    let said = "";
    left.stdout.setEncoding("utf8").on("data", (text: string) => (said += text));
    await new Promise((done) => left.once("close", done));
    assert.equal(said, "0\n");
  });
});
