// Checks, before anything starts, for rights beyond that of opening /dev/kvm.
import { existsSync, readFileSync } from "node:fs";
import type { ResolvedNet } from "../config/nets.js";
import { HostError } from "../errors.js";

/** Of an interface that does not exist yet. */
function freeName(): string {
  for (let number = 0; ; number++) {
    const name = `tap${String(number)}`;
    if (!existsSync(`/sys/class/net/${name}`)) return name;
  }
}

/** linux/capability.h. */
const CAP_NET_ADMIN = 12n;

/** Throws HostError for a network interface that this process has no right to make. */
export function checkRights(nets: readonly ResolvedNet[]): void {
  if (!nets.some(({ tap }) => tap === "auto")) return;
  const effective = /^CapEff:\s*([0-9a-f]+)/m.exec(readFileSync("/proc/self/status", "latin1"))?.[1] ?? "0";
  if (((BigInt(`0x${effective}`) >> CAP_NET_ADMIN) & 1n) === 1n) return;
  const name = freeName();
  throw new HostError("--net tap=auto makes an interface, which needs root or CAP_NET_ADMIN", {
    cure: `have one made for you: sudo ip tuntap add dev ${name} mode tap user "$USER" && sudo ip link set ${name} up; then --net tap=${name}`,
  });
}
