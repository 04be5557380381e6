// Docker: the engine that runs here, or one of the benchmark's own, started and stopped by it.
import { join } from "node:path";
import { detectProgram, program as hostProgram } from "../detect.js";
import { findProgram } from "../../../vmm/lab/programs.js";
import { startEngine, type Engine } from "../docker-engine.js";
import { CONTAINER_TIMEOUT_MS, CPUS, MEMORY_MIB, type OpenRung, type Rung } from "../rung.js";
import { runProgram, tryProgram } from "../run-program.js";
import type { Site } from "../site.js";

async function open(site: Site): Promise<OpenRung> {
  const client = hostProgram("docker");
  const running = tryProgram(client, ["version"]);
  const engine: Engine = running ? { host: [], stop: () => Promise.resolve() } : await startEngine(site, client);
  const image = `${site.run}:1`;
  try {
    const archive = join(site.folder, "docker-root.tar");
    runProgram("tar", ["-C", site.root, "-cf", archive, "."]);
    runProgram(client, [...engine.host, "import", archive, image]);
  } catch (error) {
    await engine.stop();
    throw error;
  }
  const limits = ["--memory", `${String(MEMORY_MIB)}m`, "--cpus", String(CPUS), "--cgroup-parent", `/${site.run}`];
  const pid = engine.process?.pid;
  return {
    command: ({ name, program }) => [
      client,
      ...engine.host,
      ...["run", "--rm", "--name", name, "--network", "none", ...limits, image, ...program],
    ],
    remove: (name) => {
      tryProgram(client, [...engine.host, "rm", "--force", name]);
    },
    ...(pid === undefined ? {} : { engine: pid }),
    close: async () => {
      tryProgram(client, [...engine.host, "image", "rm", "--force", image]);
      await engine.stop();
    },
  };
}

export const docker: Rung = {
  name: "docker",
  adds: "an engine with a daemon: images, layers, an API",
  family: "engine",
  limits: "own",
  debianPackage: "docker.io",
  timeoutMs: CONTAINER_TIMEOUT_MS,
  detect: () => {
    const client = detectProgram("docker", "docker.io");
    if ("missing" in client || findProgram("dockerd") !== undefined) return client;
    return tryProgram(hostProgram("docker"), ["version"])
      ? client
      : { missing: "no engine runs, and dockerd is not installed (Debian: docker.io)" };
  },
  open,
};
