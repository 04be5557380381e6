// The host's side of a network device: a network in user mode.
import { startPasst } from "../backends/passt.js";
import { StreamNet } from "../backends/stream-net.js";
import type { NetSideOpener } from "./nets.js";
import { closeDescriptor } from "../../sys/descriptors.js";

/** `bytes` of a packet unless told otherwise: the most that passt carries, because every frame is a system call. */
const DEFAULT_MTU = 65520;

export const openUserSide: NetSideOpener = ({ user, mtu = DEFAULT_MTU }) => {
  const fd = startPasst(user ?? { forwards: [], reachesHost: true }, mtu);
  return {
    mtu,
    close: () => closeDescriptor(fd),
    createBackend: ({ memory, ended, guard }) =>
      new StreamNet(fd, memory, () => ended("passt, which was its network, has ended"), guard),
  };
};
