// runc and crun: the OCI runtime specification's two programs, with the configuration that
// each writes as its own default (`spec`), plus the ladder's limits.
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { detectRootProgram, program as hostProgram } from "../detect.js";
import type { Joint } from "../network.js";
import { CONTAINER_TIMEOUT_MS, CPUS, MEMORY_MIB } from "../limits.js";
import type { OpenRung, Rung } from "../rung.js";
import { runProgram, tryProgram } from "../run-program.js";
import type { Workspace } from "../workspace.js";

/** The fields of config.json that we change. */
interface OciConfig {
  process: { terminal: boolean; args: readonly string[] };
  root: { path: string; readonly: boolean };
  linux: { resources?: Record<string, unknown>; namespaces: readonly { type: string; path?: string }[] };
}

function open(workspace: Workspace, runtime: string): OpenRung {
  const path = hostProgram(runtime);
  const folder = join(workspace.folder, runtime);
  const state = join(folder, "state");
  mkdirSync(folder);
  runProgram(path, ["spec"], { cwd: folder });
  const base = JSON.parse(readFileSync(join(folder, "config.json"), "utf8")) as OciConfig;
  const bundles = new Map<string, string>();

  const bundleFor = (program: readonly string[], network: Joint | undefined): string => {
    const key = [network?.kind ?? "", ...program].join("\0");
    const known = bundles.get(key);
    if (known !== undefined) return known;
    const bundle = join(folder, `bundle-${String(bundles.size)}`);
    mkdirSync(bundle);
    const config: OciConfig = {
      ...base,
      process: { ...base.process, terminal: false, args: program },
      root: { path: workspace.root, readonly: false },
      linux: {
        ...base.linux,
        // What a CNI plug-in does: a namespace that has a link already.
        namespaces: base.linux.namespaces.map((one) =>
          one.type === "network" && network?.kind === "veth" ? { ...one, path: network.namespace } : one,
        ),
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
  const hides = runtime === "crun" && workspace.cgroups.kind === "hybrid" ? workspace.cgroups.unified : undefined;
  return {
    command: ({ name, program, network }) => [
      ...[path, "--root", state, "run", "--bundle", bundleFor(program, network), name],
    ],
    remove: (names) => {
      for (const name of names) tryProgram(path, ["--root", state, "delete", "--force", name]);
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
    network: "veth",
    debianPackage: name,
    timeoutMs: CONTAINER_TIMEOUT_MS,
    detect: () => detectRootProgram(name, name),
    open: (workspace) => open(workspace, name),
  };
}

export const runc: Rung = rung("runc", "the OCI standard: namespaces, limits, few capabilities");
export const crun: Rung = rung("crun", "the same, written in C");
