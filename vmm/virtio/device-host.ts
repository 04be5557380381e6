// Owns the virtio devices of a VM, on the main thread: makes them, answers what vCPU threads ask
// for them, and has their queues served when the guest notifies. DESIGN.md, "Threads".
import type { BusDevice, InterruptLine, SharedWords } from "../../devices/contracts.js";
import { StateError, type State, type StateReader } from "../../devices/state.js";
import type { HintingStatus } from "../../devices/virtio/balloon/hinting.js";
import type { BalloonStatistics } from "../../devices/virtio/balloon/statistics.js";
import type { ConsoleHost } from "../../devices/virtio/console/backend.js";
import type { Counters, VirtioDevice } from "../../devices/virtio/device.js";
import { MmioTransport } from "../../devices/virtio/mmio-transport.js";
import type { TransportOptions, VirtioTransport } from "../../devices/virtio/transport.js";
import type { EventLoop } from "../../devices/virtio/event-loop.js";
import type { RateLimiterConfig } from "../../devices/virtio/rate-limiter.js";
import type { ResolvedConfig } from "../config/types.js";
import { DiskError, SnapshotError } from "../errors.js";
import type { DeviceLoop } from "./device-loop.js";
import type { Guard } from "./guard.js";
import type { MappedGuestMemory } from "../memory/guest-memory.js";
import { answerRegisterCall } from "./register-calls.js";
import type { VmShared } from "../vcpu/shared.js";
import { VIRTIO_PENDING_WORD } from "./virtio-port.js";

/** What a VM tells its console while it runs. */
export interface ConsoleControls {
  /** Input: how many bytes were taken. */
  receive(bytes: Uint8Array): number;
  receiveBreak(): void;
  /** The host takes output again. */
  outputReady(): void;
  resize(size: { readonly columns: number; readonly rows: number }): void;
}

/** All in `bytes`. */
export interface BalloonReport {
  /** What the guest is asked to give up ... */
  readonly targetBytes: number;
  /** ... and what it has given up. */
  readonly actualBytes: number;
  /** What the guest has last said about its memory. */
  readonly guest: BalloonStatistics | undefined;
}

export interface BalloonControls {
  setTarget(bytes: number): void;
  /** What is known; a guest that `isAsked` answers in its own time. */
  statistics(isAsked: boolean): BalloonReport;
  /** `s` after which the guest is asked, again and again. */
  setStatisticsInterval(seconds: number): void;
  startHinting(endsItself: boolean): void;
  stopHinting(): void;
  hintingStatus(): HintingStatus;
}

export interface LimiterControls {
  /** Buckets that are not given stay as they are. */
  updateRateLimiter(config: RateLimiterConfig): void;
}

export interface DiskControls extends LimiterControls {
  /** Another file in the place of the disk's. Throws DiskError or HostError, and nothing has changed then. */
  replaceFile(path: string): void;
}

export interface NetControls {
  /** As LimiterControls, for what the guest receives, and what it sends. */
  updateRateLimiters(limiters: { readonly rx?: RateLimiterConfig; readonly tx?: RateLimiterConfig }): void;
}

/** What the VM itself may ask of a device. */
export interface DeviceControls {
  console?: ConsoleControls;
  balloon?: BalloonControls;
  disk?: DiskControls;
  net?: NetControls;
  rng?: LimiterControls;
}

/** Ways between the guest and another process that serves the queues: nothing passes through this one. */
export interface DirectEvents {
  /** From now on, a notification of that queue signals the eventfd. Without KVM's help it still comes to the device. */
  connectKick(queueIndex: number, fd: number): void;
  /** From now on, whoever signals the eventfd interrupts the driver, for used buffers of that queue. */
  connectInterrupt(queueIndex: number, fd: number): void;
}

/** What a device may use of the monitor. */
export interface DeviceServices {
  readonly memory: MappedGuestMemory;
  /** Its tasks are guarded. */
  readonly loop: EventLoop;
  /** For every other callback of the event loop. */
  readonly guard: Guard;
  /** This thread runs a vCPU between its turns: nothing else waits for it, and completions from other threads arrive late. */
  readonly isMainPhase: () => boolean;
  /** Takes a line for the log. */
  readonly report: (line: string) => void;
  /** The terminal behind a console. */
  readonly consoleHost: ConsoleHost;
  /** What the guest's metadata service gives out. */
  readonly metadata: () => unknown;
  readonly events: DirectEvents;
  /** Takes what the VM may ask of the device. */
  readonly expose: (controls: DeviceControls) => void;
}

