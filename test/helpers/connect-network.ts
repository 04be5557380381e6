// Connects the network of the namespace that it is run in, and prints as JSON what is there then and afterwards:
//   node connect-network.js
import { execFileSync } from "node:child_process";
import { createSocket } from "node:dgram";
import { once } from "node:events";
import { closeSync, readSync, writeSync } from "node:fs";
import { setTimeout as delay } from "node:timers/promises";
import { ContainerNetwork } from "../../vmm/oci/network/connect.js";
import { openTap } from "../../vmm/virtio/backends/tap-interface.js";

/** `bytes` of struct virtio_net_hdr. */
const VNET_HEADER = 12;
const TRIES = 200;
const SEND_EVERY = 20;

const show = (command: string): string => execFileSync("sh", ["-c", command], { encoding: "utf8", timeout: 10_000 });
const network = new ContainerNetwork();
network.prepare(network.names().length);
const interfaces = network.connect({ hasRelay: true }).map((entry) => ({
  ...entry,
  messages: entry.messages(2).map((bytes) => bytes.toString("hex")),
}));
const during = show("ip -j addr; for i in eth0 eth1 vmlet0 vmlet1; do tc filter show dev $i ingress; done");
const tapOf = (name: string): number => {
  const tap = interfaces.find((entry) => entry.name === name)?.tap ?? "";
  return openTap({ name: tap }).fd;
};
const [near, far] = [tapOf("eth0"), tapOf("far0")];
/** Whether a frame with the text comes, of those that the kernel's own stack sends, too. A link that has just come up may lose some. */
async function comes(fd: number, text: string, send: () => void): Promise<boolean> {
  const frame = Buffer.alloc(4096);
  for (let tries = 0; tries < TRIES; tries++) {
    if (tries % SEND_EVERY === 0) send();
    try {
      if (frame.subarray(0, readSync(fd, frame)).includes(text)) return true;
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "EAGAIN") throw error;
      await delay(20);
    }
  }
  return false;
}
// A broadcast leaves by the other end of eth0, and reaches the guest's device; a frame of the guest's leaves by eth0.
const socket = createSocket("udp4");
socket.bind(0, "10.77.0.1");
await once(socket, "listening");
socket.setBroadcast(true);
const isReceived = await comes(near, "to the guest", () => {
  socket.send("to the guest", 7, "10.77.0.255");
});
socket.close();
const frame = Buffer.concat([
  Buffer.alloc(VNET_HEADER),
  Buffer.from("ffffffffffff02000000000188b5", "hex"),
  Buffer.from("from the guest".padEnd(60)),
]);
const isSent = await comes(far, "from the guest", () => writeSync(near, frame));
for (const fd of [near, far]) closeSync(fd);
network.close();
const after = show("ip -j addr; tc qdisc show");
console.log(JSON.stringify({ interfaces, during, isReceived, isSent, after }));
