// runc and crun: the OCI runtime specification's two programs, with the configuration that
// each writes as its own default (`spec`), plus the ladder's limits.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { detectProgram, program as hostProgram } from "../detect.js";
import { CONTAINER_TIMEOUT_MS, CPUS, MEMORY_MIB, type OpenRung, type Rung } from "../rung.js";
import { runProgram, tryProgram } from "../run-program.js";
import type { Site } from "../site.js";

/** The fields of config.json that we change. */
interface OciConfig {
  process: { terminal: boolean; args: readonly string[] };
  root: { path: string; readonly: boolean };
  linux: { resources?: Record<string, unknown> };
}

function open(site: Site, runtime: string): OpenRung {
  const path = hostProgram(runtime);
  const folder = join(site.folder, runtime);
  const state = join(folder, "state");
  mkdirSync(folder);
  runProgram(path, ["spec"], { cwd: folder });
  const base = JSON.parse(readFileSync(join(folder, "config.json"), "utf8")) as OciConfig;
  const bundles = new Map<string, string>();

  const bundleFor = (program: readonly string[]): string => {
    const key = program.join("\0");
    const known = bundles.get(key);
    if (known !== undefined) return known;
    const bundle = join(folder, `bundle-${String(bundles.size)}`);
    mkdirSync(bundle);
    const config: OciConfig = {
      ...base,
      process: { ...base.process, terminal: false, args: program },
      root: { path: site.root, readonly: false },
      linux: {
        ...base.linux,
        resources: {
          ...base.linux.resources,
          memory: { limit: MEMORY_MIB * 2 ** 20 },
          cpu: { quota: CPUS * 100_000, period: 100_000 },
        },
      },
    };
    writeFileSync(join(bundle, "config.json"), JSON.stringify(config));
    bundles.set(key, bundle);
    return bundle;
  };

  // crun refuses hosts that mount v1 and v2 side by side; without v2 in its sight it works.
  const hides = runtime === "crun" && site.cgroups.kind === "hybrid" ? site.cgroups.unified : undefined;
  return {
    command: ({ name, program }) => [path, "--root", state, "run", "--bundle", bundleFor(program), name],
    remove: (name) => {
      tryProgram(path, ["--root", state, "delete", "--force", name]);
    },
    ...(hides === undefined ? {} : { hides }),
  };
}

function rung(name: "runc" | "crun", adds: string): Rung {
  return {
    name,
    adds,
    family: "runtime",
    limits: "own",
    debianPackage: name,
    timeoutMs: CONTAINER_TIMEOUT_MS,
    detect: () => detectProgram(name, name),
    open: (site) => open(site, name),
  };
}

export const runc: Rung = rung("runc", "the OCI standard: namespaces, limits, few capabilities");
export const crun: Rung = rung("crun", "the same, written in C");
