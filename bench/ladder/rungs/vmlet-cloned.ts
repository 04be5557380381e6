// vmlet, cloned: a process has guests of one template ready, and a client asks it for one. As an engine has containers.
import { spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import { hasHardwareVirtualization, acceleratorKind } from "../../../vmm/host/facts.js";
import { defaultKernel, fastKernel, packageRoot } from "../../../vmm/host/guest-files.js";
import { timeLimit } from "../../../vmm/host/time-limit.js";
import { MEMORY_MIB, VM_TIMEOUT_MS } from "../limits.js";
import type { OpenRung, Rung } from "../rung.js";
import { guestAccelerator } from "../vm-guest.js";
import type { Workspace } from "../workspace.js";
import { detectVmlet } from "./vmlet.js";

const POLL_MS = 50;
const DAY_MS = 86_400_000;

function library(): string {
  return join(packageRoot(), "dist/index.js");
}

/** Below the launcher, which ends it if we die. */
async function open(workspace: Workspace): Promise<OpenRung> {
  const isHardware = hasHardwareVirtualization(acceleratorKind());
  const kernel = isHardware ? defaultKernel() : fastKernel();
  const socket = join(workspace.folder, "clones");
  const program = join(packageRoot(), "bench/ladder/programs/clones.mjs");
  const words = [process.execPath, program, library(), socket, kernel, workspace.initrd, String(MEMORY_MIB)];
  const child = spawn(workspace.launcher, ["-t", String(DAY_MS), "-m", "it prints no marker", "--", ...words], {
    stdio: ["pipe", "ignore", "ignore"],
  });
  const ended = once(child, "close");
  const stop = async (): Promise<void> => {
    child.stdin.end();
    child.kill("SIGTERM");
    await ended;
  };
  const limitMs = timeLimit("the boot of the template", VM_TIMEOUT_MS);
  const started = performance.now();
  while (!existsSync(socket)) {
    if (child.exitCode !== null || workspace.signal.aborted || performance.now() - started > limitMs) {
      await stop();
      throw new Error("the process that has the guests did not start");
    }
    await delay(POLL_MS);
  }
  return {
    command: ({ program: inside }) => [workspace.ask, socket, ...inside],
    accelerator: guestAccelerator,
    ...(child.pid === undefined ? {} : { engine: child.pid }),
    close: stop,
  };
}

export const vmletCloned: Rung = {
  name: "vmlet-cloned",
  adds: "the same from a process that has such guests ready",
  family: "vm",
  limits: "own",
  network: { none: "its guests have no network device" },
  timeoutMs: VM_TIMEOUT_MS,
  detect: () => {
    const found = detectVmlet();
    if ("missing" in found) return found;
    return existsSync("/dev/kvm") ? found : { missing: "there is no /dev/kvm" };
  },
  open,
};
