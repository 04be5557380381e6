// Ports of this host that are to lead to a guest's: looked at before anything is made for the VM, which takes them only once it
// begins. Where any will do, one that is free is chosen here.
import { createSocket } from "node:dgram";
import { createServer, type AddressInfo } from "node:net";
import { HostError } from "../errors.js";
import { errnoText } from "../host/errno-text.js";
import type { PublishedPort } from "./vm-record.js";

interface Probe {
  readonly port: number;
  close(): Promise<void>;
}

/** The same, each with its number. Rejects with HostError for one that cannot be taken; nothing is held afterwards. */
export async function findHostPorts(ports: readonly PublishedPort[]): Promise<PublishedPort[]> {
  const probes: Probe[] = [];
  try {
    const found: PublishedPort[] = [];
    for (const port of ports) {
      const probe = await take(port);
      probes.push(probe);
      found.push({ ...port, hostPort: probe.port });
    }
    return found;
  } finally {
    await Promise.all(probes.map((probe) => probe.close()));
  }
}

async function take(port: PublishedPort): Promise<Probe> {
  try {
    return await (port.protocol === "tcp" ? takeTcp(port) : takeUdp(port));
  } catch (error) {
    throw refusal(port, error as NodeJS.ErrnoException);
  }
}

function takeTcp({ hostAddress, hostPort }: PublishedPort): Promise<Probe> {
  return new Promise((resolve, reject) => {
    const server = createServer((socket) => socket.destroy());
    server.once("error", reject);
    server.listen({ host: hostAddress, port: hostPort, exclusive: true }, () => {
      resolve({
        port: (server.address() as AddressInfo).port,
        close: () => new Promise((closed) => server.close(() => closed())),
      });
    });
  });
}

function takeUdp({ hostAddress, hostPort }: PublishedPort): Promise<Probe> {
  return new Promise((resolve, reject) => {
    const socket = createSocket("udp4");
    socket.once("error", (error) => {
      socket.close();
      reject(error);
    });
    socket.bind({ address: hostAddress, port: hostPort, exclusive: true }, () => {
      resolve({ port: socket.address().port, close: () => new Promise((closed) => socket.close(() => closed())) });
    });
  });
}

function refusal({ hostAddress, hostPort, protocol }: PublishedPort, cause: NodeJS.ErrnoException): HostError {
  const name = `Port ${hostAddress}:${String(hostPort)}/${protocol} of this host`;
  switch (cause.code) {
    case "EADDRINUSE":
      return new HostError(`${name} is taken`, { cause, cure: "publish another one; 0 is any that is free" });
    case "EACCES":
      return new HostError(`${name} may not be used`, { cause, cure: "publish one from 1024 on, or run as root" });
    case "EADDRNOTAVAIL":
      return new HostError(`${name} cannot be published: the address is none of this host's`, { cause });
    default:
      return new HostError(`${name} cannot be published: ${errnoText(cause.code ?? "")}`, { cause });
  }
}
