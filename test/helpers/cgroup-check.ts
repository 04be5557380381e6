// Where there are control groups that this process may make: limits of a container in them, as the kernel reads them back; what they
// stop; figures; and their end. Bundled for a host with another version; prints what it has found as one line of JSON.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync, mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { setLimits } from "../../vmm/oci/cgroup-limits.js";
import { oomKills, statistics } from "../../vmm/oci/cgroup-statistics.js";
import { cgroupPaths, checkCgroups, joinCgroups, makeCgroups, removeCgroups } from "../../vmm/oci/cgroups.js";

const MIB = 1024 * 1024;
const GUEST_BYTES = 16 * MIB;
/** More than guest and overhead. */
const EATER = "const all=[];for(let i=0;i<64;i++)all.push(Buffer.alloc(8*1024*1024,1));setTimeout(()=>{},1e5)";
const BUSY = "for(const t=Date.now();Date.now()-t<2000;);";

async function main(): Promise<object> {
  const paths = cgroupPaths("/vmlet-check/deep/one", "one", false);
  const version = paths[""] === undefined ? 1 : 2;
  const text = (controller: string, file: string): string | undefined => {
    const path = join(paths[version === 2 ? "" : controller] ?? "", file);
    return existsSync(path) ? readFileSync(path, "utf8").trim() : undefined;
  };
  const limits = (): object =>
    version === 2
      ? {
          memory: text("", "memory.max"),
          low: text("", "memory.low"),
          pids: text("", "pids.max"),
          cpu: text("", "cpu.max"),
          weight: text("", "cpu.weight"),
          cpus: text("", "cpuset.cpus"),
        }
      : {
          memory: text("memory", "memory.limit_in_bytes"),
          low: text("memory", "memory.soft_limit_in_bytes"),
          pids: text("pids", "pids.max"),
          cpu: `${text("cpu", "cpu.cfs_quota_us") ?? ""} ${text("cpu", "cpu.cfs_period_us") ?? ""}`,
          weight: text("cpu", "cpu.shares"),
          cpus: text("cpuset", "cpuset.cpus"),
        };
  const run = (script: string) => {
    const child = spawn(process.execPath, ["-e", `process.stdin.once("data",()=>{${script}})`], {
      stdio: ["pipe", "ignore", "ignore"],
    });
    joinCgroups(paths, child.pid ?? 0);
    child.stdin.end("x");
    return child;
  };
  checkCgroups(paths);
  makeCgroups(paths);
  try {
    const cpu = { quota: 20_000, period: 100_000, shares: 512, cpus: "0" };
    setLimits(paths, { cpu, memory: { reservation: 8 * MIB }, pids: { limit: 100 } }, GUEST_BYTES);
    const first = limits();
    const busy = run(BUSY);
    await once(busy, "exit");
    const figures = statistics(paths);
    setLimits(paths, { cpu: { quota: -1 }, pids: { limit: 300 } }, 0);
    const second = limits();
    const killsBefore = oomKills(paths);
    const eater = run(EATER);
    const [, signal] = (await once(eater, "exit")) as [number | null, string | null];
    const kills = oomKills(paths) - killsBefore;
    for (const path of Object.values(paths)) mkdirSync(join(path, "below"));
    const sleeper = run("setTimeout(()=>{},1e6)");
    let refused = "";
    try {
      checkCgroups(paths);
    } catch (error) {
      refused = (error as Error).message;
    }
    const ended = once(sleeper, "exit");
    await removeCgroups(paths, undefined);
    await ended;
    const left = Object.values(paths).filter((path) => existsSync(path));
    return { version, first, second, figures, signal, kills, refused, left };
  } finally {
    await removeCgroups(paths, undefined);
    await removeCgroups(cgroupPaths("/vmlet-check", "one", false), undefined);
  }
}

console.log(JSON.stringify(await main()));
