// Every kind of device at once, for a caller that cannot wait for one to load.
import type { DeviceOpeners } from "../devices.js";
import { attachBalloon } from "./balloon.js";
import { attachConsole } from "./console.js";
import { attachDisks } from "./disks.js";
import { attachNets } from "./nets.js";
import { attachRng } from "./rng.js";
import { attachVsock } from "./vsock.js";

export const allOpeners: DeviceOpeners = {
  disk: attachDisks,
  net: attachNets,
  vsock: attachVsock,
  console: attachConsole,
  rng: attachRng,
  balloon: attachBalloon,
};
