// Connects the network of the namespace that it is run in, and prints as JSON what is there then and afterwards:
//   node connect-network.js
import { execFileSync } from "node:child_process";
import { connectNetwork } from "../../vmm/oci/network/connect.js";

const show = (command: string): string => execFileSync("sh", ["-c", command], { encoding: "utf8", timeout: 10_000 });
const connected = connectNetwork({ hasRelay: true });
const interfaces = connected.interfaces.map((entry) => ({
  ...entry,
  messages: entry.messages(2).map((bytes) => bytes.toString("hex")),
}));
const during = show("ip -j addr; for i in eth0 eth1 vmlet0 vmlet1; do tc filter show dev $i ingress; done");
// Frames of the other end of eth0 come out at its TAP interface, which nobody reads: the kernel counts what it drops.
show("ping -c 1 -W 1 -I far0 10.1.2.3 || true");
const dropped = show("ip -s link show dev vmlet0 | tail -n 1");
connected.close();
const after = show("ip -j addr; tc qdisc show");
console.log(JSON.stringify({ interfaces, during, dropped, after }));
