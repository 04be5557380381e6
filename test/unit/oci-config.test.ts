// Needs: nothing. config.json of a bundle: what is refused and where, what of it the guest is told.
import assert from "node:assert/strict";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { availableParallelism, hostname, tmpdir } from "node:os";
import { join } from "node:path";
import { NAMESPACES } from "../../vmm/agent/container-request.js";
import { ConfigError } from "../../vmm/errors.js";
import { cgroupPaths } from "../../vmm/oci/cgroups.js";
import { parseCommandLine, parseOptions } from "../../vmm/oci/command-line.js";
import { isHandled } from "../../vmm/oci/early-signals.js";
import { guestSetup } from "../../vmm/oci/guest-setup.js";
import { containerJail } from "../../vmm/oci/jail-option.js";
import { machineSize, processorsOf } from "../../vmm/oci/machine-size.js";
import { mountFlags } from "../../vmm/oci/mount-options.js";
import { hasMountsBelow } from "../../vmm/oci/mounts-below.js";
import { readConfig } from "../../vmm/oci/read-config.js";
import { refuseRootless } from "../../vmm/oci/rootless.js";
import type { OciSpec } from "../../vmm/oci/runtime-spec.js";
import { containerOf } from "../../vmm/oci/state.js";

const NETWORK = { namespaces: [{ type: "network" }] };
const PROCESS = { user: { uid: 0, gid: 0 }, args: ["sh"], cwd: "/" };
const PLAIN = { ociVersion: "1.0.2", process: PROCESS, root: { path: "rootfs" }, linux: NETWORK };

