// Needs: nothing. What the ladder makes of what it sees: control groups, densities, /proc, the arguments of
// other monitors, words and tables.
import assert from "node:assert/strict";
import {
  chmodSync,
  chownSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import {
  cgroupLayout,
  createGroup,
  createParentGroup,
  limitedGroup,
  removeGroupTree,
  topGroups,
} from "../../bench/ladder/cgroup.js";
import { formatDuration } from "../../bench/ladder/figures.js";
import { entering, type Joint } from "../../bench/ladder/network.js";
import { closeAll, LeftBehindError } from "../../bench/ladder/ladder.js";
import { markdownOf } from "../../bench/ladder/markdown.js";
import { planFor } from "../../bench/ladder/plan.js";
import type { OpenRung, Rung } from "../../bench/ladder/rung.js";
import { bubblewrap } from "../../bench/ladder/rungs/bubblewrap.js";
import { chroot } from "../../bench/ladder/rungs/chroot.js";
import { cloudHypervisor, firecracker } from "../../bench/ladder/rungs/other-monitors.js";
import { allNamespaces } from "../../bench/ladder/rungs/namespaces.js";
import { sweepStale, type Workspace } from "../../bench/ladder/workspace.js";
import { availableKib, densityEnd, oneMoreKib } from "../../bench/ladder/stages/density.js";
import { parseStatus } from "../../bench/ladder/stages/memory.js";
import { climbTable, storyOf } from "../../bench/ladder/story.js";
import { tablesOf, troubles } from "../../bench/ladder/tables.js";
import { formatLadder } from "../../bench/ladder/text.js";
import { madeUpResult } from "../helpers/ladder-result.js";

describe("ladder: control groups", () => {
  let tree = "";
  beforeEach(() => (tree = mkdtempSync(join(tmpdir(), "vmlet-cgroup-"))));
  afterEach(() => {
    rmSync(tree, { recursive: true });
  });

  const mountsOf = (kinds: readonly ("memory" | "cpu,cpuacct" | "unified")[]): string =>
    kinds
      .map((kind) => {
        const at = join(tree, kind);
        mkdirSync(at);
        return kind === "unified" ? `cgroup2 ${at} cgroup2 rw,nosuid 0 0\n` : `cgroup ${at} cgroup rw,${kind} 0 0\n`;
      })
      .join("");
  const read = (path: string): string => readFileSync(join(tree, path), "utf8");

  it("v1: the limits go to the hierarchies of memory and cpu", () => {
    const layout = cgroupLayout(`${mountsOf(["memory", "cpu,cpuacct"])}tmpfs ${tree} tmpfs rw 0 0\n`);
    assert.equal(layout.kind, "v1");
    createParentGroup(layout, "run");
    createGroup(limitedGroup(layout, "run/limits"));
    assert.equal(read("memory/run/limits/memory.limit_in_bytes"), String(128 * 2 ** 20));
    assert.equal(read("cpu,cpuacct/run/limits/cpu.cfs_period_us"), "100000");
    assert.equal(read("cpu,cpuacct/run/limits/cpu.cfs_quota_us"), "100000");
  });

  it("hybrid: the controllers are v1's, and the unified hierarchy is looked at for what engines leave", () => {
    const layout = cgroupLayout(mountsOf(["memory", "cpu,cpuacct", "unified"]));
    assert.equal(layout.kind, "hybrid");
    createGroup(limitedGroup(layout, "run/limits"));
    assert.equal(read("memory/run/limits/memory.limit_in_bytes"), String(128 * 2 ** 20));
    mkdirSync(join(tree, "unified/engine"));
    assert.deepEqual(
      topGroups(layout),
      new Set(["memory/run", "cpu,cpuacct/run", "unified/engine"].map((at) => join(tree, at))),
    );
  });

  it("v2: each group above gives its controllers away, the limits are in one folder", () => {
    const layout = cgroupLayout(mountsOf(["unified"]));
    assert.equal(layout.kind, "v2");
    createParentGroup(layout, "run");
    assert.equal(read("unified/cgroup.subtree_control"), "+memory +cpu");
    assert.equal(read("unified/run/cgroup.subtree_control"), "+memory +cpu");
    createGroup(limitedGroup(layout, "run/limits"));
    assert.equal(read("unified/run/limits/memory.max"), String(128 * 2 ** 20));
    assert.equal(read("unified/run/limits/cpu.max"), "100000 100000");
  });

  it("without the controllers: said so, and nothing is made", () => {
    const layout = cgroupLayout(mountsOf(["memory"]));
    assert.throws(() => limitedGroup(layout, "run"), /no control group hierarchy with memory and cpu/);
    assert.equal(cgroupLayout("proc /proc proc rw 0 0\n").kind, "none");
  });

  it("a tree of groups goes from the inside, one that is not there is no error", () => {
    mkdirSync(join(tree, "a/b/c"), { recursive: true });
    removeGroupTree(join(tree, "a"));
    removeGroupTree(join(tree, "a"));
    assert.deepEqual(
      topGroups({ kind: "v2", memory: undefined, cpu: undefined, unified: tree, mounts: [tree] }),
      new Set(),
    );
  });
});

describe("ladder: cleaning up", () => {
  it("what cannot be closed does not keep the rest from it, and is said", async () => {
    const closed: string[] = [];
    const good = (name: string): { close(): void } => ({ close: () => void closed.push(name) });
    const bad = { close: () => Promise.reject(new Error("kill ESRCH")) };
    await assert.rejects(
      closeAll([good("first"), bad, good("folder")]),
      (error) => error instanceof LeftBehindError && error.message === "cleaning up: kill ESRCH",
    );
    assert.deepEqual(closed, ["first", "folder"]);
    await closeAll([good("last")]);
    assert.deepEqual(closed, ["first", "folder", "last"]);
  });
});

describe("ladder: density", () => {
  const step = (count: number, pssKib: number, hostKib = 0) => ({ count, pssKib, hostKib });

  it("one more is the slope from half of them to all: what the first brings alone does not count", () => {
    const steps = [step(1, 1100), step(2, 1200), step(4, 1400), step(8, 1800)];
    assert.equal(
      oneMoreKib(steps, ({ pssKib }) => pssKib),
      100,
    );
    assert.equal(
      oneMoreKib([step(1, 5)], ({ pssKib }) => pssKib),
      undefined,
    );
    assert.equal(
      oneMoreKib([], ({ pssKib }) => pssKib),
      undefined,
    );
  });

  it("found: between the last step within the budget and the first beyond it", () => {
    const end = densityEnd([step(1, 100), step(2, 200), step(4, 400)], 300, "the budget is used up");
    assert.deepEqual([end.started, end.in_budget, end.is_extrapolated], [4, 3, false]);
  });

  it("extrapolated from what the last ones cost, and marked; the dearer of PSS and the host's memory counts", () => {
    const end = densityEnd([step(1, 100, 300), step(2, 200, 500)], 2048, "stopped after 8 s");
    assert.deepEqual([end.budget_mib, end.started, end.in_budget, end.is_extrapolated], [2, 2, 9, true]);
    assert.throws(() => densityEnd([], 1, "no instance"), /no instance/);
  });

  it("MemAvailable is what counts, and a kernel without it is an error", () => {
    assert.equal(availableKib("MemTotal:  9 kB\nMemFree:  1 kB\nMemAvailable:   1234 kB\n"), 1234);
    assert.throws(() => availableKib("MemTotal: 9 kB\n"), /MemAvailable/);
  });
});

describe("ladder: what the host sees", () => {
  it("effective user, capabilities and filter of /proc/PID/status", () => {
    const status = "Uid:\t1000\t33\t33\t33\nCapEff:\t000001c000000001\nNoNewPrivs:\t1\nSeccomp:\t2\n";
    assert.deepEqual(parseStatus(status), { uid: 33, capabilities: 4, has_filter: true });
    assert.equal(parseStatus(status.replace("Seccomp:\t2", "Seccomp:\t0")).has_filter, false);
    assert.throws(() => parseStatus("Uid:\t0\t0\t0\t0\n"), /without/);
  });
});

describe("ladder: arguments of rungs", () => {
  const joint: Joint = { kind: "veth", address: "198.18.1.1", port: 1, namespace: "/run/x" };
  const tap: Joint = {
    kind: "tap",
    address: "198.18.1.5",
    port: 1,
    device: "tap0",
    guestAddress: "198.18.1.6",
    netmask: "255.255.255.252",
  };
  let folder = "";
  before(() => (folder = mkdtempSync(join(tmpdir(), "vmlet-rungs-"))));
  after(() => {
    rmSync(folder, { recursive: true });
  });

  /** A program of each name is all that is looked for. */
  async function commandOf(rung: Rung, instance: Parameters<OpenRung["command"]>[0]): Promise<readonly string[]> {
    const path = process.env["PATH"];
    for (const name of ["firecracker", "cloud-hypervisor", "bwrap", "unshare", "chroot"])
      writeFileSync(join(folder, name), "");
    process.env["PATH"] = folder;
    try {
      const workspace = { folder, root: "/root", initrd: "/initrd" } as unknown as Workspace;
      return (await rung.open(workspace)).command(instance);
    } finally {
      process.env["PATH"] = path;
    }
  }

  /** argv of the guest, from the kernel's command line. */
  function guestArguments(cmdline: string): string[] {
    const word = /vmlet\.exec=(\S+)/.exec(cmdline)?.[1];
    assert.ok(word !== undefined, cmdline);
    return Buffer.from(word, "base64url").toString().split("\0");
  }

  it("Firecracker: a configuration in a file, no API socket; disk and TAP by its document's names", async () => {
    const argv = await commandOf(firecracker, {
      name: "n",
      program: ["/bin/probe", "first"],
      disk: "/disk",
      network: tap,
    });
    assert.deepEqual(argv.slice(0, 3), [join(folder, "firecracker"), "--no-api", "--config-file"]);
    const config = JSON.parse(readFileSync(argv[3] ?? "", "utf8")) as {
      readonly "boot-source": Readonly<Record<string, unknown>>;
      readonly [key: string]: unknown;
    };
    assert.deepEqual(config["machine-config"], { vcpu_count: 1, mem_size_mib: 128 });
    assert.deepEqual(config["drives"], [
      { drive_id: "disk", path_on_host: "/disk", is_root_device: false, is_read_only: false },
    ]);
    assert.deepEqual(config["network-interfaces"], [{ iface_id: "net", host_dev_name: "tap0" }]);
    assert.equal(config["boot-source"]["initrd_path"], "/initrd");
    const cmdline = String(config["boot-source"]["boot_args"]);
    assert.match(cmdline, /(^| )reboot=k /);
    assert.deepEqual(guestArguments(cmdline), ["/bin/probe", "then-reboot", "first"]);
  });

  it("Cloud Hypervisor: ends by its own port, because a reboot would start the guest again", async () => {
    const argv = await commandOf(cloudHypervisor, { name: "n", program: ["/bin/probe", "first"] });
    const option = (name: string): string => argv[argv.indexOf(name) + 1] ?? "";
    assert.equal(option("--initramfs"), "/initrd");
    assert.equal(option("--memory"), "size=128M");
    assert.equal(option("--cpus"), "boot=1");
    assert.equal(option("--serial"), "tty");
    assert.equal(option("--console"), "off");
    assert.deepEqual(guestArguments(option("--cmdline")), ["/bin/probe", "then-switch-off", "first"]);
  });

  it("with a network, namespaces are entered and not made; without, they are their own", async () => {
    const nsenter = ["nsenter", "--net=/run/x"];
    assert.deepEqual(entering(joint), nsenter);
    assert.deepEqual(entering(undefined), []);
    const joined = await commandOf(allNamespaces, { name: "n", program: ["p"], network: joint });
    assert.deepEqual(joined.slice(0, 2), nsenter);
    assert.ok(!joined.includes("--net") && joined.includes("--pid"));
    assert.ok((await commandOf(allNamespaces, { name: "n", program: ["p"] })).includes("--net"));
    assert.ok((await commandOf(bubblewrap, { name: "n", program: ["p"], network: joint })).includes("--share-net"));
    assert.deepEqual(await commandOf(chroot, { name: "n", program: ["p"] }), [join(folder, "chroot"), "/root", "p"]);
  });
});

describe("ladder: words", () => {
  it("a duration has the unit that fits it", () => {
    assert.deepEqual([5, 1234, 5.6e6, 8.1e9].map(formatDuration), ["5.00 ns", "1.23 µs", "5.60 ms", "8.10 s"]);
  });

  it("the story is made of the run's figures, and says nothing of what was not measured", () => {
    const result = madeUpResult();
    const told = storyOf(result).join("\n");
    assert.match(told, /A plain process prints its first line after 2\d\d µs/);
    assert.match(told, /One namespace alone costs between .* \(ns-uts\) and .* \(ns-net\)/);
    assert.match(told, /runc 19\.\d ms and docker 19\d ms/);
    assert.match(told, /300 answer a plain process, and still 250 one in docker/);
    assert.match(told, /vmlet brings a kernel of its own \(software KVM\): 7\.\d+ s/);
    assert.deepEqual(storyOf({ ...result, rungs: [], stages: {} }), []);
    assert.deepEqual(climbTable(result).rows.at(-1)?.slice(0, 3), [
      "firecracker",
      "what firecracker adds & <more>",
      "not here: firecracker is not installed",
    ]);
  });

  it("what was not measured has no column; what is extrapolated is marked and explained", () => {
    const result = madeUpResult();
    const { memory, network } = tablesOf(result);
    assert.deepEqual(memory?.head, [
      "",
      "idle",
      "after work",
      "processes",
      "one more",
      "one more, host",
      "fit in 1,000 MiB",
    ]);
    assert.equal(memory.rows[0]?.at(-1), "~1,234");
    assert.equal(network?.rows.length, 7);
    const lines = troubles(result);
    assert.ok(lines.includes("docker, network: no figures: no bridge"));
    assert.ok(lines.includes("process, density: stopped after 8 s, with 64: the rest is extrapolated"));
    assert.ok(lines.includes("not measured: runc, density: no more"));
    assert.ok(lines.includes("not measured: firecracker: firecracker is not installed"));
    assert.match(formatLadder(result), /Files and disk: time against the plain process/);
  });

  it("a Markdown table has a row a rung with figures, but for the single namespaces", () => {
    const lines = markdownOf(madeUpResult()).split("\n");
    assert.match(lines[0] ?? "", /^\| Rung \| first output/);
    assert.deepEqual(
      lines.slice(2, 7).map((line) => line.split(" | ")[0]),
      ["| process", "| namespaces", "| runc", "| docker", "| vmlet (software KVM)"],
    );
    assert.match(lines[4] ?? "", /^\| runc \| 19\.\d ms \(.* to .*\) \| 1 \| /);
    assert.match(lines.at(-2) ?? "", /A CPU, .*A note\./);
  });

  it("a whole run has at least ten rounds of what has noise; a quick one has no density", () => {
    const { rounds } = planFor(false, undefined);
    for (const stage of ["start", "work", "network"] as const) assert.ok(rounds[stage].fast >= 10, stage);
    assert.equal(planFor(true, undefined).rounds.density.fast, 0);
    assert.equal(planFor(false, 3).rounds.start.slow, 3);
  });
});

describe("ladder: what a run that was killed has left", () => {
  it("is removed if it is this user's own folder; links, files and what is another's stay", () => {
    const folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    const before = process.env["TMPDIR"];
    try {
      process.env["TMPDIR"] = folder;
      // No process has such a number.
      const name = (what: string): string => `vmlet-ladder-4294967295-${what}`;
      const make = (what: string, mode: number): string => {
        const path = join(folder, name(what));
        mkdirSync(path);
        writeFileSync(join(path, "file"), "");
        chmodSync(path, mode);
        return path;
      };
      make("own", 0o700);
      make("open", 0o777);
      symlinkSync("nowhere", join(folder, name("dangling")));
      symlinkSync(make("target", 0o755), join(folder, name("link")));
      writeFileSync(join(folder, name("file")), "");
      const kept = ["dangling", "file", "link", "open", "target"];
      if (process.geteuid?.() === 0) {
        chownSync(make("others", 0o700), 65_534, 65_534);
        kept.push("others");
      }
      sweepStale();
      assert.deepEqual(readdirSync(folder).sort(), kept.sort().map(name));
    } finally {
      if (before === undefined) delete process.env["TMPDIR"];
      else process.env["TMPDIR"] = before;
      rmSync(folder, { recursive: true });
    }
  });
});
