// Network device: features, configuration, life cycle. virtio 1.2 §5.1.
// Somebody else (vhost.ts) serves the queues while he may: not while the VM is saved, or somebody limits or follows what moves.
// Left out on purpose: control queue, several queue pairs, UFO and USO, hash reports, filters
// (the host's bridge or firewall filters).
import type { AccessSize } from "../../contracts.js";
import type { State, StateReader } from "../../state.js";
import { ConfigSpace } from "../config-space.js";
import { VIRTIO_ID_NET } from "../constants.js";
import type { ActivationContext, Counters, VirtioDevice } from "../device.js";
import type { EventLoop } from "../event-loop.js";
import { featureSet, hasFeature } from "../features.js";
import { LimitedReport } from "../limited-report.js";
import type { RateLimiterConfig } from "../rate-limiter.js";
import { Throttle } from "../throttle.js";
import type { GuestOffloads, NetBackend } from "./backend.js";
import {
  DEFAULT_MTU,
  ETHERNET_VLAN_HEADER_SIZE,
  MAX_GSO_FRAME_SIZE,
  NET_RECEIVEQ,
  NET_TRANSMITQ,
  VIRTIO_NET_CONFIG_LENGTH,
  VIRTIO_NET_CONFIG_MAC,
  VIRTIO_NET_CONFIG_MAX_VIRTQUEUE_PAIRS,
  VIRTIO_NET_CONFIG_MTU,
  VIRTIO_NET_CONFIG_STATUS,
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_HOST_TSO4,
  VIRTIO_NET_F_HOST_TSO6,
  VIRTIO_NET_F_MAC,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_F_STATUS,
  VIRTIO_NET_HDR_SIZE,
  VIRTIO_NET_S_LINK_UP,
} from "./constants.js";
import { netCounters, type NetCounters } from "./counters.js";
import { MAC_ADDRESS_BYTES } from "./mac-address.js";
import { Receiver } from "./receiver.js";
import { restoreNet, saveNet, type NetThrottles } from "./state.js";
import { Transmitter } from "./transmitter.js";
import type { NetMoved } from "./vhost.js";

const QUEUE_SIZE = 256;

const OFFLOAD_FEATURES = [
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_HOST_TSO4,
  VIRTIO_NET_F_HOST_TSO6,
];

export interface NetDeviceOptions {
  /** Short instance name, such as "net0". */
  readonly name: string;
  readonly backend: NetBackend;
  /** 6 bytes, see `parseMacAddress`. */
  readonly mac: Uint8Array;
  /** A restored device has this address, and not the saved one. */
  readonly isMacOwn?: boolean;
  /** `bytes` of a packet that the network carries, told to the driver if given. */
  readonly mtu?: number | undefined;
  readonly rxRateLimiter?: RateLimiterConfig | undefined;
  readonly txRateLimiter?: RateLimiterConfig | undefined;
  readonly loop: EventLoop;
  /** Takes a line for the log. */
  readonly report: (line: string) => void;
}

/** Why the device serves its queues itself, though there is somebody who could. */
type Reason = "quiet" | "pages" | "limits" | "link" | "refused";

/** What exists between DRIVER_OK and reset. */
interface Session {
  readonly context: ActivationContext;
  readonly hasStatus: boolean;
  readonly receiver: Receiver;
  readonly transmitter: Transmitter;
}

export class NetDevice implements VirtioDevice {
  readonly name: string;
  readonly deviceType = VIRTIO_ID_NET;
  readonly offeredFeatures: bigint;
  readonly queueMaxSizes = [QUEUE_SIZE, QUEUE_SIZE];
  readonly isServedElsewhere: boolean;
  readonly missingFeatures: bigint;
  readonly #counters: NetCounters & Counters = { ...netCounters() };
  readonly #backend: NetBackend;
  readonly #config: ConfigSpace;
  readonly #mtu: number;
  readonly #throttles: NetThrottles;
  readonly #isMacOwn: boolean;
  readonly #report: LimitedReport;
  readonly #saidErrors = new Set<string>();
  #isLinkUp = true;
  /** The link has come back with a restore, and the driver does not know. */
  #hasNewLink = false;
  #session: Session | undefined;
  readonly #reasons = new Set<Reason>();
  /** While somebody else has the queues: what he had moved when it was looked at last. */
  #counted: NetMoved | undefined;

