// What a monitor that was killed has left in a network namespace that goes on: its TAP interfaces, and the redirection beside
// them. It had written down what it made before it made it.
import { closeSync, openSync } from "node:fs";
import { RouteSocket } from "../../sys/netlink.js";
import { CLONE_NEWNET, enterNamespace } from "../../sys/namespaces.js";
import { removeTap } from "../../virtio/backends/tap-interface.js";
import { networkPath } from "../enter-network.js";
import type { Container, NetworkState } from "../state.js";
import { removeRedirect } from "./redirect.js";

/** `text`: a NetworkState. Throws what the kernel refuses. */
export function removeLeft(container: Container, text: string): void {
  const path = networkPath(container.config);
  // A namespace of the monitor's own has ended with it.
  if (path === "") return;
  let fd: number;
  try {
    fd = openSync(path, "r");
  } catch {
    return;
  }
  const own = openSync("/proc/thread-self/ns/net", "r");
  try {
    enterNamespace(fd, CLONE_NEWNET);
    removeHere(JSON.parse(text) as NetworkState);
  } finally {
    enterNamespace(own, CLONE_NEWNET);
    closeSync(own);
    closeSync(fd);
  }
}

function removeHere({ taps, redirected }: NetworkState): void {
  const socket = new RouteSocket();
  try {
    for (const index of redirected) removeRedirect(socket, index);
  } finally {
    socket.close();
  }
  for (const tap of taps) {
    try {
      removeTap(tap);
    } catch {
      // Another VM has it by now.
    }
  }
}
