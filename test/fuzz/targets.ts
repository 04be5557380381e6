// Every fuzzer of the tree, by name.
import type { FuzzTarget } from "./target.js";
import { agentTarget, relayTarget } from "./targets/agent.js";
import { assignedTarget } from "./targets/assigned.js";
import { balloonTarget } from "./targets/balloon.js";
import { blockTarget, slowBlockTarget } from "./targets/block.js";
import { consoleTarget } from "./targets/console.js";
import { imageTarget } from "./targets/image.js";
import { fsTarget } from "./targets/fs.js";
import { mmdsTarget } from "./targets/mmds.js";
import { netTarget } from "./targets/net.js";
import { cpuTarget } from "./targets/cpu.js";
import { lifeTarget } from "./targets/life.js";
import { fixupsTarget } from "./targets/fixups.js";
import { pciTarget } from "./targets/pci.js";
import { queueTarget } from "./targets/queue.js";
import { rngTarget } from "./targets/rng.js";
import { stateTarget } from "./targets/state.js";
import { transportTarget } from "./targets/transport.js";
import { vhostVsockTarget } from "./targets/vhost-vsock.js";
import { vsockTarget } from "./targets/vsock.js";

export const FUZZ_TARGETS: readonly FuzzTarget[] = [
  queueTarget,
  transportTarget,
  pciTarget,
  assignedTarget,
  blockTarget,
  slowBlockTarget,
  rngTarget,
  consoleTarget,
  netTarget,
  mmdsTarget,
  vsockTarget,
  vhostVsockTarget,
  balloonTarget,
  fsTarget,
  fixupsTarget,
  stateTarget,
  cpuTarget,
  agentTarget,
  relayTarget,
  imageTarget,
  lifeTarget,
];
