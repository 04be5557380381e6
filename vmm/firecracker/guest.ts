// A guest that runs, as the controller sees it: what may be asked of it while it does.
import type { HintingStatus } from "../../devices/virtio/balloon/hinting.js";
import type { BalloonReport } from "../virtio/device-host.js";
import type { VmExit, VmStatistics } from "../machine/vm-exit.js";
import type { Section } from "./sections.js";
import type { Settings } from "./settings.js";

type Awaitable<Value> = Value | Promise<Value>;

/** Each method throws or rejects with Fault for what cannot be, and nothing has changed then. */
export interface Guest {
  readonly state: "Running" | "Paused";
  /** Settles when it has ended; rejects if it has done something that cannot be answered. */
  readonly ended: Promise<GuestEnd>;
  pause(): Promise<void>;
  resume(): Awaitable<void>;
  updateDrive(index: number, update: Section<"PartialDrive">): Awaitable<void>;
  updateNet(index: number, update: Section<"PartialNetworkInterface">): Awaitable<void>;
  updateBalloon(amountMib: number): Awaitable<void>;
  updateBalloonInterval(seconds: number): Awaitable<void>;
  balloon(): Awaitable<BalloonReport | undefined>;
  startHinting(endsItself: boolean): Awaitable<void>;
  stopHinting(): Awaitable<void>;
  hinting(): Awaitable<HintingStatus>;
  sendCtrlAltDel(): Awaitable<void>;
  /** What it has used so far is known: a guest that runs elsewhere is asked. */
  refresh?(): Promise<void>;
  createSnapshot(params: Section<"SnapshotCreateParams">): Promise<void>;
}

export type GuestEnd = Pick<VmExit, "outcome" | "registers">;

/** The same for the process that the guest belongs to. */
export interface HeldGuest extends Guest {
  /** Takes bytes of the console's input; how many of them. */
  input(bytes: Uint8Array): number;
  statistics(): Pick<VmStatistics, "exits" | "devices">;
  stop(): void;
  /** After its end. */
  closeDevices(): void;
}

/** What not every place has where guests can run. */
export type Feature = "network interfaces" | "vsock" | "snapshots";

/** Makes guests. */
export interface Starter {
  /** Rejects with Fault, and has left nothing behind then. */
  start(settings: Settings): Promise<Guest>;
  /** Paused; with the settings that it was saved with. Rejects with Fault. */
  load(params: Section<"SnapshotLoadParams">, settings: Settings): Promise<Guest>;
  /** Rejects with Fault if its guests cannot have that. */
  check?(feature: Feature): Promise<void>;
}