describe("oci config", () => {
  let bundle = "";

  before(() => {
    bundle = mkdtempSync(join(tmpdir(), "vmlet-bundle-"));
    mkdirSync(join(bundle, "rootfs"));
  });

  after(() => {
    rmSync(bundle, { recursive: true });
  });

  const read = (spec: unknown): OciSpec => {
    writeFileSync(join(bundle, "config.json"), typeof spec === "string" ? spec : JSON.stringify(spec));
    return readConfig(bundle);
  };
  const problems = (task: () => unknown): readonly string[] => {
    try {
      task();
    } catch (error) {
      assert.ok(error instanceof ConfigError);
      return error.problems;
    }
    return [];
  };

  it("a plain one is taken, and one without a process", () => {
    assert.equal(read(PLAIN).root?.path, "rootfs");
    assert.deepEqual(
      problems(() => read({ ...PLAIN, process: undefined })),
      [],
    );
  });

  it("every field that is wrong is named with its value", () => {
    const cases: readonly (readonly [unknown, RegExp])[] = [
      ["{", /is no JSON/],
      ["[]", /is not an object/],
      [{ ...PLAIN, ociVersion: "2.0.0" }, /ociVersion: "2\.0\.0"/],
      [{ ...PLAIN, ociVersion: undefined }, /ociVersion/],
      [{ ...PLAIN, root: undefined }, /root: it is missing/],
      [{ ...PLAIN, root: { path: "nowhere" } }, /root\.path: ".*nowhere" is not a folder/],
      [{ ...PLAIN, process: { ...PROCESS, args: [] } }, /process\.args: it names no program/],
      [{ ...PLAIN, process: { ...PROCESS, args: ["a\0b"] } }, /process\.args\[0\]/],
      [{ ...PLAIN, process: { ...PROCESS, cwd: "here" } }, /process\.cwd: "here" is not an absolute path/],
      [{ ...PLAIN, process: { ...PROCESS, env: ["=x"] } }, /process\.env\[0\]: "=x"/],
      [{ ...PLAIN, process: { ...PROCESS, user: { uid: -1, gid: 0 } } }, /process\.user\.uid: -1/],
      [
        { ...PLAIN, process: { ...PROCESS, oomScoreAdj: 1001 } },
        /oomScoreAdj: 1001 is not a number from -1000 to 1000/,
      ],
      [{ ...PLAIN, process: { ...PROCESS, capabilities: { bounding: ["CAP_FLY"] } } }, /"CAP_FLY" is not a capability/],
      [{ ...PLAIN, process: { ...PROCESS, rlimits: [{ type: "RLIMIT_X", soft: 1, hard: 1 }] } }, /RLIMIT_X/],
      [
        { ...PLAIN, process: { ...PROCESS, rlimits: [{ type: "RLIMIT_CPU", soft: 2, hard: 1 }] } },
        /soft: 2 is not at most the hard limit, 1/,
      ],
      [{ ...PLAIN, mounts: [{ destination: 5 }] }, /mounts\[0\]\.destination: 5/],
      [{ ...PLAIN, hooks: { prestart: [{ path: "true" }] } }, /hooks\.prestart\[0\]\.path: "true"/],
      [{ ...PLAIN, linux: { ...NETWORK, sysctl: { "../x": "1" } } }, /linux\.sysctl/],
      [{ ...PLAIN, linux: { ...NETWORK, resources: { memory: { limit: "1g" } } } }, /memory\.limit: "1g"/],
      [
        {
          ...PLAIN,
          linux: { ...NETWORK, resources: { blockIO: { throttleReadBpsDevice: [{ major: 1, minor: 0 }] } } },
        },
        /blockIO\.throttleReadBpsDevice\[0\]\.rate: undefined/,
      ],
      [{ ...PLAIN, linux: { namespaces: [{ type: "pid" }, { type: "pid" }] } }, /"pid" is not given once/],
    ];
    for (const [spec, expected] of cases) {
      assert.ok(
        problems(() => read(spec)).some((problem) => expected.test(problem)),
        `${String(expected)}: ${JSON.stringify(problems(() => read(spec)))}`,
      );
    }
    assert.equal(problems(() => read({ ociVersion: 1, process: { args: [] } })).length, 4);
  });

  it("what a VM cannot have is refused, or warned of", () => {
    const refused = (linux: unknown, mounts: unknown[] = []): string =>
      problems(() => guestSetup(read({ ...PLAIN, linux, mounts }), bundle)).join("\n");
    assert.match(refused({}), /no network namespace/);
    assert.match(refused({ namespaces: [{ type: "network" }, { type: "user" }] }), /user namespace/);
    assert.match(
      refused({ namespaces: [{ type: "network" }, { type: "pid", path: "/proc/1/ns/pid" }] }),
      /another container/,
    );
    assert.match(refused({ ...NETWORK, personality: { domain: "LINUX32" } }), /LINUX32/);
    assert.match(refused(NETWORK, [{ destination: "/x", type: "nfs" }]), /type "nfs"/);
    assert.match(refused(NETWORK, [{ destination: "/x", type: "bind", source: "/nowhere/at/all" }]), /no such file/);
    const all = ["mount", "pid", "ipc", "uts", "network"].map((type) => ({ type }));
    const without = (type: string): unknown => ({ namespaces: all.filter((one) => one.type !== type) });
    assert.match(refused(without("pid")), /no pid namespace: a VM has processes of its own/);
    assert.match(refused(without("ipc")), /no ipc namespace/);
    assert.equal(refused({ namespaces: all }), "");
    assert.match(
      refused({ namespaces: [...all.slice(0, 4), { type: "network", path: "/proc/self/ns/net" }] }),
      /network \/proc\/self\/ns\/net is the host's network: a VM has a network of its own/,
    );
    const named = { path: "/dev/vda", type: "b", major: 254, minor: 0 };
    const wanted = (rules: unknown): string =>
      refused({
        ...NETWORK,
        devices: [named, { path: "/dev/fuse", type: "c", major: 10, minor: 229 }],
        resources: { devices: rules },
      });
    assert.match(
      wanted([
        { allow: false, access: "rwm" },
        { ...named, allow: true, access: "rwm" },
      ]),
      /^device \/dev\/vda \(b 254:0\): [^\n]*$/,
    );
    // As to a privileged container.
    assert.equal(wanted([{ allow: true, access: "rwm" }]), "");
    const unnamed = guestSetup(read({ ...PLAIN, linux: without("uts") }), bundle).steps;
    assert.ok(unnamed.includes(hostname()), "the host's name");
    const { warnings } = guestSetup(
      read({
        ...PLAIN,
        mounts: [{ destination: "/sys/fs/cgroup", type: "cgroup" }],
        linux: { ...NETWORK, intelRdt: {}, devices: [{ path: "/dev/sda", type: "b", major: 8, minor: 0 }] },
      }),
      bundle,
    );
    assert.match(warnings.join("\n"), /intelRdt[\s\S]*cgroup[\s\S]*\/dev\/sda/);
  });

  it("rootless is refused, as another user and as root of a user namespace", () => {
    refuseRootless(0, "         0          0 4294967295\n");
    assert.match(
      problems(() => {
        refuseRootless(1000, "0 0 4294967295\n");
      }).join(),
      /rootless .* as user 1000;/,
    );
    assert.match(
      problems(() => {
        refuseRootless(0, "0 1000 1\n1 100000 65536\n");
      }).join(),
      /rootless .* user namespace;/,
    );
  });

  it("binds are shared under names of ours, read-only ones read-only; the root comes first", () => {
    const { shared, steps } = guestSetup(
      read({
        ...PLAIN,
        mounts: [
          { destination: "/proc", type: "proc", source: "proc" },
          { destination: "data", type: "bind", source: bundle, options: ["rbind", "ro"] },
          { destination: "/etc/conf", source: "config.json", options: ["bind"] },
        ],
      }),
      bundle,
    );
    assert.deepEqual(
      shared.map(({ source, name, isFile, isReadonly }) => [source, name, isFile, isReadonly]),
      [
        [join(bundle, "rootfs"), "root", false, false],
        [bundle, "v1", false, true],
        [join(bundle, "config.json"), "v2", true, false],
      ],
    );
    assert.deepEqual(steps.slice(0, 2), ["c", "/.vmlet/share/root"]);
    assert.ok(steps.join(" ").includes("b .vmlet/share/v1 /data 16385 d b .vmlet/share/v2 /etc/conf 16384 f"));
    assert.deepEqual(steps.slice(-2), ["u", ".vmlet/share"]);
  });

  it("namespaces are the guest's, and a limit of tasks is a control group's there", () => {
    const namespaces = ["network", "pid", "ipc", "uts", "mount", "cgroup"].map((type) => ({ type }));
    const resources = { pids: { limit: 9 } };
    const all = guestSetup(read({ ...PLAIN, linux: { namespaces, resources } }), bundle);
    const { mount, pid, ipc, uts, cgroup } = NAMESPACES;
    assert.equal(all.namespaces, mount | pid | ipc | uts | cgroup);
    assert.deepEqual(all.group, ["g", "container", "q", "pids.max", "9"]);
    const few = guestSetup(read({ ...PLAIN, linux: NETWORK }), bundle);
    assert.deepEqual([few.namespaces, few.group], [mount, []]);
  });

  it("whether a signal is handled is in what the kernel says of a process", () => {
    const status = "SigPnd:\t0000000000000000\nSigIgn:\t0000000000000001\nSigCgt:\t8000000000004002\n";
    const handled = Array.from({ length: 64 }, (_, index) => index + 1).filter((number) => isHandled(status, number));
    assert.deepEqual(handled, [1, 2, 15, 64]);
    assert.equal(isHandled("", 15), false);
  });

  it("options of mounts become flags, the last one counts, others are the file system's", () => {
    const { flags, isBind, isRecursive, propagation, data } = mountFlags([
      "rbind",
      "ro",
      "nosuid",
      "rw",
      "noexec",
      "rprivate",
      "size=1m",
      "mode=755",
      "defaults",
    ]);
    assert.deepEqual(
      [flags, isBind, isRecursive, propagation, data],
      [2 | 8, true, true, (1 << 18) | 16384, "size=1m,mode=755"],
    );
  });

  it("a read-only bind without what is below it, and with it; what is mounted below a folder", () => {
    const depthOf = (options: readonly string[]): readonly boolean[] => {
      const { isRecursive, isReadonly, isReadonlyBelow } = mountFlags(options);
      return [isRecursive, isReadonly, isReadonlyBelow];
    };
    assert.deepEqual(depthOf(["bind", "ro"]), [false, true, false]);
    assert.deepEqual(depthOf(["rbind", "ro"]), [true, true, false]);
    assert.deepEqual(depthOf(["rbind", "rro"]), [true, true, true]);
    assert.deepEqual(depthOf(["rbind", "rro", "rrw"]), [true, false, false]);
    const at = (point: string): string => `22 1 0:21 / ${point} rw shared:7 - tmpfs tmpfs rw\n`;
    const mounts = at("/") + at(bundle) + at(`${bundle}2/x`);
    assert.equal(hasMountsBelow(bundle, mounts), false);
    assert.equal(hasMountsBelow("/", mounts), true);
    assert.equal(hasMountsBelow(bundle, mounts + at(`${bundle}/a`)), true);
    const spaced = join(bundle, "with space");
    mkdirSync(spaced);
    assert.equal(hasMountsBelow(spaced, at(`${bundle}/with\\040space/a`)), true);
    // In the guest it is one mount: that one is read-only only if all of it is.
    const words = (source: string, options: readonly string[]): string => {
      const mount = { destination: "/host", type: "bind", source, options };
      return guestSetup(read({ ...PLAIN, mounts: [mount] }), bundle).steps.join(" ");
    };
    assert.ok(words("/", ["rbind", "ro"]).includes("b .vmlet/share/v1 /host 16384 d"));
    assert.ok(words("/", ["rbind", "rro"]).includes("b .vmlet/share/v1 /host 16385 d"));
    assert.ok(words("/", ["bind", "ro"]).includes("b .vmlet/share/v1 /host 16385 d"));
    assert.ok(words(bundle, ["rbind", "ro", "rslave"]).includes("b .vmlet/share/v1 /host 16384 d"));
  });

  it("a second processor that only a quota could use is none where the guest's kernel is emulated", () => {
    assert.deepEqual([processorsOf(2, {}, false), processorsOf(2, {}, true)], [2, 1]);
    assert.equal(processorsOf(2, { annotations: { "io.vmlet.cpus": "2" } }, true), 2);
  });

  it("the VM is as large as its limit, or as an annotation says", () => {
    const size = (limit: number | undefined, annotations = {}): readonly [number, number, number] => {
      const { memoryMib, limitBytes, warnings } = machineSize({
        ...PLAIN,
        annotations,
        linux: { ...NETWORK, resources: { memory: limit === undefined ? {} : { limit } } },
      });
      return [memoryMib, limitBytes, warnings.length];
    };
    assert.deepEqual(size(undefined), [512, 0, 0]);
    assert.deepEqual(size(-1), [512, 0, 0]);
    assert.deepEqual(size(300 * 2 ** 20), [300, 300 * 2 ** 20, 0]);
    assert.deepEqual(size(8 * 2 ** 20), [64, 64 * 2 ** 20, 1]);
    assert.deepEqual(size(undefined, { "io.vmlet.memory-mib": "128" }), [128, 0, 0]);
    assert.match(problems(() => size(undefined, { "io.vmlet.cpus": "many" })).join(), /"many"/);
    const cpus = (cpu: { quota?: number; period?: number }, annotations = {}): number =>
      machineSize({ ...PLAIN, annotations, linux: { ...NETWORK, resources: { cpu } } }).cpus;
    assert.deepEqual(
      [cpus({}), cpus({ quota: -1 }), cpus({ quota: 50_000 }), cpus({ quota: 1000, period: 1000 })],
      [1, 1, 1, 1],
    );
    assert.equal(cpus({ quota: 150_000, period: 100_000 }), Math.min(2, availableParallelism()));
    assert.equal(cpus({ quota: 1e9, period: 1000 }), Math.min(32, availableParallelism()));
    assert.equal(cpus({ quota: 200_000 }, { "io.vmlet.cpus": "1" }), 1);
  });
});

