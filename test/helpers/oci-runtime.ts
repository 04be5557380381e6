// vmlet-runtime's commands, as an engine calls them.
import { spawnSync } from "node:child_process";
import { existsSync } from "node:fs";
import { resolve } from "node:path";
import { isRoot } from "../../bench/ladder/detect.js";
import { whyNoBusybox } from "./busybox-image.js";
import { whyNoKvm } from "./kvm-guard.js";

export const RUNTIME = resolve("dist/vmlet-runtime");
/** Of a boot on a host that is busy with other tests, `ms`. */
export const RUNTIME_LIMIT_MS = 240_000;

export interface Answer {
  readonly status: number | null;
  readonly stdout: string;
  readonly stderr: string;
}

/** Why there can be no containers here; undefined if there can. */
export function whyNoContainers(): string | undefined {
  return (
    whyNoKvm() ??
    whyNoBusybox() ??
    (isRoot() ? undefined : "containers of an engine need root") ??
    (existsSync("/usr/lib/qemu/virtiofsd") ? undefined : "virtiofsd is not installed")
  );
}

/** A command over the state folder `root`. */
export function callRuntime(root: string, args: readonly string[]): Answer {
  const { status, stdout, stderr } = spawnSync(RUNTIME, ["--root", root, ...args], {
    // What a monitor inherits must not keep a test waiting.
    stdio: ["ignore", "pipe", "pipe"],
    timeout: RUNTIME_LIMIT_MS,
    encoding: "utf8",
  });
  return { status, stdout, stderr };
}
