// Needs: root, Docker's packages, virtiofsd, a /dev/kvm on which guests run, a built program, busybox. Containers of a real Docker
// engine as VMs: what its commands do and say, and that nothing is left behind.
import assert from "node:assert/strict";
import { spawn, spawnSync } from "node:child_process";
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { countBoot } from "../helpers/booted.js";
import { busyboxTree, whyNoBusybox } from "../helpers/busybox-image.js";
import { openDocker, whyNoDocker, type DockerHost } from "../helpers/docker-host.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { PseudoTerminal, whyNoTerminal } from "../helpers/pseudo-terminal.js";
import { skip } from "../helpers/skip.js";

/** Of a boot on a host that is busy with other tests. */
const LIMIT_MS = 240_000;
const IMAGE = "vmlet-oci:1";
/** Fewer, and runc itself has not the threads that its `exec` begins with: it is killed, and says nothing. */
const TASKS = "20";

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
    // As the documentation says it is installed.
    const config = join(folder, "daemon.json");
    const installed = spawnSync("dist/vmlet.js", ["oci", "install", "--write", "--config", config, "docker"], {
      encoding: "utf8",
      timeout: LIMIT_MS,
    });
    assert.equal(installed.status, 0, installed.stderr);
    assert.equal(installed.stderr, "");
    docker = await openDocker(["--config-file", config]);
    const tree = busyboxTree(folder);
    writeFileSync(join(tree, "etc/gone"), "");
    docker.importTree(tree, IMAGE);
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
  });

  it("what is the host's is refused in one line with the reason, before there is a VM", () => {
    for (const [options, words] of [
      [["--network", "host"], /is the host's network: a VM has a network of its own/],
      [["--network", "none", "--pid", "host"], /no pid namespace: a VM has processes of its own/],
      [["--network", "none", "--ipc", "host"], /no ipc namespace: memory and queues/],
      [
        ["--network", "none", "--device", "/dev/kvm"],
        /device \/dev\/kvm \(c 10:232\): a VM does not have its host's devices/,
      ],
      [["--network", "none", "-v", "/dev/kvm:/dev/kvm"], /\/dev\/kvm is a device of the host's/],
    ] as const) {
      const { status, stderr } = call(["run", "--rm", "--runtime", "vmlet", ...options, IMAGE, "true"]);
      assert.match(stderr, words);
      assert.equal(
        stderr
          .trim()
          .split("\n")
          .filter((line) => line.includes("OCI runtime")).length,
        1,
        stderr,
      );
      assert.equal(status, 125, options.join(" "));
    }
  });

  it("with the same options a container sees and leaves what one of runc's does", () => {
    const look = [
      "hostname; cat /etc/hosts /etc/resolv.conf; df -k /dev/shm /t | grep -v Files; ulimit -Hn; id; pwd; echo $X; umask; tty",
      "cat /proc/sys/net/core/somaxconn /proc/self/oom_score_adj /vol/a /fromhost; grep -E 'Cap|NoNewPrivs' /proc/self/status",
      "echo b > /vol/b; echo guest > /tmp/made; mkdir -p /new/x; rm /etc/gone; kill -9 $$",
    ].join("\n");
    const seen = (["runc", "vmlet"] as const).map((runtime) => {
      const name = `as-${runtime}`;
      const options = [
        ...[
          "-d",
          "--runtime",
          runtime,
          "--name",
          name,
          "--network",
          "none",
          "--hostname",
          "box",
          "--domainname",
          "d.e",
        ],
        ...[
          "--add-host",
          "one:1.2.3.4",
          "--dns",
          "9.9.9.9",
          "--dns-search",
          "x.y",
          "--shm-size",
          "32m",
          "--tmpfs",
          "/t:size=4m",
        ],
        ...[
          "--ulimit",
          "nofile=100:200",
          "--sysctl",
          "net.core.somaxconn=77",
          "--cap-drop",
          "NET_RAW",
          "--cap-add",
          "SYS_TIME",
        ],
        ...[
          "--security-opt",
          "no-new-privileges",
          "--group-add",
          "2000",
          "--memory",
          "100m",
          "--init",
          "--pids-limit",
          "60",
          "--cpus",
          "0.9",
          "-v",
          `${name}:/vol`,
        ],
        ...["--oom-score-adj", "50", "--label", "a=b", "--env", "X=of the container"],
      ];
      const script = 'trap "exit 7" TERM; echo a > /vol/a; echo up; while :; do sleep 0.2; done';
      const begun = call(["run", ...options, IMAGE, "sh", "-c", script]);
      assert.equal(begun.status, 0, begun.stderr);
      try {
        writeFileSync(join(folder, "fromhost"), "of the host\n");
        assert.equal(call(["cp", join(folder, "fromhost"), `${name}:/fromhost`]).status, 0);
        const exec = call(["exec", "-u", "1000:1001", "-w", "/tmp", "-e", "X=1", name, "id"]);
        const { stdout, status } = call(["exec", "-w", "/tmp", "-e", "X=1", name, "sh", "-c", look]);
        // What the guest has just written is what the host copies, and what is left of it.
        const copied = call(["cp", `${name}:/tmp/made`, "-"]).stdout.slice(512, 518);
        const differs = call(["diff", name]).stdout.trim().split("\n").sort();
        assert.equal(call(["commit", name, `${name}-image`]).status, 0);
        assert.equal(call(["rename", name, `${name}-2`]).status, 0);
        assert.equal(call(["rename", `${name}-2`, name]).status, 0);
        const updates = [
          ["--cpus", "0.8"],
          ["--restart", "no"],
          ["--pids-limit", TASKS],
        ].map((words) => call(["update", ...words, name]).status);
        const larger = call(["update", "--memory", "200m", "--memory-swap", "400m", name]);
        const fork = `for i in ${"x ".repeat(Number(TASKS))}; do sleep 9 & done; echo too many`;
        const forked = call(["exec", name, "sh", "-c", fork]);
        assert.match(forked.stderr, /can't fork/, `${runtime}: ${JSON.stringify(forked)}`);
        if (runtime === "vmlet") {
          assert.match(larger.stderr, /memory limit 209715200: the VM has 100 MiB for as long as it runs/);
          assert.equal(larger.status, 1);
        }
        assert.equal(call(["stop", "-t", "60", name]).status, 0);
        const log = call(["logs", name]).stdout;
        const ended = call(["inspect", "-f", "{{.State.ExitCode}} {{.State.OOMKilled}}", name]).stdout;
        const kept = call([
          "run",
          "--rm",
          "--runtime",
          "runc",
          "--network",
          "none",
          `${name}-image`,
          "cat",
          "/tmp/made",
        ]).stdout;
        return { exec: exec.stdout, stdout, status, copied, differs, updates, forked: forked.status, ended, log, kept };
      } finally {
        call(["rm", "-f", "-v", name]);
      }
    });
    const [ofRunc, ours] = seen;
    assert.ok(ofRunc !== undefined);
    assert.match(ofRunc.stdout, /^box\n[^]*of the host\n/);
    assert.equal(ofRunc.status, 137);
    assert.deepEqual(ours, ofRunc);
  });

  it("a terminal has the client's size, and is left and come back to; health is looked after in the VM", async function () {
    const why = whyNoTerminal();
    if (why !== undefined) return skip(this, why);
    const health = ["--health-cmd", "test ! -e /sick", "--health-interval", "1s", "--health-retries", "1"];
    const options = [
      "-it",
      "--name",
      "terminal",
      "--runtime",
      "vmlet",
      "--network",
      "none",
      "--health-timeout",
      "60s",
      ...health,
    ];
    const script = "stty size; while read -r word; do stty size; echo got $word; done; exit 4";
    const terminal = await PseudoTerminal.open(30, 90);
    try {
      terminal.run([...(docker?.client ?? []), "run", ...options, IMAGE, "sh", "-c", script]);
      await terminal.until(/30 90\r\n/);
      terminal.resize(40, 100);
      terminal.type("0\n");
      for (let word = 1; !/40 100\r\n/.test(await terminal.until(/got \d+\r\n/)); word++)
        terminal.type(`${String(word)}\n`);
      // Ctrl-P Ctrl-Q
      terminal.type("\x10\x11");
      assert.equal(await terminal.ended(), 0);
      const state = (): string =>
        call(["inspect", "-f", "{{.State.Status}} {{.State.Health.Status}}", "terminal"]).stdout;
      while (state() !== "running healthy\n") await delay(500);
      assert.equal(call(["exec", "terminal", "touch", "/sick"]).status, 0);
      while (state() !== "running unhealthy\n") await delay(500);
      terminal.run([...(docker?.client ?? []), "attach", "terminal"]);
      terminal.type("again\n");
      await terminal.until(/got again\r\n/);
      terminal.type("\x04");
      assert.equal(await terminal.ended(), 4);
    } finally {
      terminal.close();
      call(["rm", "-f", "terminal"]);
    }
  });

  it("twenty at once, each with its own input and output; nothing is left of them", async () => {
    const [program = "", ...client] = docker?.client ?? [];
    const options = ["--rm", "-i", "--runtime", "vmlet", "--network", "none", "--label", "of=twenty"];
    const one = async (index: number): Promise<string> => {
      const child = spawn(
        program,
        [...client, "run", ...options, IMAGE, "sh", "-c", 'read words; printf %s "$words"; exit 6'],
        {
          timeout: LIMIT_MS,
        },
      );
      let said = "";
      for (const stream of [child.stdout, child.stderr])
        stream.setEncoding("latin1").on("data", (text: string) => (said += text));
      child.stdin.end(`of ${String(index)}`);
      const status = await new Promise((done) => child.once("close", done));
      return `${said}: ${String(status)}`;
    };
    // It has come before, as most have that come in numbers, so that its guest is kept: twenty that begin from nothing at once
    // can keep two processors of a software KVM busy with timer interrupts alone.
    for (const index of [20, 21]) assert.equal(await one(index), `of ${String(index)}: 6`);
    const indices = Array.from({ length: 20 }, (_, index) => index);
    const said = await Promise.all(indices.map(one));
    assert.deepEqual(
      said,
      indices.map((index) => `of ${String(index)}: 6`),
    );
    assert.equal(call(["ps", "-aq", "--filter", "label=of=twenty"]).stdout, "");
    assert.deepEqual(readdirSync(join(docker?.folder ?? "", "docker/data/containers")), []);
  });

  it("a program that eats all memory: 137, and the engine says that it was out of memory", () => {
    const limits = ["--memory", "64m", "--privileged", "--runtime", "vmlet", "--network", "none"];
    // It touches each page once, and not all of them, where the guest's kernel is emulated.
    const script = `cd /proc/sys/vm && echo 1 >overcommit_memory && echo 16000 >min_free_kbytes
      exec dd if=/dev/zero of=/dev/null bs=60M count=1`;
    const { status } = call(["run", "--name", "eater", ...limits, IMAGE, "sh", "-c", script]);
    try {
      assert.equal(call(["inspect", "-f", "{{.State.OOMKilled}} {{.State.ExitCode}}", "eater"]).stdout, "true 137\n");
      assert.equal(status, 137);
    } finally {
      call(["rm", "-f", "eater"]);
    }
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