/** A device whose host side (a file, a TAP) has been opened and checked; the device itself comes later. */
export interface DeviceFactory {
  /** Unique in the VM, such as "vda": what statistics call it. */
  readonly name: string;
  /** Its input comes from the host through the event loop, which must then turn often. */
  readonly hearsHost?: boolean;
  /** Another process has the guest's memory for it. */
  readonly sharesMemory?: boolean;
  /** What its host side is, if another one could not take its place; while the device is quiet. */
  identity?(): State;
  /** Throws an error for the user if its host side is not the one of a saved device. */
  checkIdentity?(saved: StateReader): void;
  /** Another process may have its host side, while the device is quiet. */
  letGo?(): void;
  /** Nobody else may any more. Throws an error for the user if somebody has it. */
  takeBack?(): void;
  create(services: DeviceServices): VirtioDevice;
}

/** Opens the host side of all devices of one kind; `undo` takes what closes it. */
export type DeviceOpener = (config: ResolvedConfig, undo: (close: () => void) => void) => DeviceFactory[];

export interface HostedDevice {
  readonly factory: DeviceFactory;
  readonly interrupt: InterruptLine;
  /** The same interrupt, for a process that signals the eventfd. */
  readonly connectInterrupt?: (fd: number) => void;
  /** Its registers, as the guest reads them. */
  readonly registers: Int32Array;
}

/** A device where a driver finds it, and how it is saved there. */
export interface PlacedDevice {
  readonly transport: VirtioTransport;
  save(): State;
  /** As VirtioTransport.restore. */
  restore(state: StateReader, deviceState: StateReader): void;
}

/** Where devices are, if not each in a range of virtio-mmio. */
export interface DevicePlaces {
  /** What answers in the machine's ranges. */
  readonly registers: readonly BusDevice[];
  /** As DeviceHost.relayInterrupts, for what is there besides virtio devices. */
  relayInterrupts(isOn: boolean): void;
  /** Why the guest cannot be saved, whatever its virtio devices are; undefined if it can. */
  whyNotSaved(): string | undefined;
  place(options: TransportOptions, device: number): PlacedDevice;
  /** As DirectEvents.connectInterrupt, for a device that has been placed. */
  connectInterrupt(device: number, queueIndex: number, fd: number): void;
}

/** Available buffer notifications that reach this thread without an exit of the vCPU. */
export interface NotificationEvents {
  /** From now on, a write of `queueIndex` to QueueNotify of device `device` calls back. */
  connect(device: number, queueIndex: number, notified: () => void): void;
  /** The same, but it signals this eventfd, and nothing here. */
  connectTo(device: number, queueIndex: number, fd: number): void;
  /** From now on, acknowledging used buffers of device `device`, and nothing else, ends in the kernel. */
  silenceAcknowledgements(device: number): void;
  close(): void;
}

export interface DeviceHostOptions {
  readonly devices: readonly HostedDevice[];
  readonly memory: MappedGuestMemory;
  readonly shared: VmShared;
  readonly vcpus: number;
  /** The words of device `device`. */
  readonly words: (device: number) => SharedWords;
  readonly loop: DeviceLoop;
  readonly report: (line: string) => void;
  readonly consoleHost: ConsoleHost;
  readonly metadata?: (() => unknown) | undefined;
  /** Undefined where KVM has none: then every notification is an exit. */
  readonly events: NotificationEvents | undefined;
  readonly places?: DevicePlaces | undefined;
}

export class DeviceHost {
  /** One for each device, in their order. */
  readonly transports: readonly VirtioTransport[];
  /** What answers in the machine's ranges of virtio devices. */
  readonly registers: readonly BusDevice[];
  readonly #placed: readonly PlacedDevice[];
  readonly #places: DevicePlaces | undefined;
  /** Of the devices of which a VM has one at most. */
  readonly controls: Readonly<Pick<DeviceControls, "console" | "balloon">>;
  /** By the device's name. */
  readonly #controls = new Map<string, DeviceControls>();
  /** A device waits for events of the host. */
  readonly hearsHost: boolean;
  readonly #factories: readonly DeviceFactory[];
  readonly #words: readonly SharedWords[];
  readonly #calls: readonly SharedWords[];
  readonly #loop: DeviceLoop;
  readonly #events: NotificationEvents | undefined;
  #flushFailure: Error | undefined;

