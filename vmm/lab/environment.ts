// How programs are started in the lab.
import { V8_FLAGS } from "../host/v8-flags.js";

export const ENVIRONMENT = {
  PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
  HOME: "/root",
  VMLET_IN_LAB: "1",
};

export const NODE: readonly string[] = ["node", ...V8_FLAGS];

/** First argument of the vmlet that waits in a saved state: not for users, who could give it no work. */
export const WAIT_COMMAND = "wait-for-work";

/** First argument of the monitor in there of a guest whose agent is spoken to from outside: nor is this one. */
export const GUEST_COMMAND = "guest-in-lab";

/** The same of a guest of vmlet-firecracker's. */
export const FIRECRACKER_GUEST_COMMAND = "firecracker-in-lab";
