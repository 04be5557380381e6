// A container's network namespace, for this process's main thread and all that it starts from then on.
import { closeSync, openSync } from "node:fs";
import { ConfigError } from "../errors.js";
import { CLONE_NEWNET, enterNamespace, unshare } from "../sys/namespaces.js";

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
