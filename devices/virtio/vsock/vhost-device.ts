// Socket device whose packets the host's kernel takes and brings: its programs and the guest's talk by AF_VSOCK. What stays with the
// device is the configuration, and the event queue, on which only a restore has something to say. virtio 1.2 §5.10.
// The kernel has the packet queues while it may: not while the VM is paused, or somebody follows which pages change.
// Left out on purpose: SOCK_SEQPACKET, so that a saved guest can go on with the other kind of socket device.
import type { AccessSize } from "../../contracts.js";
import type { State, StateReader } from "../../state.js";
import type { ConfigSpace } from "../config-space.js";
import { VIRTIO_ID_VSOCK } from "../constants.js";
import type { ActivationContext, VirtioDevice } from "../device.js";
import type { EventLoop } from "../event-loop.js";
import { vsockConfig } from "./config.js";
import { VSOCK_EVENT, VSOCK_QUEUE_SIZE, VSOCK_RX, VSOCK_TX } from "./constants.js";
import { checkVsock, saveVsock } from "./state.js";
import { TransportReset } from "./transport-reset.js";
import type { VsockVhost } from "./vhost.js";

/**
 * A restored driver has so long to see to its event, `ms`. A connection that is made before ends with it for the guest alone: the
 * program at the host's end would wait for ever. On a slow host a restored guest takes seconds to begin.
 */
const PATIENCE_MS = 10_000;

export interface VhostVsockDeviceOptions {
  /** Short instance name, such as "vsock0". */
  readonly name: string;
  readonly vhost: VsockVhost;
  /** Context id of the guest, from 3 on. */
  readonly guestCid: number;
  readonly loop: EventLoop;
}

/** Why the kernel has no queue for the time being. */
type Reason = "quiet" | "pages";

export class VhostVsockDevice implements VirtioDevice {
  readonly name: string;
  readonly deviceType = VIRTIO_ID_VSOCK;
  readonly offeredFeatures = 0n;
  readonly queueMaxSizes = [VSOCK_QUEUE_SIZE, VSOCK_QUEUE_SIZE, VSOCK_QUEUE_SIZE];
  readonly isServedElsewhere = true;
  /** The kernel tells nobody what it has moved. */
  readonly counters = {};
  readonly #vhost: VsockVhost;
  readonly #guestCid: number;
  readonly #config: ConfigSpace;
  readonly #transportReset: TransportReset;
  readonly #reasons = new Set<Reason>();
  /** What exists between DRIVER_OK and reset. */
  #context: ActivationContext | undefined;
  /** The kernel has the packet queues. */
  #isServed = false;

  constructor({ name, vhost, guestCid, loop }: VhostVsockDeviceOptions) {
    this.name = name;
    this.#vhost = vhost;
    this.#guestCid = guestCid;
    this.#config = vsockConfig(guestCid);
    this.#transportReset = new TransportReset(loop, PATIENCE_MS);
  }

  readConfig(offset: number, size: AccessSize): number {
    return this.#config.read(offset, size);
  }

  writeConfig(): void {
    // Nothing is the driver's to write.
  }

  activate(context: ActivationContext): void {
    this.#context = context;
    this.#enterKernel();
  }

  onAvailable(queueIndex: number): boolean {
    const context = this.#context;
    if (context === undefined) return false;
    const queue = context.queues[queueIndex];
    if (queueIndex === VSOCK_EVENT && queue !== undefined) {
      this.#transportReset.serve(queue, context, () => {
        this.#enterKernel();
      });
    } else if (this.#isServed) {
      this.#vhost.kick(queueIndex);
    }
    return false;
  }

  relayInterrupts(isOn: boolean): void {
    this.#vhost.relay(isOn ? this.#relayInterrupt : undefined);
  }

  /** Sockets wait meanwhile: nobody else can bring their packets. */
  followPages(isOn: boolean): void {
    this.#keepQueues("pages", isOn);
  }

  queueStopped(queueIndex: number): void {
    if (queueIndex !== VSOCK_EVENT) this.#leaveKernel();
  }

  quiesce(): void {
    this.#keepQueues("quiet", true);
  }

  unquiesce(): void {
    this.#keepQueues("quiet", false);
  }

  save(): State {
    return saveVsock(this.#guestCid);
  }

  /** The other ends of all connections are gone, and the guest may have another context id. */
  restore(state: StateReader): void {
    checkVsock(state);
    this.#transportReset.announce();
    // A restored device is quiet until it is told otherwise.
    this.#reasons.add("quiet");
  }

  reset(): void {
    this.#leaveKernel();
    this.#transportReset.clear();
    this.#context = undefined;
  }

  readonly #relayInterrupt = (queueIndex: number): void => {
    const queue = this.#context?.queues[queueIndex];
    if (queue !== undefined) this.#context?.interrupt(queue);
  };

  /** One more reason to do so, or one less. */
  #keepQueues(reason: Reason, isOn: boolean): void {
    if (isOn) {
      this.#reasons.add(reason);
      this.#leaveKernel();
    } else {
      this.#reasons.delete(reason);
      this.#enterKernel();
    }
  }

  #enterKernel(): void {
    const context = this.#context;
    if (context === undefined || this.#isServed) return;
    if (this.#reasons.size > 0 || this.#transportReset.holdsPackets) return;
    const rx = context.queues[VSOCK_RX]?.served();
    const tx = context.queues[VSOCK_TX]?.served();
    // With one of them alone there are no sockets.
    if (rx === undefined || tx === undefined) return;
    const problem = this.#vhost.start(context.features, [rx, tx]);
    this.#isServed = problem === undefined;
    if (problem !== undefined) context.fail(`The host's vhost-vsock does not serve it: ${problem}`);
  }

  #leaveKernel(): void {
    if (!this.#isServed) return;
    this.#isServed = false;
    this.#vhost.stop();
    // The kernel gives chains back in their order: it, or another one, goes on with the first that it has not.
    for (const queueIndex of [VSOCK_RX, VSOCK_TX]) this.#context?.queues[queueIndex]?.takeOver();
  }
}