describe("oci runtime's jail", () => {
  it("is on, unless the annotation or the option says otherwise; an option that says on is the last word", () => {
    const jail = (option: "on" | "off" | undefined, value?: string): string =>
      containerJail(value === undefined ? {} : { annotations: { "io.vmlet.jail": value } }, option);
    assert.deepEqual([jail(undefined), jail("on"), jail("off")], ["on", "on", "off"]);
    assert.deepEqual([jail(undefined, "off"), jail("off", "on"), jail("off", "off")], ["off", "on", "off"]);
    assert.throws(() => jail("on", "off"), /--jail on forbids it/);
    assert.throws(() => jail(undefined, "strict"), /"strict" is neither on nor off/);
  });
});

describe("oci command line", () => {
  it("global options come before the command, its own before or behind its words", () => {
    const line = parseCommandLine(["--root", "/r", "-log=/l", "--log-format", "json", "delete", "--force", "one"]);
    assert.deepEqual(
      [line.global.root, line.global.log, line.global.logFormat, line.command],
      ["/r", "/l", "json", "delete"],
    );
    const { options, words } = parseOptions(line.argv, { flags: ["force|f"] });
    assert.deepEqual([options.has("force"), words], [true, ["one"]]);
    assert.throws(() => parseOptions(["--nosuch"], {}), /not defined: -nosuch/);
    assert.throws(() => parseOptions(["--bundle"], { values: ["bundle|b"] }), /needs an argument: -bundle/);
    assert.throws(() => parseCommandLine(["--log-format", "xml", "list"]), /invalid log-format: xml/);
  });

  it("an id cannot lead out of the state folder", () => {
    for (const id of ["", ".", "..", "a/b", "a b", "a\n"]) assert.throws(() => containerOf("/r", id), /invalid id/, id);
    assert.equal(containerOf("/r", "a+b_c-1.2").folder, "/r/a+b_c-1.2");
  });

  it("control groups lie where config.json says, as systemd has them where that is asked for", function () {
    const ends = (path: string | undefined, isSystemd: boolean): string | undefined =>
      Object.values(cgroupPaths(path, "one", isSystemd))[0];
    if (ends("/a/b", false) === undefined) this.skip();
    assert.match(ends("/a/b", false) ?? "", /\/a\/b$/);
    assert.match(ends(undefined, false) ?? "", /\/one$/);
    assert.match(ends("a-b.slice:x:y", true) ?? "", /\/a\.slice\/a-b\.slice\/x-y\.scope$/);
    assert.throws(() => ends("/a/../../b", false), /leads out/);
  });
});
