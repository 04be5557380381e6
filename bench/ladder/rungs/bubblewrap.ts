// bubblewrap: namespaces for programs of the desktop, set up by one small program.
import { entering } from "../network.js";
import { detectProgram, program as hostProgram } from "../detect.js";
import { CONTAINER_TIMEOUT_MS } from "../limits.js";
import type { Rung } from "../rung.js";

export const bubblewrap: Rung = {
  name: "bubblewrap",
  adds: "namespaces, no new privileges, /proc and /dev of its own",
  family: "runtime",
  limits: "group",
  network: "veth",
  debianPackage: "bubblewrap",
  timeoutMs: CONTAINER_TIMEOUT_MS,
  detect: () => detectProgram("bwrap", "bubblewrap"),
  open: (workspace) => {
    const flags = [
      ...["--unshare-all", "--die-with-parent", "--bind", workspace.root, "/", "--proc", "/proc", "--dev", "/dev"],
      ...["--chdir", "/"],
    ];
    return {
      command: ({ program, network }) => [
        ...entering(network),
        ...[hostProgram("bwrap"), ...flags, ...(network === undefined ? [] : ["--share-net"]), ...program],
      ],
    };
  },
};
