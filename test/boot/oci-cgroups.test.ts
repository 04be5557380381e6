// Needs: root and control groups of this host for its first test, the lab for its second, which has version 2. A container's limits
// as the kernel reads them back, what they stop, the figures, and that nothing stays.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { build } from "esbuild";
import { isRoot } from "../../bench/ladder/detect.js";
import { guestRunner, whyNoBoot } from "../helpers/guest-runner.js";
import { skip } from "../helpers/skip.js";

const LIMIT_MS = 240_000;
const MEMORY = String((16 + 160) * 1024 * 1024);
const LOW = String((8 + 160) * 1024 * 1024);

interface Found {
  readonly version: 1 | 2;
  readonly first: object;
  readonly second: object;
  readonly figures: {
    readonly cpu: { usage: { total: number; user: number }; throttling: { throttledPeriods: number } };
    readonly memory: { usage: { limit: number; max: number } };
    readonly pids: { limit: number };
  };
  readonly signal: string;
  readonly kills: number;
  readonly refused: string;
  readonly left: readonly string[];
}

describe("oci control groups", function () {
  this.timeout(LIMIT_MS);

  const program = async (): Promise<string> => {
    const { outputFiles } = await build({
      entryPoints: ["build/test/helpers/cgroup-check.js"],
      bundle: true,
      minify: true,
      write: false,
      platform: "node",
      format: "esm",
    });
    return outputFiles[0]?.text ?? "";
  };
  const check = ({ version, first, second, figures, signal, kills, refused, left }: Found): void => {
    const weight = version === 1 ? "512" : "20";
    const none = version === 1 ? "-1 100000" : "max 100000";
    const cpu = "20000 100000";
    assert.deepEqual(first, { memory: MEMORY, low: LOW, pids: "100", cpu, weight, cpus: "0" });
    assert.deepEqual(second, { memory: MEMORY, low: LOW, pids: "300", cpu: none, weight, cpus: "0" });
    assert.deepEqual([figures.memory.usage.limit, figures.pids.limit], [Number(MEMORY), 100]);
    assert.ok(figures.cpu.usage.total > 50_000_000 && figures.cpu.usage.user > 0, JSON.stringify(figures.cpu));
    assert.ok(figures.cpu.throttling.throttledPeriods > 0 && figures.memory.usage.max > 1_000_000);
    assert.deepEqual([signal, kills > 0, left], ["SIGKILL", true, []]);
    assert.match(refused, /container's cgroup .* is not empty: \d+ process\(es\) found/);
  };

  it("of this host: limits, update, throttling, a process that eats too much, the end", async function () {
    if (!isRoot()) return skip(this, "making control groups needs root");
    const words = ["--input-type=module", "--eval", await program()];
    const { stdout, stderr, status } = spawnSync(process.execPath, words, { encoding: "utf8", timeout: LIMIT_MS });
    if (/EROFS|EACCES/.test(stderr)) return skip(this, "control groups cannot be made here");
    assert.equal(status, 0, stderr);
    check(JSON.parse(stdout) as Found);
  });

  it("of version 2, in the lab: the same", async function () {
    const why = whyNoBoot();
    if (why !== undefined) return skip(this, why);
    const runner = await guestRunner();
    if (!runner.isLab) return skip(this, "this host's control groups are not to be mounted again");
    const mounts = "grep -q cgroup2 /proc/mounts || mount -t cgroup2 none /sys/fs/cgroup";
    const { stdout, stderr } = await runner.shell(
      `${mounts}; node --input-type=module <<'END'\n${await program()}\nEND`,
    );
    assert.notEqual(stdout, "", stderr);
    const found = JSON.parse(stdout) as Found;
    assert.equal(found.version, 2);
    check(found);
  });
});