  constructor(options: DeviceHostOptions) {
    const { devices, memory, shared, vcpus, words, loop, report, consoleHost, events } = options;
    const metadata = options.metadata ?? (() => undefined);
    const single: DeviceControls = {};
    this.controls = single;
    this.hearsHost = devices.some(({ factory }) => factory.hearsHost === true);
    const guard: Guard = (task) => {
      loop.guard(task);
    };
    this.#factories = devices.map(({ factory }) => factory);
    this.#words = devices.map((_, device) => words(device));
    const windows: BusDevice[] = [];
    this.#placed = devices.map(({ factory, interrupt, connectInterrupt, registers }, device) => {
      const transportOptions = {
        device: factory.create({
          memory,
          loop,
          guard,
          isMainPhase: () => loop.isMainPhase,
          report,
          consoleHost,
          metadata,
          events: {
            connectKick: (queueIndex, fd) => events?.connectTo(device, queueIndex, fd),
            connectInterrupt: (queueIndex, fd) => {
              if (options.places === undefined) connectInterrupt?.(fd);
              else options.places.connectInterrupt(device, queueIndex, fd);
            },
          },
          expose: (exposed) => {
            this.#controls.set(factory.name, exposed);
            const { console, balloon } = exposed;
            Object.assign(single, console !== undefined && { console }, balloon !== undefined && { balloon });
          },
        }),
        memory,
        loop,
        report,
      };
      if (options.places !== undefined) return options.places.place(transportOptions, device);
      const transport = new MmioTransport({ ...transportOptions, interrupt, registers });
      windows.push(transport);
      return {
        transport,
        save: () => transport.save(),
        restore: (state: StateReader, deviceState: StateReader) => {
          transport.restore(state, deviceState);
        },
      };
    });
    this.transports = this.#placed.map(({ transport }) => transport);
    this.registers = options.places?.registers ?? windows;
    this.#calls =
      this.registers.length === 0 ? [] : Array.from({ length: vcpus }, (_, vcpu) => shared.registerCall(vcpu));
    this.#loop = loop;
    this.#events = events;
    this.#places = options.places;
  }

  /** True while this thread runs a vCPU between the turns of its event loop. */
  set isMainPhase(value: boolean) {
    this.#loop.isMainPhase = value;
  }

  /** Serves what vCPU threads have left here since the last time. */
  service(): void {
    this.#loop.guard(() => {
      // Notifications first: a thread that has notified and then asks, say, for a reset, means this order.
      for (let device = 0; device < this.transports.length; device++) this.#servePending(device);
      for (const words of this.#calls) answerRegisterCall(words, this.registers);
    });
  }

  /** From now on notifications come as events; not before this thread has stopped to run a vCPU. */
  connectEvents(): void {
    const events = this.#events;
    if (events === undefined) return;
    this.transports.forEach((transport, device) => {
      events.silenceAcknowledgements(device);
      // It has them connected when the driver comes.
      if (transport.device.isServedElsewhere === true) return;
      transport.device.queueMaxSizes.forEach((_, queueIndex) => {
        events.connect(device, queueIndex, () => {
          this.#loop.guard(() => transport.notify(queueIndex));
        });
      });
    });
  }

  /**
   * The guest rests, and wakes by what this thread does alone: interrupts that would go past it come through it, or, when
   * the guest runs again, do so no more.
   */
  relayInterrupts(isOn: boolean): void {
    this.#loop.guard(() => {
      for (const { device } of this.transports) device.relayInterrupts?.(isOn);
      this.#places?.relayInterrupts(isOn);
    });
  }

  /** Somebody follows which pages of RAM change, or does so no more: nobody writes to them then but the guest and this process. */
  followPages(isOn: boolean): void {
    this.#loop.guard(() => {
      for (const { device } of this.transports) device.followPages?.(isOn);
    });
  }

  /** Of the device of that name; undefined without one. */
  controlsOf(name: string): Readonly<DeviceControls> | undefined {
    return this.#controls.get(name);
  }

  /** What each device has done, by name. */
  counters(): Record<string, Counters> {
    return Object.fromEntries(
      this.transports.map((transport, device) => [
        this.#factories[device]?.name ?? "",
        { ...transport.device.counters, ...transport.counters },
      ]),
    );
  }

  /**
   * Comes when no vCPU runs: done when no device has anything in flight. From here to `unquiesce` none is served, none
   * interrupts. `flush`: what the guest has stored on its disks is on the medium, too, or `save` says why it is not.
   */
  async quiesce({ flush = true }: { readonly flush?: boolean } = {}): Promise<void> {
    // What vCPUs have left here shall not wait as long as the pause lasts.
    this.service();
    // After a failure nobody calls back, and the VM ends.
    await Promise.race([this.#loop.failure, this.#comeToRest(flush)]);
  }

  /** Goes on after `quiesce` or `restore`: before vCPUs run. */
  unquiesce(): void {
    this.#loop.guard(() => {
      for (const transport of this.transports) transport.unquiesce();
    });
  }

  /** Throws SnapshotError for a guest that cannot be saved in any state of its devices. */
  checkSaveable(): void {
    const whyNot = this.#places?.whyNotSaved();
    if (whyNot !== undefined) throw new SnapshotError(`This guest cannot be saved or moved: ${whyNot}`);
  }

  /**
   * The state of each device, by name; only while quiet. Throws DiskError if a disk could not be flushed, and SnapshotError
   * for a device whose state nobody can write down.
   */
  save(): State {
    this.checkSaveable();
    if (this.#flushFailure !== undefined) {
      throw new DiskError(this.#flushFailure.message, { cause: this.#flushFailure });
    }
    return Object.fromEntries(
      this.#placed.map((placed, index) => {
        const { device } = placed.transport;
        const factory = this.#factories[index];
        const why = device.whyNotSaved?.();
        if (why !== undefined) throw notSaved(factory?.name ?? "", why);
        const state: State = {
          type: device.deviceType,
          transport: placed.save(),
          device: device.save(),
          host: factory?.identity?.() ?? null,
        };
        return [factory?.name ?? "", state];
      }),
    );
  }

  /**
   * Takes up what `save` has answered; once, before the guest runs. All is quiet until `unquiesce`. Throws StateError,
   * or for a host side that has changed an error for the user; the devices are of no use then.
   */
  restore(states: StateReader): void {
    states.only(this.#factories.map(({ name }) => name));
    this.#placed.forEach((placed, index) => {
      const factory = this.#factories[index];
      const state = states.at(factory?.name ?? "");
      state.only(["type", "transport", "device", "host"]);
      const { deviceType } = placed.transport.device;
      if (state.integer("type", { minimum: 0, maximum: 0xffff_ffff }) !== deviceType) {
        throw state.at("type").wrong(`the type of this device, ${String(deviceType)}`);
      }
      const host = state.at("host");
      if (factory?.checkIdentity !== undefined) factory.checkIdentity(host);
      else if (!host.isNull) throw new StateError(host.path, "is given for a device that has none");
      placed.restore(state.at("transport"), state.at("device"));
    });
  }

  /** Another process may go on with the host sides that can only have one user; only while quiet. */
  letGo(): void {
    for (const factory of this.#factories) factory.letGo?.();
  }

  /** They are this process's again. Throws DiskError if somebody has taken one. */
  takeBack(): void {
    for (const factory of this.#factories) factory.takeBack?.();
  }

  /** Throws what the first failing device has thrown, after the others have been closed. */
  close(): void {
    this.#events?.close();
    const failures: unknown[] = [];
    for (const { device } of this.transports) {
      try {
        device.reset();
      } catch (error) {
        failures.push(error);
      }
    }
    if (failures.length > 0) throw failures[0];
  }

  async #comeToRest(flush: boolean): Promise<void> {
    await Promise.all(this.transports.map((transport) => transport.quiesce()));
    this.#flushFailure = undefined;
    if (!flush) return;
    const flushes = this.transports.map(async ({ device }) => device.flush?.());
    for (const result of await Promise.allSettled(flushes)) {
      // A guest whose disk fails can be paused like any other.
      if (result.status === "rejected") this.#flushFailure ??= result.reason as Error;
    }
  }

  #servePending(device: number): void {
    const words = this.#words[device];
    if (words === undefined || Atomics.load(words, VIRTIO_PENDING_WORD) === 0) return;
    const pending = Atomics.exchange(words, VIRTIO_PENDING_WORD, 0);
    for (let queueIndex = 0; pending >>> queueIndex !== 0 && queueIndex < 32; queueIndex++) {
      if ((pending & (1 << queueIndex)) !== 0) this.transports[device]?.notify(queueIndex);
    }
  }
}

function notSaved(name: string, why: string): SnapshotError {
  return new SnapshotError(`${name}: ${why}: this guest cannot be saved or moved any more`, {
    cure: "save it before it looks into the folder, or give it a disk instead",
  });
}
