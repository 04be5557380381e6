// Needs: nothing; root for what is shared with a pod's VM later. Pods: which containers share a VM, how large that is, what the
// guest is told of each, how a container's files reach the folder of a VM that runs already.
import assert from "node:assert/strict";
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { once } from "node:events";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import { isRoot } from "../../bench/ladder/detect.js";
import { ConfigError } from "../../vmm/errors.js";
import { guestSetup, podMemory } from "../../vmm/oci/guest-setup.js";
import { machineSize } from "../../vmm/oci/machine-size.js";
import { podRole } from "../../vmm/oci/pod.js";
import type { OciSpec } from "../../vmm/oci/runtime-spec.js";
import { skip } from "../helpers/skip.js";

const MIB = 1024 * 1024;
const LIMIT_MS = 60_000;
const CRI = "io.kubernetes.cri.";
const SANDBOX = { kind: "sandbox" } as const;
const SHARED_SETUP = resolve("build/vmm/oci/share.js");
const POD_SHARE = resolve("build/vmm/oci/pod-share.js");

function problemsOf(task: () => unknown): string {
  try {
    task();
  } catch (error) {
    assert.ok(error instanceof ConfigError);
    return error.problems.join("\n");
  }
  return "";
}

function spec(linux: object, more: object = {}): OciSpec {
  const namespaces = [{ type: "network", path: "/run/netns/x" }];
  return { ociVersion: "1.0.2", root: { path: "/" }, linux: { namespaces, ...linux }, ...more };
}

