// The ladder, from the bottom up. A new rung is a file in rungs/ and a line here.
import type { Rung } from "./rung.js";
import { bubblewrap } from "./rungs/bubblewrap.js";
import { cgroupLimits } from "./rungs/cgroup-limits.js";
import { chroot } from "./rungs/chroot.js";
import { docker, dockerKata, dockerRunsc, dockerVmlet } from "./rungs/docker.js";
import { lxc } from "./rungs/lxc.js";
import { allNamespaces, eachNamespace } from "./rungs/namespaces.js";
import { nspawn } from "./rungs/nspawn.js";
import { crun, runc } from "./rungs/oci-runtime.js";
import { cloudHypervisor, firecracker } from "./rungs/other-monitors.js";
import { plainProcess } from "./rungs/plain-process.js";
import { podman } from "./rungs/podman.js";
import { qemuMicrovm } from "./rungs/qemu-microvm.js";
import { vmletCloned } from "./rungs/vmlet-cloned.js";
import { vmlet, vmletDebian, vmletRestored } from "./rungs/vmlet.js";

export const RUNGS: readonly Rung[] = [
  plainProcess,
  chroot,
  ...eachNamespace,
  allNamespaces,
  cgroupLimits,
  bubblewrap,
  nspawn,
  lxc,
  runc,
  crun,
  podman,
  docker,
  dockerVmlet,
  dockerRunsc,
  dockerKata,
  vmlet,
  vmletRestored,
  vmletCloned,
  vmletDebian,
  qemuMicrovm,
  firecracker,
  cloudHypervisor,
];
