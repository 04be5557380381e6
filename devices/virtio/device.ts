// What a device is to the transport, and what the transport is to a device.
import type { AccessSize, GuestMemory } from "../contracts.js";
import type { State, StateReader } from "../state.js";
import type { Queue } from "./queue.js";

/** Plain numbers that only grow, for statistics; the names are for people. */
export type Counters = Readonly<Record<string, number>>;

export interface VirtioDevice {
  /** Short instance name for traces and statistics, such as "block0". */
  readonly name: string;
  /** VIRTIO_ID_*. */
  readonly deviceType: number;
  /** Feature bits of this kind of device; VERSION_1 and those of the ring are the transport's. */
  readonly offeredFeatures: bigint;
  /** Of the transport's, those that whoever serves the queues elsewhere does not know: a driver is not offered them. */
  readonly missingFeatures?: bigint;
  /** Largest size of each queue, a power of two. */
  readonly queueMaxSizes: readonly number[];
  readonly counters: Counters;
  /**
   * Another process, or the host's kernel, may serve the queues, and nobody tells the transport of used buffers: InterruptStatus says so from
   * DRIVER_OK to the reset, and a driver that looks in vain finds its rings empty.
   */
  readonly isServedElsewhere?: boolean;
  readConfig(offset: number, size: AccessSize): number;
  writeConfig(offset: number, size: AccessSize, value: number): void;
  /** The driver has set DRIVER_OK: the context is valid from here to `reset`. */
  activate(context: ActivationContext): void;
  /**
   * There may be chains in the queue: serves them, but not more than a turn's worth. True if there
   * is more to do: the transport then calls again in a later turn. A QueueError ends in
   * DEVICE_NEEDS_RESET; whatever the driver does, nothing else may be thrown.
   */
  onAvailable(queueIndex: number): boolean;
  /** Of one that is served elsewhere: its interrupts come through the transport, and through this thread, or do so no more. */
  relayInterrupts?(isOn: boolean): void;
  /**
   * Somebody follows which pages of memory change, or does so no more: only this process may write to them meanwhile, which
   * tells of it.
   */
  followPages?(isOn: boolean): void;
  /** The driver has stopped this queue of a live device: nothing of it is touched any more. */
  queueStopped?(queueIndex: number): void;
  /**
   * Done when nothing is in flight: no request that another thread or the kernel has, and that is not answered. No queue
   * is served from here to `unquiesce`. What host programs send meanwhile waits.
   */
  quiesce?(): void | Promise<void>;
  /** The queues will be served again, each at once. */
  unquiesce?(): void;
  /** While quiet: what the guest has stored is on its medium when this is done. Rejects with StateError. */
  flush?(): Promise<void>;
  /** Chains of the queue that were taken last and have not been given back: a restored device takes them again. */
  heldChains?(queueIndex: number): number;
  /** Why its state cannot be saved as it is now, if so; only while quiet. */
  whyNotSaved?(): string | undefined;
  /** All that the device needs to go on in another process, besides its options; only while quiet. */
  save(): State;
  /** Takes up a saved state: comes before `activate`, and at most once. Throws StateError. */
  restore(state: StateReader): void;
  /** Back to the state before `activate`; also called if `activate` never was. Must not fail. */
  reset(): void;
}

export interface ActivationContext {
  readonly memory: GuestMemory;
  /** What was negotiated, the transport's bits included. */
  readonly features: bigint;
  /** One a queue; those that the driver did not set up are stopped, hence always empty. */
  readonly queues: readonly Queue[];
  /** Used buffer notification of one of `queues`: after a `publishUsed` that says so. */
  interrupt(queue: Queue): void;
  /** The configuration space has changed: counts its generation up and notifies the driver (§2.5). */
  configChanged(): void;
  /** Runs the device's `onAvailable` now, and handles its errors: for timers, files, sockets. */
  serve(queueIndex: number): void;
  /** The driver has broken the protocol: DEVICE_NEEDS_RESET. The device is left alone until reset. */
  fail(reason: string): void;
}
