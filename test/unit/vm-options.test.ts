// Needs: nothing.
import assert from "node:assert/strict";
import { ConfigError } from "../../vmm/errors.js";
import { mergedEnv, planVm, type PlanOptions, type ProgramOptions } from "../../vmm/sdk/plan.js";
import { tmpfsMount } from "../../vmm/sdk/tmpfs-options.js";
import { checkVmOptions, type VmOptions } from "../../vmm/sdk/vm-options.js";

const PLAN: PlanOptions & { readonly program: ProgramOptions } = {
  program: { command: ["true"], entrypoint: undefined, hasTerminal: false, isInteractive: false },
  autoRemove: true,
  choice: { kind: "kvm", quirks: undefined },
};

const problemsOf = (given: unknown): readonly string[] => {
  try {
    checkVmOptions(given as VmOptions);
  } catch (error) {
    if (error instanceof ConfigError) return error.problems;
    throw error;
  }
  return [];
};

describe("sdk: options of a VM", () => {
  it("has a default for everything but the root", () => {
    const checked = checkVmOptions({ image: "busybox" });
    assert.deepEqual(checked.root, { kind: "image", reference: "busybox" });
    assert.equal(checked.memoryMib, 512);
    assert.equal(checked.cpus, 1);
    assert.deepEqual(checked.network, { kind: "none" });
    assert.equal(checked.pull, "missing");
    assert.equal(checked.accel, "auto");
  });

  it("ports bring a network in user mode, on the loopback address", () => {
    const { network, ports } = checkVmOptions({ image: "x", ports: { 8080: 80 } });
    assert.deepEqual(network, { kind: "user" });
    assert.deepEqual(ports, [{ hostAddress: "127.0.0.1", hostPort: 8080, guestPort: 80, protocol: "tcp" }]);
  });

  const wrong: readonly (readonly [string, unknown, RegExp])[] = [
    ["no root", {}, /No root is given/],
    ["two roots", { image: "x", rootfs: "/" }, /image and rootfs/],
    ["a folder that is not there", { rootfs: "/nowhere/at/all" }, /rootfs "\/nowhere\/at\/all": no such folder/],
    ["a file as a folder", { rootfs: "/etc/passwd" }, /is not a folder/],
    ["a disk that is not there", { disk: "/nowhere.img" }, /disk "\/nowhere.img": no such file/],
    ["an unknown option", { image: "x", memory: 1 }, /Unknown option "memory"; known are image/],
    ["memory as text", { image: "x", memoryMib: "512" }, /memoryMib .*512.* is not a whole number from 64/],
    ["too little memory", { image: "x", memoryMib: 8 }, /memoryMib 8/],
    ["too many processors", { image: "x", cpus: 33 }, /cpus 33 is not a whole number from 1 to 32/],
    ["a name that looks like an id", { image: "x", name: "0123456789ab" }, /taken for an id/],
    ["a name with a slash", { image: "x", name: "a/b" }, /Name "a\/b"/],
    ["a variable without a name", { image: "x", env: { "": "1" } }, /env has no entry/],
    ["a variable with NUL", { image: "x", env: { A: "a\0b" } }, /env\.A/],
    ["a variable that is a number", { image: "x", env: { A: 1 } }, /env\.A 1 is not a text/],
    ["a relative folder", { image: "x", workdir: "app" }, /workdir "app" is not an absolute path/],
    ["no network, but ports", { image: "x", network: "none", ports: { 1: 2 } }, /has no ports/],
    ["another network", { image: "x", network: "bridge" }, /network "bridge" is not/],
    ["a port that is none", { image: "x", ports: { 65536: 80 } }, /ports: hostPort 65536 .* from 0 to 65535/],
    ["a port of a guest that is none", { image: "x", ports: { 80: 0 } }, /ports: guestPort 0 .* from 1 to 65535/],
    [
      "a port twice",
      {
        image: "x",
        ports: [
          { hostPort: 80, guestPort: 1 },
          { hostAddress: "127.0.0.2", hostPort: 80, guestPort: 2 },
        ],
      },
      /ports: 80\/tcp of this host is given more than once/,
    ],
    [
      "too many ports",
      { image: "x", ports: Array.from({ length: 1025 }, (_, at) => ({ hostPort: at + 1, guestPort: 1 })) },
      /ports: 1025 are too many; the limit is 1024/,
    ],
    ["a port of another kind", { image: "x", ports: [{ hostPort: 1, guestPort: 2, protocol: "sctp" }] }, /sctp/],
    ["an address that is none", { image: "x", ports: [{ hostPort: 1, guestPort: 2, hostAddress: "::1" }] }, /"::1"/],
    [
      "a volume that is not there",
      { image: "x", volumes: [{ hostPath: "/nowhere", guestPath: "/a" }] },
      /volumes: 1: hostPath "\/nowhere": no such folder or file/,
    ],
    [
      "a volume that is a device",
      { image: "x", volumes: [{ hostPath: "/dev/null", guestPath: "/a" }] },
      /"\/dev\/null" is neither a folder nor a file/,
    ],
    [
      "a volume below a file",
      { image: "x", volumes: [{ hostPath: "/etc/passwd/x", guestPath: "/a" }] },
      /"\/etc\/passwd\/x": a part of the path is not a folder/,
    ],
    [
      "a volume in the place of the root",
      { image: "x", volumes: [{ hostPath: "/tmp", guestPath: "/a/.." }] },
      /volumes: 1: guestPath "\/" is the root itself/,
    ],
    ["a tmpfs in the place of the root", { image: "x", tmpfs: ["/"] }, /tmpfs: 1 "\/" is the root itself/],
    ["a tmpfs at no path", { image: "x", tmpfs: ["data"] }, /tmpfs: 1 "data" is not an absolute path/],
    [
      "two at one place",
      { image: "x", volumes: [{ hostPath: "/tmp", guestPath: "/a/" }], tmpfs: ["/b/../a"] },
      /More than one volume or tmpfs is at "\/a"/,
    ],
    ["an option of a tmpfs", { image: "x", tmpfs: [{ guestPath: "/a", options: "ro,bogus" }] }, /"bogus" is no option/],
    [
      "a size of a tmpfs",
      { image: "x", tmpfs: [{ guestPath: "/a", options: "size=abc" }] },
      /tmpfs: 1: "size=abc" is not size= and a size such as 65536, 64m or 50%/,
    ],
    ["a mode of a tmpfs", { image: "x", tmpfs: [{ guestPath: "/a", options: "mode=999" }] }, /octal digits/],
    ["a user beyond all", { image: "x", user: "4294967295" }, /user "4294967295": .* from 0 to 2147483647/],
    ["a group beyond all", { image: "x", user: "root:2147483648" }, /user "root:2147483648": .* 2147483647/],
    ["a volume at no path", { image: "x", volumes: [{ hostPath: "/tmp" }] }, /guestPath null/],
    ["a host name", { image: "x", hostName: "a b" }, /hostName "a b"/],
    ["a pull policy", { image: "x", pull: "yes" }, /pull "yes" is not one of missing, always, never/],
    ["an accelerator", { image: "x", accel: "lab-intel" }, /accel "lab-intel" is not one of auto, kvm, lab/],
    ["a time that is over", { image: "x", timeoutMs: -1 }, /timeoutMs -1/],
    ["nothing", undefined, /Options undefined/],
  ];
  for (const [title, given, message] of wrong) {
    it(`refuses ${title}, in one line that names it`, () => {
      const problems = problemsOf(given);
      assert.ok(
        problems.some((problem) => message.test(problem)),
        problems.join("; "),
      );
    });
  }

  it("options of a tmpfs become flags of mount(2) and words of its own, with those of Docker where nothing is said", () => {
    assert.deepEqual(tmpfsMount(""), { flags: 2 | 4 | 8, data: "" });
    assert.deepEqual(tmpfsMount("size=64m,mode=1777"), { flags: 2 | 4 | 8, data: "size=64m,mode=1777" });
    assert.deepEqual(tmpfsMount("ro,exec,uid=5,,noatime,suid"), { flags: 1 | 4 | 1024, data: "uid=5" });
    assert.deepEqual(tmpfsMount("ro,rw,exec,noexec"), { flags: 2 | 4 | 8, data: "" });
    for (const wrong of ["size", "size=", "constructor", "__proto__", "mode=1777x", "exec=1", "uid=-1"]) {
      assert.equal(typeof tmpfsMount(wrong), "string", wrong);
    }
  });

  it("a file may be a volume", () => {
    const { volumes } = checkVmOptions({ image: "x", volumes: [{ hostPath: "/etc/passwd", guestPath: "/a" }] });
    assert.deepEqual(volumes, [{ hostPath: "/etc/passwd", guestPath: "/a", isReadonly: false, isFile: true }]);
  });

  it("tells all problems at once", () => {
    assert.equal(problemsOf({ image: "x", cpus: 0, memoryMib: 1, pull: "no" }).length, 3);
  });

  it("a variable of the caller takes the place of the image's", () => {
    assert.deepEqual(mergedEnv(["PATH=/bin", "A=1", "B=x=y"], ["A=2", "C="]), ["PATH=/bin", "B=x=y", "A=2", "C="]);
  });

  it("groups and limits go to all programs; every port that is named is published at one that is free", async () => {
    const given = {
      disk: "/etc/passwd",
      groups: [20],
      limits: { nofile: 5 },
      publishAll: true,
      expose: ["80", "53/udp", "80/tcp"],
    };
    const { spec } = await planVm(checkVmOptions({ ...given, ports: { 0: 53 } }), PLAN);
    assert.deepEqual([spec.defaults.groups, spec.defaults.limits], [[20], { nofile: 5 }]);
    assert.deepEqual([spec.main?.groups, spec.main?.limits], [[20], { nofile: 5 }]);
    assert.deepEqual(
      spec.ports.map(({ guestPort, protocol }) => `${String(guestPort)}/${protocol}`),
      ["53/tcp", "80/tcp", "53/udp"],
    );
    assert.ok(spec.ports.every(({ hostPort }) => hostPort > 0));
    assert.deepEqual(spec.network, { kind: "user" });
    const without = await planVm(checkVmOptions({ ...given, network: "none" }), PLAN);
    assert.deepEqual([without.spec.ports, without.spec.network], [[], { kind: "none" }]);
    assert.equal(problemsOf({ ...given, groups: [-1], limits: { none: 1 }, expose: ["x"] }).length, 3);
  });

  it("what no program could be started with is refused before there is a VM, with its size and the limit", async () => {
    const message = /^The command has 70\d\d\d bytes with its environment, the limit is 65536: /;
    const large = "x".repeat(70_000);
    const disk = "/etc/passwd";
    await assert.rejects(planVm(checkVmOptions({ disk, env: { A: large } }), PLAN), { code: "ERR_CONFIG", message });
    const idle = { ...PLAN, program: undefined };
    await assert.rejects(planVm(checkVmOptions({ disk, env: { A: large } }), idle), { code: "ERR_CONFIG", message });
    const program = { ...PLAN.program, command: ["echo", large] };
    await assert.rejects(planVm(checkVmOptions({ disk }), { ...PLAN, program }), { code: "ERR_CONFIG", message });
  });
});
