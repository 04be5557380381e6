// A guest that runs, as the controller sees it: what may be asked of it while it does.
import type { HintingStatus } from "../../devices/virtio/balloon/hinting.js";
import type { BalloonReport } from "../virtio/device-host.js";
import type { VmExit } from "../machine/vm-exit.js";
import type { Section } from "./sections.js";
import type { Settings } from "./settings.js";

/** Each method throws or rejects with Fault for what cannot be, and nothing has changed then. */
export interface Guest {
  readonly state: "Running" | "Paused";
  /** Settles when it has ended; rejects if it has done something that cannot be answered. */
  readonly ended: Promise<VmExit>;
  pause(): Promise<void>;
  resume(): void;
  updateDrive(index: number, update: Section<"PartialDrive">): void;
  updateNet(index: number, update: Section<"PartialNetworkInterface">): void;
  updateBalloon(amountMib: number): void;
  updateBalloonInterval(seconds: number): void;
  balloon(): BalloonReport | undefined;
  startHinting(endsItself: boolean): void;
  stopHinting(): void;
  hinting(): HintingStatus;
  sendCtrlAltDel(): void;
  createSnapshot(params: Section<"SnapshotCreateParams">): Promise<void>;
}

/** Makes guests. */
export interface Starter {
  /** Rejects with Fault, and has left nothing behind then. */
  start(settings: Settings): Promise<Guest>;
  /** Paused; with the settings that it was saved with. Rejects with Fault. */
  load(params: Section<"SnapshotLoadParams">, settings: Settings): Promise<Guest>;
}
