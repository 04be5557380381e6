// Needs: root, Docker, mmdebstrap with Debian's archive (or the cache of it), npm's registry, the built guest, a
// /dev/kvm of any kind. The image of the Dockerfile, as an ordinary user starts it.
import assert from "node:assert/strict";
import { chownSync, existsSync, mkdirSync } from "node:fs";
import { spawnSync } from "node:child_process";
import { join } from "node:path";
import type { Diagnosis } from "../../vmm/cli/doctor.js";
import { findProgram } from "../../vmm/host/programs.js";
import { timeLimit } from "../../vmm/host/time-limit.js";
import { countBoot } from "../helpers/booted.js";
import {
  buildContext,
  importDebianWithNode,
  openDocker,
  whyNoDocker,
  type DockerHost,
} from "../helpers/docker-host.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { skip } from "../helpers/skip.js";

/** Layers are whole copies with the storage driver that works everywhere. */
const LIMIT_MS = 600_000;
const BASE = "vmlet-base:1";
const IMAGE = "vmlet-image:1";
const GROUP = 1234;
const NO_NETWORK = /ENOTFOUND|EAI_AGAIN|ETIMEDOUT|ECONNREFUSED|ECONNRESET|Temporary failure resolving/;

describe("boot: the container image", function () {
  this.timeout(LIMIT_MS);
  let docker: DockerHost | undefined;
  let device = "";

  function client(...argv: string[]): { status: number | null; stdout: string; stderr: string } {
    const [file = "", ...words] = [...(docker?.client ?? []), ...argv];
    // BuildKit is not part of Debian's package.
    const env = { ...process.env, DOCKER_BUILDKIT: "0" };
    return spawnSync(file, words, { encoding: "utf8", env, timeout: timeLimit("a command of Docker", LIMIT_MS) });
  }

  before(async function () {
    const missing = findProgram("mmdebstrap") === undefined ? "mmdebstrap is not installed" : undefined;
    const unbuilt = ["dist/vmlet.js", "guest/out/default/vmlinux", "guest/out/fast/vmlinux"].find(
      (f) => !existsSync(f),
    );
    const reason =
      whyNoKvm() ?? whyNoDocker() ?? missing ?? (unbuilt === undefined ? undefined : `${unbuilt} is not built`);
    if (reason !== undefined) skip(this, reason);
    docker = await openDocker();
    try {
      importDebianWithNode(docker, BASE);
    } catch (error) {
      skip(this, `no Debian to start from: ${error instanceof Error ? error.message : String(error)}`);
    }
    const built = client(
      "build",
      "--network",
      "host",
      "--build-arg",
      `BASE=${BASE}`,
      "--tag",
      IMAGE,
      buildContext(docker),
    );
    if (built.status !== 0 && NO_NETWORK.test(built.stdout + built.stderr))
      skip(this, "npm's registry is out of reach");
    assert.equal(built.status, 0, built.stdout + built.stderr);
    // A device as hosts with a group "kvm" have it; the real one stays as it is.
    mkdirSync(join(docker.folder, "device"));
    device = join(docker.folder, "device/kvm");
    assert.equal(spawnSync("mknod", ["-m", "660", device, "c", "10", "232"]).status, 0);
    chownSync(device, 0, GROUP);
  });
  after(async () => {
    await docker?.close();
  });

  it("boots a guest with the device and its group, without a right beyond that", () => {
    const confined = ["--network", "none", "--cap-drop", "ALL", "--read-only", "--tmpfs", "/var/tmp"];
    const rights = [
      "--security-opt",
      "no-new-privileges",
      "--device",
      `${device}:/dev/kvm`,
      "--group-add",
      String(GROUP),
    ];
    const command = ["boot", "--accel", "kvm", "--quiet", "--", "sh", "-c", "echo from the guest; exit 5"];
    const { status, stdout, stderr } = client("run", "--rm", ...confined, ...rights, IMAGE, ...command);
    assert.equal(stdout, "from the guest\n", stderr);
    assert.equal(status, 5);
    countBoot();
  });

  it("is an ordinary user's, and says what it lacks", () => {
    const { stdout: user } = client("run", "--rm", "--network", "none", "--entrypoint", "id", IMAGE, "-u");
    assert.equal(user, "1000\n");
    const argv = ["--network", "none", "--device", `${device}:/dev/kvm`, IMAGE, "doctor", "--json"];
    const { status, stdout } = client("run", "--rm", ...argv);
    const diagnosis = JSON.parse(stdout) as Diagnosis;
    assert.equal(status, diagnosis.exit_code);
    const found = diagnosis.findings.find(({ code }) => code === "device-group");
    assert.match(found?.cure ?? "", new RegExp(`--group-add ${String(GROUP)}`));
    assert.equal(diagnosis.findings.find(({ code }) => code === "guest")?.status, "ok");
  });
});