describe("oci pods", () => {
  it("annotations of containerd, of CRI-O and podman say what a container is in its pod", () => {
    assert.deepEqual(podRole(), { kind: "alone" });
    assert.deepEqual(podRole({ other: "x" }), { kind: "alone" });
    assert.deepEqual(podRole({ [`${CRI}container-type`]: "sandbox", [`${CRI}sandbox-id`]: "a" }), SANDBOX);
    const container = { [`${CRI}container-type`]: "container", [`${CRI}sandbox-id`]: "a.b-c_1" };
    assert.deepEqual(podRole(container), { kind: "container", sandbox: "a.b-c_1" });
    const inCriO = { "io.kubernetes.cri-o.ContainerType": "container", "io.kubernetes.cri-o.SandboxID": "b" };
    assert.deepEqual(podRole(inCriO), { kind: "container", sandbox: "b" });
    assert.match(
      problemsOf(() => podRole({ [`${CRI}container-type`]: "vm" })),
      /"vm" is not/,
    );
    for (const id of ["", "..", "a/b", "a\n", "x".repeat(1025)]) {
      const annotations = { ...container, [`${CRI}sandbox-id`]: id };
      assert.match(
        problemsOf(() => podRole(annotations)),
        /sandbox-id: .* is no name of a container/,
        id,
      );
    }
    assert.match(
      problemsOf(() => podRole({ [`${CRI}container-type`]: "container" })),
      /sandbox-id: ""/,
    );
  });

  it("the VM of a pod has the sum of its containers' limits, and what the guest needs itself", () => {
    const size = (annotations: Record<string, string>) => {
      const linux = { resources: { cpu: { shares: 2 }, memory: { limit: 5 * MIB } } };
      const { memoryMib, cpus, limitBytes, resources } = machineSize(spec(linux, { annotations }), SANDBOX);
      return { memoryMib, cpus, limitBytes, cpu: resources.cpu };
    };
    // What the engine's own small program is to have is nothing to the VM.
    assert.deepEqual(size({}), { memoryMib: 512, cpus: 1, limitBytes: 0, cpu: {} });
    assert.deepEqual(
      size({
        [`${CRI}sandbox-memory`]: String(200 * MIB),
        [`${CRI}sandbox-cpu-quota`]: "50000",
        [`${CRI}sandbox-cpu-period`]: "100000",
        [`${CRI}sandbox-cpu-shares`]: "512",
      }),
      { memoryMib: 264, cpus: 1, limitBytes: 264 * MIB, cpu: { quota: 50_000, period: 100_000, shares: 512 } },
    );
    const fields = { memory_limit_in_bytes: 100 * MIB, cpu_quota: -1, cpu_period: 100_000, cpu_shares: 10 };
    for (const name of ["io.kubernetes.cri-o.PodLinuxResources", "pod-linux-resources.crio.io"]) {
      const { memoryMib, cpu } = size({ [name]: JSON.stringify(fields) });
      assert.deepEqual([memoryMib, cpu], [164, { shares: 10 }], name);
    }
    // CRI-O's word where the kubelet has said nothing.
    assert.deepEqual(size({ "io.kubernetes.cri-o.PodLinuxResources": "null" }), size({}));
    assert.equal(size({ "io.vmlet.memory-mib": "96", [`${CRI}sandbox-memory`]: String(200 * MIB) }).memoryMib, 96);
    assert.equal(
      size({ [`${CRI}sandbox-cpu-quota`]: "90000000", [`${CRI}sandbox-cpu-period`]: "1000" }).cpus > 0,
      true,
    );
    for (const value of ["", "much", "1.5", "1e30"]) {
      assert.match(
        problemsOf(() => size({ [`${CRI}sandbox-memory`]: value })),
        /sandbox-memory: .* is not a number/,
        value,
      );
    }
    for (const value of ["{", "[]", '"x"', '{"cpu_quota":"x"}']) {
      assert.match(
        problemsOf(() => size({ "pod-linux-resources.crio.io": value })),
        /pod-linux-resources/,
        value,
      );
    }
    // On the host a container of a pod is only what stands for it.
    const member = machineSize(spec({ resources: { memory: { limit: MIB } } }), { kind: "container", sandbox: "a" });
    assert.deepEqual([member.limitBytes, member.resources], [0, {}]);
  });

  it("a container of a pod has a folder of its own in the share, the pod's memory, and may have the pod's namespaces", () => {
    const mounts = [
      { destination: "/dev/shm", type: "tmpfs", source: "shm" },
      { destination: "/dev/shm", type: "bind", source: "/dev/shm", options: ["rbind", "nosuid"] },
      { destination: "/conf", type: "bind", source: "/etc", options: ["rbind", "ro"] },
    ];
    const namespaces = ["network", "ipc", "uts", "pid"].map((type) => ({ type, path: `/proc/7/ns/${type}` }));
    const given = spec({ namespaces }, { mounts });
    const role = { kind: "container", sandbox: "a" } as const;
    const { steps, shared } = guestSetup(given, "/", role, "c1");
    assert.deepEqual(steps.slice(0, 2), ["c", "/.vmlet/share/c1/root"]);
    assert.ok(steps.join(" ").includes("b .vmlet/share/c1/v1 /conf 16385 d"), steps.join(" "));
    assert.ok(steps.join(" ").includes("b .vmlet/shm /dev/shm 2 d"), steps.join(" "));
    assert.deepEqual(
      shared.map(({ source, name }) => [source, name]),
      [
        ["/", "root"],
        ["/etc", "v1"],
      ],
    );
    assert.match(podMemory(given) ?? "", /^mode=1777,size=[1-9]\d*$/);
    assert.equal(podMemory(spec({})), undefined);
    assert.match(
      problemsOf(() => guestSetup(given, "/")),
      /ipc at \/proc\/7\/ns\/ipc: a VM cannot enter/,
    );
    const mine = spec({ namespaces: [...namespaces.slice(0, 1), { type: "mount", path: "/proc/7/ns/mnt" }] });
    assert.match(
      problemsOf(() => guestSetup(mine, "/", role, "c1")),
      /mount at/,
    );
  });

  it("what is mounted for a container later is where the VM's file server looks, until it has gone", async function () {
    this.timeout(LIMIT_MS);
    if (!isRoot()) return skip(this, "mounts need root");
    const folder = mkdtempSync(join(tmpdir(), "vmlet-pod-"));
    const [share, source] = [join(folder, "share"), join(folder, "source")];
    mkdirSync(join(source, "below"), { recursive: true });
    writeFileSync(join(source, "file"), "of the host\n");
    const children: ChildProcess[] = [];
    try {
      // As the monitor, and the file server that it starts, which has mounts of its own.
      const script = [
        `const { makeShare } = await import(${JSON.stringify(SHARED_SETUP)});`,
        `const { leaveShare, removeShare } = await import(${JSON.stringify(POD_SHARE)});`,
        `makeShare(${JSON.stringify(share)}, [], true);`,
        `process.stdout.write("made\\n");`,
        `process.stdin.once("data", () => {`,
        `  const names = leaveShare(${JSON.stringify(join(share, "c1"))});`,
        `  removeShare(${JSON.stringify(join(share, "c1"))}, names);`,
        `  process.stdout.write(names.sort().join(" ") + "\\n");`,
        `});`,
      ].join("\n");
      const owner = spawn(process.execPath, ["--input-type=module", "-e", script], {
        stdio: ["pipe", "pipe", "inherit"],
      });
      children.push(owner);
      assert.equal(String((await once(owner.stdout, "data"))[0]), "made\n");
      const server = spawn(
        "nsenter",
        ["-t", String(owner.pid), "-m", "unshare", "-m", "--propagation", "slave", "sh", "-c", "echo in; exec cat"],
        { stdio: ["pipe", "pipe", "inherit"] },
      );
      children.push(server);
      assert.equal(String((await once(server.stdout, "data"))[0]), "in\n");
      const look = (words: string): string => {
        const argv = ["-t", String(server.pid), "-m", "sh", "-c", words];
        return spawnSync("nsenter", argv, { encoding: "utf8", timeout: LIMIT_MS }).stdout;
      };
      const shared = [
        { source, name: "root", isFile: false, isReadonly: false },
        { source: join(source, "file"), name: "v1", isFile: true, isReadonly: true },
        { source, name: "v2", isFile: false, isReadonly: true },
        { source, name: "v3", isFile: false, isReadonly: true, isReadonlyBelow: true },
        { source, name: "v4", isFile: false, isReadonly: false, isAlone: true },
      ];
      const join1 = [
        `const { joinShare } = await import(${JSON.stringify(POD_SHARE)});`,
        `joinShare(${String(owner.pid)}, ${JSON.stringify(join(share, "c1"))}, ${JSON.stringify(shared)});`,
      ].join("\n");
      const mounting = 'mount -t tmpfs below "$1" && exec "$2" --input-type=module -e "$3"';
      const argv = ["-m", "sh", "-c", mounting, "sh", join(source, "below"), process.execPath, join1];
      const { status, stderr } = spawnSync("unshare", argv, { encoding: "utf8", timeout: LIMIT_MS });
      assert.deepEqual([status, stderr], [0, ""]);
      assert.equal(
        look(`cd ${share}/c1; ls root; cat v1; echo x >v1 2>/dev/null || echo kept`),
        "below\nfile\nof the host\nkept\n",
      );
      // What is mounted below is read-only only where it is said.
      const places = "v2/no v2/below/yes v3/no v3/below/no v4/yes v4/below/yes";
      assert.equal(
        look(`cd ${share}/c1; for f in ${places}; do { echo x >$f; } 2>/dev/null && echo $f; done; ls root/below`),
        "v2/below/yes\nv4/yes\nv4/below/yes\nyes\n",
      );
      assert.equal(spawnSync("rm", [join(source, "yes"), join(source, "below/yes")], { timeout: LIMIT_MS }).status, 0);
      owner.stdin.write("go\n");
      assert.equal(String((await once(owner.stdout, "data"))[0]), "root v1 v2 v3 v4\n");
      assert.equal(look(`ls ${share}; grep -c ${share}/ /proc/self/mounts`), "0\n");
      // Of the host's nothing has been unmounted or removed.
      assert.equal(spawnSync("ls", [source], { encoding: "utf8", timeout: LIMIT_MS }).stdout, "below\nfile\n");
    } finally {
      for (const child of children) child.kill("SIGKILL");
      rmSync(folder, { recursive: true });
    }
  });
});
