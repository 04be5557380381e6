// Landlock: no path of the host leads anywhere any more, and no TCP port. linux/landlock.h; what a kernel knows of it is its ABI.
import { ENOSYS, EOPNOTSUPP, systemCallError } from "../sys/errno.js";
import { mmapAnonymous, munmap, viewMemory } from "../sys/memory.js";
import { rawCall } from "../sys/raw-call.js";

const SYS_LANDLOCK_CREATE_RULESET = 444;
const SYS_LANDLOCK_ADD_RULE = 445;
export const SYS_LANDLOCK_RESTRICT_SELF = 446;
const LANDLOCK_CREATE_RULESET_VERSION = 1;

/** How many rights of files each ABI knows, from 1 on: they are bits from 0 on. */
const FILE_RIGHTS = [13, 14, 15, 15, 16];
/** Since which ABI there are LANDLOCK_ACCESS_NET_BIND_TCP and …_CONNECT_TCP. */
const NET_ABI = 4;
const NET_RIGHTS = 3n;
const LANDLOCK_ACCESS_NET_CONNECT_TCP = 2n;
const LANDLOCK_RULE_NET_PORT = 2;

/** 0 where the kernel has none, or has it switched off. */
export function landlockAbi(): number {
  const abi = rawCall(SYS_LANDLOCK_CREATE_RULESET, 0, 0, LANDLOCK_CREATE_RULESET_VERSION);
  return Math.max(0, abi);
}

/** A set of rules that allows nothing, but connections by TCP to `port` if there is one, as a descriptor; undefined where the kernel has no Landlock. */
export function landlockRuleset(port?: number, abi = landlockAbi()): number | undefined {
  if (abi === 0) return undefined;
  const rights = FILE_RIGHTS[Math.min(abi, FILE_RIGHTS.length) - 1] ?? 0;
  // struct landlock_ruleset_attr, as long as the ABI has it.
  const length = abi < NET_ABI ? 8 : 16;
  const address = mmapAnonymous(length);
  const attributes = new BigUint64Array(viewMemory(address, length));
  attributes[0] = (1n << BigInt(rights)) - 1n;
  if (abi >= NET_ABI) attributes[1] = NET_RIGHTS;
  // SAFETY: read during the call only, as long as it says.
  const fd = rawCall(SYS_LANDLOCK_CREATE_RULESET, address, length);
  munmap(address, length);
  if (fd >= 0 && port !== undefined && abi >= NET_ABI) allowConnections(fd, port);
  if (fd >= 0) return fd;
  if ([ENOSYS, EOPNOTSUPP].includes(-fd)) return undefined;
  throw systemCallError("landlock_create_ruleset", -fd);
}

function allowConnections(fd: number, port: number): void {
  // struct landlock_net_port_attr.
  const address = mmapAnonymous(16);
  new BigUint64Array(viewMemory(address, 16)).set([LANDLOCK_ACCESS_NET_CONNECT_TCP, BigInt(port)]);
  // SAFETY: read during the call only.
  const result = rawCall(SYS_LANDLOCK_ADD_RULE, fd, LANDLOCK_RULE_NET_PORT, address);
  munmap(address, 16);
  if (result < 0) throw systemCallError("landlock_add_rule", -result);
}
