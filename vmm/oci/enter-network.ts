// A container's network namespace, for this process's main thread and all that it starts from then on.
import { closeSync, openSync } from "node:fs";
import { ConfigError } from "../errors.js";
import type { OciSpec } from "./runtime-spec.js";
import { CLONE_NEWNET, enterNamespace, unshare } from "../sys/namespaces.js";

/** Path of the container's network namespace; empty: one of its own, which goes with its last process or with the engine's use of it. */
export function networkPath({ linux }: OciSpec): string {
  return linux?.namespaces?.find(({ type }) => type === "network")?.path ?? "";
}

/** An empty path stands for a new one. Throws ConfigError, SystemCallError. */
export function enterNetwork(path: string): void {
  if (path === "") {
    unshare(CLONE_NEWNET);
    return;
  }
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch (error) {
    throw new ConfigError([`linux.namespaces: network ${path}: ${(error as NodeJS.ErrnoException).code ?? ""}`]);
  }
  try {
    enterNamespace(fd, CLONE_NEWNET);
  } finally {
    closeSync(fd);
  }
}
