// Needs: root, virtiofsd, a /dev/kvm on which guests run, a built program, busybox. Containers that come again: they go on from
// behind their program's exec, and nobody notices but by the time.
import assert from "node:assert/strict";
import { execFileSync, spawnSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { cacheFolder } from "../../vmm/host/cache-folder.js";
import { countBoot } from "../helpers/booted.js";
import { busyboxTree } from "../helpers/busybox-image.js";
import { callRuntime, RUNTIME, RUNTIME_LIMIT_MS, whyNoContainers } from "../helpers/oci-runtime.js";
import { skip } from "../helpers/skip.js";

/** In the program's variables, and so in what is kept of it, and nowhere else. */
const MARK = `mark-${String(process.pid)}-${String(Date.now())}`;
const SCRIPT =
  'read line; echo "$(hostname) $HOSTNAME $line $(cat /told)"; head -c 8 /dev/urandom | od -An -tx1; echo err >&2; exit 7';

describe("oci containers that come again", function () {
  this.timeout(RUNTIME_LIMIT_MS);
  let folder = "";
  let tree = "";
  const randoms = new Set<string>();

  before(function () {
    const why = whyNoContainers();
    if (why !== undefined) return skip(this, why);
    folder = mkdtempSync(join(tmpdir(), "vmlet-held-"));
    tree = busyboxTree(folder);
    // An engine has made the places of the mounts; without them there is nothing to keep.
    for (const name of ["proc", "dev"]) mkdirSync(join(tree, name));
    countBoot();
  });

  after(() => {
    if (folder !== "") rmSync(folder, { recursive: true });
  });

  const isKept = (): boolean => {
    const found = spawnSync("grep", ["-rlF", MARK, join(cacheFolder() ?? "", "templates")], {
      encoding: "utf8",
      timeout: RUNTIME_LIMIT_MS,
    });
    return found.stdout !== "";
  };

  /** Runs it to its end, with `line` as its input; what has been told in the file `/told` is there when it runs. */
  const run = (hostname: string, line: string): void => {
    const process = {
      user: { uid: 0, gid: 0 },
      args: ["sh", "-c", SCRIPT],
      cwd: "/",
      env: ["PATH=/bin", `HOSTNAME=${hostname}`, `MARK=${MARK}`],
    };
    const mounts = [
      { destination: "/proc", type: "proc", source: "proc" },
      { destination: "/dev", type: "tmpfs", source: "tmpfs", options: ["nosuid", "mode=755"] },
    ];
    const namespaces = ["network", "pid", "ipc", "uts", "mount"].map((type) => ({ type }));
    const spec = { ociVersion: "1.0.2", hostname, process, root: { path: tree }, mounts, linux: { namespaces } };
    writeFileSync(join(folder, "config.json"), JSON.stringify(spec));
    const { status, stdout, stderr } = spawnSync(
      RUNTIME,
      ["--root", join(folder, "state"), "run", "-b", folder, hostname],
      { input: `${line}\n`, encoding: "utf8", timeout: RUNTIME_LIMIT_MS },
    );
    const [first, random = ""] = stdout.split("\n");
    const told = execFileSync("cat", [join(tree, "told")], { encoding: "utf8" }).trim();
    assert.deepEqual([first, stderr, status], [`${hostname} ${hostname} ${line} ${told}`, "err\n", 7]);
    assert.ok(!randoms.has(random), random);
    randoms.add(random);
  };

  it("have their own names, input, files and random numbers, and a changed program is the changed one", () => {
    for (const [turn, hostname] of ["first", "secnd", "third", "forth"].entries()) {
      writeFileSync(join(tree, "told"), `told ${String(turn)}\n`);
      run(hostname, `line ${String(turn)}`);
      assert.equal(isKept(), turn > 0, `kept after ${hostname}`);
    }
    // The program itself is another file now: what is kept is of no use, and is not used.
    rmSync(join(tree, "bin/sh"));
    writeFileSync(join(tree, "bin/sh"), "#!/bin/busybox sh\necho changed\nexit 8\n", { mode: 0o755 });
    const { status, stdout } = spawnSync(RUNTIME, ["--root", join(folder, "state"), "run", "-b", folder, "forth"], {
      stdio: ["ignore", "pipe", "ignore"],
      encoding: "utf8",
      timeout: RUNTIME_LIMIT_MS,
    });
    assert.deepEqual([stdout, status], ["changed\n", 8]);
    assert.equal(callRuntime(join(folder, "state"), ["list", "-q"]).stdout, "");
  });
});
