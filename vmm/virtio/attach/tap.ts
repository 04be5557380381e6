// The host's side of a network device: a TAP interface.
import { closeSync } from "node:fs";
import { TapBackend } from "../backends/tap.js";
import { openTap } from "../backends/tap-interface.js";
import type { NetSideOpener } from "./nets.js";

export const openTapSide: NetSideOpener = ({ tap = "", mtu, hostAddress }) => {
  const opened = openTap({ name: tap, mtu, hostAddress });
  return {
    mtu,
    close: () => closeSync(opened.fd),
    createBackend: ({ memory, ended, guard }) => new TapBackend(opened, memory, ended, guard),
  };
};