  constructor(options: NetDeviceOptions) {
    const { backend, mac, mtu, loop } = options;
    if (mac.length !== MAC_ADDRESS_BYTES) {
      throw new RangeError(`MAC address of ${String(mac.length)} bytes instead of ${String(MAC_ADDRESS_BYTES)}`);
    }
    this.name = options.name;
    this.#backend = backend;
    this.isServedElsewhere = backend.vhost !== undefined;
    this.missingFeatures = backend.vhost === undefined ? 0n : ~backend.vhost.features;
    this.#mtu = mtu ?? DEFAULT_MTU;
    const always = [VIRTIO_NET_F_MAC, VIRTIO_NET_F_STATUS, VIRTIO_NET_F_MRG_RXBUF];
    const offloads = backend.canOffload ? OFFLOAD_FEATURES : [];
    this.offeredFeatures = featureSet(...always, ...offloads, ...(mtu === undefined ? [] : [VIRTIO_NET_F_MTU]));
    this.#config = new ConfigSpace(VIRTIO_NET_CONFIG_LENGTH);
    this.#setMac(mac);
    this.#isMacOwn = options.isMacOwn ?? false;
    this.#config.setU16(VIRTIO_NET_CONFIG_STATUS, VIRTIO_NET_S_LINK_UP);
    this.#config.setU16(VIRTIO_NET_CONFIG_MAX_VIRTQUEUE_PAIRS, 1);
    this.#config.setU16(VIRTIO_NET_CONFIG_MTU, this.#mtu);
    this.#throttles = {
      rx: new Throttle(options.rxRateLimiter, loop),
      tx: new Throttle(options.txRateLimiter, loop),
    };
    this.#report = new LimitedReport(loop, options.report);
  }

  get counters(): NetCounters & Counters {
    this.#countMoved();
    return this.#counters;
  }

  /** Plugs the cable in or pulls it out; frames that the guest sends without it are dropped. */
  setLink(isUp: boolean): void {
    if (isUp === this.#isLinkUp) return;
    this.#isLinkUp = isUp;
    this.#config.setU16(VIRTIO_NET_CONFIG_STATUS, isUp ? VIRTIO_NET_S_LINK_UP : 0);
    if (this.#session?.hasStatus === true) this.#session.context.configChanged();
    this.#serveItself("link", !isUp);
  }

  /** Buckets that are not given stay as they are. */
  updateRateLimiters({ rx, tx }: { readonly rx?: RateLimiterConfig; readonly tx?: RateLimiterConfig }): void {
    this.#serveItself("limits", true);
    if (rx !== undefined) this.#throttles.rx.update(rx);
    if (tx !== undefined) this.#throttles.tx.update(tx);
  }

  readConfig(offset: number, size: AccessSize): number {
    return this.#config.read(offset, size);
  }

  writeConfig(): void {
    // Since version 1 the address is not the driver's to write: that would be the control queue's.
  }

  activate(context: ActivationContext): void {
    const { features } = context;
    const receiveq = context.queues[NET_RECEIVEQ];
    const transmitq = context.queues[NET_TRANSMITQ];
    if (receiveq === undefined || transmitq === undefined) return;
    const offloads = guestOffloads(features);
    const error = this.#backend.setGuestOffloads(offloads);
    if (error !== 0) this.#report.line(`${this.name}: Offloads cannot be set: ${this.#backend.explain(error)}`);
    this.#backend.announce?.(this.#mac);
    const frameBytes = offloads.tso4 || offloads.tso6 ? MAX_GSO_FRAME_SIZE : ETHERNET_VLAN_HEADER_SIZE + this.#mtu;
    this.#session = {
      context,
      hasStatus: hasFeature(features, VIRTIO_NET_F_STATUS),
      receiver: new Receiver({
        context,
        queue: receiveq,
        backend: this.#backend,
        throttle: this.#throttles.rx,
        counters: this.#counters,
        isMergeable: hasFeature(features, VIRTIO_NET_F_MRG_RXBUF),
        maxFrameBytes: VIRTIO_NET_HDR_SIZE + frameBytes,
        onError: (code) => this.#onError("Receiving", code),
      }),
      transmitter: new Transmitter({
        context,
        queue: transmitq,
        backend: this.#backend,
        throttle: this.#throttles.tx,
        counters: this.#counters,
        isLinkUp: () => this.#isLinkUp,
        onError: (code) => this.#onError("Sending", code),
      }),
    };
    // Frames may wait already; the first look also starts the watch.
    if (!this.#handOver(this.#session)) this.#serveAll(this.#session);
    if (this.#hasNewLink && this.#session.hasStatus) context.configChanged();
    this.#hasNewLink = false;
  }

  quiesce(): void {
    this.#serveItself("quiet", true);
    this.#session?.receiver.quiesce();
  }

  unquiesce(): void {
    this.#serveItself("quiet", false);
  }

  relayInterrupts(isOn: boolean): void {
    this.#backend.vhost?.relay(isOn ? this.#relayInterrupt : undefined);
  }

  followPages(isOn: boolean): void {
    this.#serveItself("pages", isOn);
  }

  queueStopped(queueIndex: number): void {
    this.#backend.vhost?.stopQueue(queueIndex);
  }

  /** Held buffers come again, with what a backend has put into them of a frame that has not ended: it is lost. */
  heldChains(queueIndex: number): number {
    return queueIndex === NET_RECEIVEQ ? (this.#session?.receiver.heldChains ?? 0) : 0;
  }

  save(): State {
    return saveNet({ mac: this.#mac, isLinkUp: this.#isLinkUp }, this.#throttles);
  }

  /** The host side is another one, and its link is up. */
  restore(state: StateReader): void {
    const { mac, isLinkUp } = restoreNet(state, this.#throttles);
    if (!this.#isMacOwn) this.#setMac(mac);
    this.#hasNewLink = !isLinkUp;
    // A restored device is quiet until it is told otherwise.
    this.#reasons.add("quiet");
  }

  reset(): void {
    this.#takeBack();
    this.#backend.unwatch();
    this.#throttles.rx.cancel();
    this.#throttles.tx.cancel();
    this.#session = undefined;
  }

  onAvailable(queueIndex: number): boolean {
    const session = this.#session;
    if (session === undefined) return false;
    if (this.#counted !== undefined) {
      this.#backend.vhost?.kick(queueIndex);
      return false;
    }
    return queueIndex === NET_RECEIVEQ ? session.receiver.serve() : session.transmitter.serve();
  }

  readonly #relayInterrupt = (queueIndex: number): void => {
    const { context } = this.#session ?? {};
    const queue = context?.queues[queueIndex];
    if (queue !== undefined) context?.interrupt(queue);
  };

  /** One more reason to do so, or one less. */
  #serveItself(reason: Reason, isOn: boolean): void {
    if (isOn) this.#reasons.add(reason);
    else this.#reasons.delete(reason);
    const session = this.#session;
    if (session === undefined) return;
    if (isOn && this.#counted !== undefined) {
      this.#takeBack();
      for (const queue of session.context.queues) queue.takeOver();
      this.#serveAll(session);
    } else if (!isOn) {
      this.#handOver(session);
    }
  }

  /** True if somebody else has the queues. */
  #handOver({ context, receiver }: Session): boolean {
    const { vhost } = this.#backend;
    if (this.#counted !== undefined) return true;
    if (vhost === undefined || this.#reasons.size > 0) return false;
    receiver.leave();
    const moved = vhost.moved();
    const error = vhost.start(
      context.features,
      context.queues.map((queue) => queue.served()),
    );
    if (error === 0) {
      this.#counted = moved;
      return true;
    }
    this.#hearNotifications();
    this.#reasons.add("refused");
    // What has gone meanwhile has said so.
    if (this.#isLinkUp)
      this.#report.line(`${this.name}: ${vhost.name} does not serve it: ${this.#backend.explain(error)}`);
    return false;
  }

  #takeBack(): void {
    if (this.#counted === undefined) return;
    this.#hearNotifications();
    this.#countMoved();
    this.#counted = undefined;
  }

  /** What moves past this device is counted when somebody asks. */
  #countMoved(): void {
    const { vhost } = this.#backend;
    if (this.#counted === undefined || vhost === undefined) return;
    const [before, now] = [this.#counted, vhost.moved()];
    this.#counters.rxFrames += now.rxFrames - before.rxFrames;
    this.#counters.rxBytes += now.rxBytes - before.rxBytes;
    this.#counters.txFrames += now.txFrames - before.txFrames;
    this.#counters.txBytes += now.txBytes - before.txBytes;
    this.#counted = now;
  }

  #hearNotifications(): void {
    this.#backend.vhost?.stop((queueIndex) => this.#session?.context.serve(queueIndex));
  }

  #serveAll({ context }: Session): void {
    context.queues.forEach((_, queueIndex) => {
      context.serve(queueIndex);
    });
  }

  get #mac(): Uint8Array {
    return Uint8Array.from({ length: MAC_ADDRESS_BYTES }, (_, index) =>
      this.#config.read(VIRTIO_NET_CONFIG_MAC + index, 1),
    );
  }

  #setMac(mac: Uint8Array): void {
    mac.forEach((byte, index) => this.#config.setU8(VIRTIO_NET_CONFIG_MAC + index, byte));
  }

  /** Once for each kind of error: one that lasts is counted, and says nothing new. */
  #onError(what: string, error: number): void {
    const kind = `${what} ${String(error)}`;
    if (!this.#isLinkUp || this.#saidErrors.has(kind)) return;
    this.#saidErrors.add(kind);
    this.#report.line(`${this.name}: ${what} failed: ${this.#backend.explain(error)}`);
  }
}

/** TSO means nothing without GUEST_CSUM, on which it depends (§5.1.3.1). */
function guestOffloads(features: bigint): GuestOffloads {
  const checksum = hasFeature(features, VIRTIO_NET_F_GUEST_CSUM);
  return {
    checksum,
    tso4: checksum && hasFeature(features, VIRTIO_NET_F_GUEST_TSO4),
    tso6: checksum && hasFeature(features, VIRTIO_NET_F_GUEST_TSO6),
  };
}
