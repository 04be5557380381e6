// Needs: root, podman, virtiofsd, a /dev/kvm on which guests run, a built program, busybox. Containers of podman as VMs, with the
// configuration that `vmlet oci install podman` writes.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { isRoot } from "../../bench/ladder/detect.js";
import { findProgram } from "../../vmm/host/programs.js";
import { VIRTIOFSD } from "../../vmm/virtio/backends/virtiofsd-command.js";
import { countBoot } from "../helpers/booted.js";
import { busyboxTree, whyNoBusybox } from "../helpers/busybox-image.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { skip } from "../helpers/skip.js";

/** Of a boot on a host that is busy with other tests. */
const LIMIT_MS = 240_000;
const IMAGE = "vmlet-oci-podman:1";
/** Below any hard limit that a host sets. */
const ULIMITS = ["--ulimit", "nofile=1024:1024", "--ulimit", "nproc=1024:1024"];

function whyNoPodman(): string | undefined {
  if (!isRoot()) return "podman needs root here: rootless containers cannot be VMs";
  const missing = ["podman", "conmon"].filter((name) => findProgram(name) === undefined);
  if (missing.length > 0) return `not installed: ${missing.join(", ")} (Debian: podman)`;
  return existsSync(VIRTIOFSD) ? undefined : "virtiofsd is not installed";
}

describe("oci runtime with podman", function () {
  this.timeout(LIMIT_MS);
  let folder = "";

  const podman = (args: readonly string[], input: string | Buffer = "") => {
    const flags = [
      ...["--root", join(folder, "data"), "--runroot", join(folder, "run"), "--tmpdir", join(folder, "tmp")],
      ...["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", "vmlet"],
    ];
    const { status, stdout, stderr } = spawnSync("podman", [...flags, ...args], {
      input,
      timeout: LIMIT_MS,
      encoding: "latin1",
      env: { ...process.env, CONTAINERS_CONF: join(folder, "containers.conf") },
    });
    return { status, stdout, stderr };
  };
  const run = (options: readonly string[], command: readonly string[], input?: string | Buffer) =>
    podman(["run", "--rm", "--network", "none", ...ULIMITS, ...options, IMAGE, ...command], input);

  before(function () {
    const why = whyNoKvm() ?? whyNoPodman() ?? whyNoBusybox();
    if (why !== undefined) return skip(this, why);
    folder = mkdtempSync(join(tmpdir(), "vmlet-podman-"));
    const config = join(folder, "containers.conf");
    const installed = spawnSync("dist/vmlet.js", ["oci", "install", "--write", "--config", config, "podman"], {
      encoding: "utf8",
      timeout: LIMIT_MS,
    });
    assert.equal(installed.status, 0, installed.stderr);
    const tree = busyboxTree(folder);
    const archive = join(folder, "image.tar");
    assert.equal(spawnSync("tar", ["-C", tree, "-cf", archive, "."], { timeout: LIMIT_MS }).status, 0);
    const imported = podman(["import", archive, IMAGE]);
    assert.equal(imported.status, 0, imported.stderr);
    countBoot();
  });

  after(() => {
    if (folder === "") return;
    podman(["rm", "--force", "--all", "--time", "0"]);
    rmSync(folder, { recursive: true, force: true });
  });

  it("output apart, input, exit codes, volumes, a terminal", () => {
    mkdirSync(join(folder, "volume"));
    writeFileSync(join(folder, "volume/file"), "of the host\n");
    const volume = join(folder, "volume");
    const script = "cat; hostname; id -u; cat /rw/file; echo new >/rw/new; echo x >/ro/no; echo err >&2; exit 3";
    const options = ["-i", "-h", "box", "-u", "1:1", "-v", `${volume}:/rw`, "-v", `${volume}:/ro:ro`];
    spawnSync("chmod", ["777", volume]);
    const { status, stdout, stderr } = run(options, ["sh", "-c", script], "in\n");
    assert.equal(stdout, "in\nbox\n1\nof the host\n");
    assert.match(stderr, /can't create \/ro\/no/);
    assert.match(stderr, /err\n/);
    assert.equal(status, 3);
    assert.equal(readFileSync(join(volume, "new"), "latin1"), "new\n");
    assert.match(run(["-t"], ["tty"]).stdout, /^\/dev\/pts\/\d+\r\n$/);
    assert.equal(run([], ["nosuch"]).status, 127);
    assert.equal(run([], ["/etc"]).status, 126);
  });

  it("what is the host's is refused with the reason", () => {
    const refused = run(["--pid", "host"], ["true"]);
    assert.match(refused.stderr, /no pid namespace: a VM has processes of its own/);
    assert.equal(refused.status, 126);
    const network = podman(["run", "--rm", "--network", "host", ...ULIMITS, IMAGE, "true"]);
    assert.match(network.stderr, /no network namespace: a VM has a network of its own/);
  });

  it("exec, logs, pause, inspect, stop and rm of one that runs; nothing is left of it", () => {
    const script = 'trap "echo term; exit 5" TERM; echo up; while :; do sleep 0.2; done';
    const begun = podman(["run", "-d", "--name", "one", "--network", "none", ...ULIMITS, IMAGE, "sh", "-c", script]);
    assert.equal(begun.status, 0, begun.stderr);
    const inside = podman(
      ["exec", "-i", "-e", "B=c", "-w", "/tmp", "one", "sh", "-c", 'cat; echo "$B"; pwd; exit 9'],
      "x\n",
    );
    assert.deepEqual([inside.stdout, inside.status], ["x\nc\n/tmp\n", 9]);
    assert.equal(podman(["exec", "one", "nosuch"]).status, 127);
    assert.equal(podman(["pause", "one"]).status, 0);
    assert.equal(podman(["inspect", "-f", "{{.State.Status}}", "one"]).stdout, "paused\n");
    assert.equal(podman(["unpause", "one"]).status, 0);
    const stopped = podman(["stop", "-t", "60", "one"]);
    assert.equal(stopped.status, 0, stopped.stderr);
    assert.equal(podman(["logs", "one"]).stdout, "up\nterm\n");
    assert.equal(podman(["inspect", "-f", "{{.State.ExitCode}}", "one"]).stdout, "5\n");
    assert.equal(podman(["rm", "one"]).status, 0);
    const id = begun.stdout.trim();
    assert.equal(readFileSync("/proc/self/mounts", "latin1").includes(id), false);
    assert.equal(existsSync(join("/run/vmlet-runtime", id)), false);
    for (const controller of readdirSync("/sys/fs/cgroup")) {
      assert.equal(existsSync(join("/sys/fs/cgroup", controller, "libpod_parent", `libpod-${id}`)), false, controller);
    }
    const left = spawnSync("ps", ["-eo", "args"], { encoding: "utf8", timeout: LIMIT_MS }).stdout;
    assert.equal(left.includes(id), false, "a process");
  });
});
