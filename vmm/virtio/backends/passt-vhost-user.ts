// passt as a process that serves the guest's queues by vhost-user.
import type { ResolvedUserNet } from "../../config/user-net.js";
import { streamPair } from "../../sys/sockets.js";
import { VHOST_USER_OPTION } from "./passt-program.js";
import { NOISE, noNetwork, passtArguments } from "./passt.js";
import { NEEDED_NET_FEATURES } from "./vhost-user-net.js";
import { beginVhostUser, endVhostUser, launchVhostUser, type VhostUserProcess } from "./vhost-user-process.js";

/** A passt that serves queues, on its way: until it is there, its caller has something else to do. */
export class StartingPasst {
  #launched: VhostUserProcess | undefined;

  /** `program`: its path. Throws HostError where nothing can be started. */
  constructor(program: string, user: ResolvedUserNet, mtu: number) {
    // Its parent can then end it, whatever it is at; into its namespaces and filter it goes nevertheless.
    const argv = [program, VHOST_USER_OPTION, "--foreground", ...passtArguments(user, mtu)];
    const [own, other] = streamPair();
    this.#launched = launchVhostUser({ name: "passt", argv, noise: NOISE }, own, other);
  }

  /**
   * Waits until it answers, and tells what it knows of virtio; once. Throws HostError for one that cannot be started, and
   * nothing is left of it then.
   */
  ready(): { readonly server: VhostUserProcess; readonly features: bigint } {
    const server = this.#launched;
    if (server === undefined) throw new Error("A passt that nobody starts any more");
    this.#launched = undefined;
    const answer = beginVhostUser(server, NEEDED_NET_FEATURES);
    if (typeof answer === "bigint") return { server, features: answer };
    endVhostUser(server);
    throw noNetwork(answer.split("; "));
  }

  /** Ends it, unless it has been given away. */
  cancel(): void {
    if (this.#launched !== undefined) endVhostUser(this.#launched);
    this.#launched = undefined;
  }
}
