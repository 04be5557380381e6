// Every kind of device at once, for a caller that cannot wait for one to load.
import type { DeviceOpeners } from "../openers.js";
import { attachBalloon } from "./balloon.js";
import { attachConsole } from "./console.js";
import { attachDisks } from "./disks.js";
import { mmdsAttacher } from "./mmds.js";
import { netOpener } from "./nets.js";
import { attachRng } from "./rng.js";
import { attachShares } from "./shares.js";
import { openTapSide } from "./tap.js";
import { userSide } from "./user-net.js";
import { openVhostUserSide } from "./vhost-user-net.js";
import { attachVhostVsock } from "./vhost-vsock.js";
import { attachVsock } from "./vsock.js";

export const allOpeners: DeviceOpeners = {
  disk: attachDisks,
  net: netOpener({ tap: openTapSide, user: userSide(openVhostUserSide), mmds: mmdsAttacher }),
  vsock: (config, undo) => (config.vsock?.path === undefined ? attachVhostVsock : attachVsock)(config, undo),
  console: attachConsole,
  rng: attachRng,
  balloon: attachBalloon,
  share: attachShares,
};
