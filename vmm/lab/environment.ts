// How programs are started in the lab.

export const ENVIRONMENT = {
  PATH: "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
  HOME: "/root",
  VMLET_IN_LAB: "1",
};

/** As the first line of dist/vmlet.js has it: the hash seed of the start-up snapshot need not be changed. */
export const NODE: readonly string[] = ["node", "--no-rehash-snapshot"];

/** First argument of the vmlet that waits in a saved state: not for users, who could give it no work. */
export const WAIT_COMMAND = "wait-for-work";
