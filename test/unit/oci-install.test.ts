// Needs: nothing. The lines by which engines know the runtime: what is in their files stays, and twice is as once.
import assert from "node:assert/strict";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ENGINES, planInstallation, writeInstallation, type EngineName } from "../../vmm/oci/install.js";

const PROGRAM = "/opt/a b/vmlet-runtime";

describe("oci install", () => {
  let folder = "";

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "vmlet-install-"));
  });

  afterEach(() => {
    rmSync(folder, { recursive: true });
  });

  const install = (engine: EngineName, old?: string): string => {
    const path = join(folder, "made/config");
    if (old !== undefined) {
      writeInstallation({ ...planInstallation(engine, PROGRAM, path), content: old });
    }
    const plan = planInstallation(engine, PROGRAM, path);
    assert.equal(plan.isDone, false);
    writeInstallation(plan);
    assert.ok(planInstallation(engine, PROGRAM, path).isDone, engine);
    assert.deepEqual(readdirSync(join(folder, "made")), ["config"]);
    return readFileSync(path, "utf8");
  };

  it("files and folders that are not there are made; a second time there is nothing to do", () => {
    assert.deepEqual(JSON.parse(install("docker")), { runtimes: { vmlet: { path: PROGRAM } } });
    rmSync(join(folder, "made"), { recursive: true });
    assert.equal(install("podman"), `[engine.runtimes]\nvmlet = ["${PROGRAM}"]\n`);
    rmSync(join(folder, "made"), { recursive: true });
    assert.match(
      install("containerd"),
      /^version = 2\n[^]*io\.containerd\.grpc\.v1\.cri[^]*BinaryName = "\/opt\/a b\/vmlet-runtime"/,
    );
  });

  it("Docker's other settings and runtimes stay, another path of ours is replaced", () => {
    const old = { debug: true, runtimes: { other: { path: "/x" }, vmlet: { path: "/old" } } };
    assert.deepEqual(JSON.parse(install("docker", JSON.stringify(old))), {
      debug: true,
      runtimes: { other: { path: "/x" }, vmlet: { path: PROGRAM } },
    });
  });

  it("containerd's other tables stay, of either version; lines of an older installation go", () => {
    const old =
      'version = 3\n[plugins]\n  x = 1\n# vmlet oci install: begin\nold\n# vmlet oci install: end\n[last]\ny = "z"';
    const now = install("containerd", old);
    assert.ok(now.startsWith('version = 3\n[plugins]\n  x = 1\n[last]\ny = "z"\n# vmlet oci install: begin\n'));
    assert.match(now, /\[plugins\.'io\.containerd\.cri\.v1\.runtime'\.containerd\.runtimes\.vmlet\]/);
    assert.ok(!now.includes("old"));
    // Where no runtime is named, its default one is, too: without it containerd would not serve Kubernetes.
    const runc = "[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]\n";
    assert.ok(now.includes(runc));
    rmSync(join(folder, "made"), { recursive: true });
    assert.equal(install("containerd", `version = 3\n${runc}`).split(runc).length, 2);
  });

  it("a file that is not understood, or has somebody else's lines, is refused and stays", () => {
    const cases: readonly (readonly [EngineName, string, RegExp])[] = [
      ["docker", "{ no", /is no JSON, and stays/],
      ["docker", "[]", /is not an object/],
      ["docker", '{"runtimes":[]}', /"runtimes" is not an object/],
      ["podman", "[engine]\n", /somebody else's/],
      ["containerd", '[plugins."x".containerd.runtimes.vmlet]\n', /somebody else's/],
      ["containerd", "# vmlet oci install: end\n", /one is missing/],
    ];
    const path = join(folder, "config");
    for (const [engine, text, expected] of cases) {
      writeFileSync(path, text);
      assert.throws(() => planInstallation(engine, PROGRAM, path), expected);
    }
    assert.throws(() => planInstallation("docker", PROGRAM, folder), /cannot be read/);
  });

  it("each engine is told how to be tried, and how it is undone", () => {
    for (const engine of ENGINES) {
      const { undo, tryIt, lines } = planInstallation(engine, PROGRAM, join(folder, "x"));
      assert.ok(undo.includes(join(folder, "x")) && tryIt.includes("vmlet") && lines.includes(PROGRAM), engine);
    }
  });
});
