// Docker: the engine that runs here, or one of the benchmark's own, started and stopped by it. With its own runtime, and with
// those that give each container a kernel: vmlet, gVisor's runsc, Kata Containers.
import { existsSync } from "node:fs";
import { findProgram } from "../../../vmm/host/programs.js";
import { VIRTIOFSD } from "../../../vmm/virtio/backends/virtiofsd-command.js";
import { detectRootProgram, program as hostProgram, type Detection } from "../detect.js";
import { CONTAINER_TIMEOUT_MS, CPUS, MEMORY_MIB, VM_TIMEOUT_MS } from "../limits.js";
import type { OpenRung, Rung } from "../rung.js";
import { tryProgram } from "../run-program.js";
import type { Workspace } from "../workspace.js";
import { guestAccelerator } from "../vm-guest.js";
import { joinEngine, runtimesHere } from "./docker-engine.js";

async function open(workspace: Workspace, runtime?: string): Promise<OpenRung> {
  const client = hostProgram("docker");
  const engine = await joinEngine(workspace);
  const limits = ["--memory", `${String(MEMORY_MIB)}m`, "--cpus", String(CPUS), "--cgroup-parent", `/${workspace.run}`];
  const pid = engine.process?.pid;
  return {
    command: ({ name, program, network }) => [
      client,
      ...engine.host,
      ...["run", "--rm", "--name", name, "--network", network === undefined ? "none" : "bridge", ...limits],
      ...(runtime === undefined ? [] : ["--runtime", runtime]),
      ...[engine.image, ...program],
    ],
    ...(engine.isRunning
      ? { noNetwork: "the engine that runs here has a network of its own, which stays as it is" }
      : {}),
    remove: (names) => {
      tryProgram(client, [...engine.host, "rm", "--force", ...names]);
    },
    ...(pid === undefined ? {} : { engine: pid }),
    close: () => engine.leave(),
  };
}

function detectEngine(): Detection {
  const client = detectRootProgram("docker", "docker.io");
  if ("missing" in client || findProgram("dockerd") !== undefined) return client;
  return tryProgram(hostProgram("docker"), ["version"])
    ? client
    : { missing: "no engine runs, and dockerd is not installed (Debian: docker.io)" };
}

export const docker: Rung = {
  name: "docker",
  adds: "an engine with a daemon: images, layers, an API",
  family: "engine",
  limits: "own",
  network: "bridge",
  debianPackage: "docker.io",
  timeoutMs: CONTAINER_TIMEOUT_MS,
  detect: detectEngine,
  open: (workspace) => open(workspace),
};

interface RuntimeRung {
  readonly name: string;
  readonly adds: string;
  /** Of the runtime's name, program or type in the engine's list. */
  readonly pattern: RegExp;
  /** How one comes by it. */
  readonly cure: string;
  /** Why it cannot run although the engine knows it. */
  readonly whyNot?: () => string | undefined;
  /** What executes its guests' kernel code, in words. */
  readonly accelerator?: () => string;
}

function runtimeRung({ name, adds, pattern, cure, whyNot, accelerator }: RuntimeRung): Rung {
  /** Its name in the engine's list. */
  const known = (): { readonly isRunning: boolean; readonly runtime: string | undefined } => {
    const { isRunning, runtimes } = runtimesHere(hostProgram("docker"));
    return { isRunning, runtime: runtimes.find((words) => words.some((word) => pattern.test(word)))?.[0] };
  };
  return {
    name,
    adds,
    family: "vm",
    limits: "own",
    network: "bridge",
    timeoutMs: VM_TIMEOUT_MS,
    detect: () => {
      const engine = detectEngine();
      if ("missing" in engine) return engine;
      const { isRunning, runtime } = known();
      if (runtime === undefined) {
        return { missing: isRunning ? `the engine that runs here has no such runtime: ${cure}` : cure };
      }
      const reason = whyNot?.();
      return reason === undefined ? { version: `${engine.version}, --runtime=${runtime}` } : { missing: reason };
    },
    open: async (workspace) => ({ ...(await open(workspace, known().runtime)), accelerator }),
  };
}

export const dockerVmlet: Rung = runtimeRung({
  name: "docker-vmlet",
  adds: "the same command, with a kernel and a machine for each container",
  pattern: /^vmlet$|\/vmlet-runtime(\.js)?$/,
  cure: "vmlet oci install docker, or make build",
  whyNot: () => {
    if (!existsSync("/dev/kvm")) return "there is no /dev/kvm";
    return existsSync(VIRTIOFSD) ? undefined : "virtiofsd is not installed (Debian: qemu-system-common)";
  },
  accelerator: guestAccelerator,
});

export const dockerRunsc: Rung = runtimeRung({
  name: "docker-runsc",
  adds: "the same command, with gVisor's kernel in user space",
  pattern: /^runsc|\/runsc$/,
  cure: "runsc is not installed (gVisor; not in Debian)",
});

export const dockerKata: Rung = runtimeRung({
  name: "docker-kata",
  adds: "the same command, with a VM of Kata Containers",
  pattern: /^kata|kata-runtime$|io\.containerd\.kata/,
  cure: "kata-runtime is not installed (Kata Containers; not in Debian)",
});
