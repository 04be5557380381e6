// A name server that only the namespace's loopback reaches, as an engine's is for networks with names: queries of the guest
// come to an address that it does reach, and go on from there. Bytes are handed on as they are; RFC 1035 §4.2.
import { createSocket, type Socket as DatagramSocket } from "node:dgram";
import { once } from "node:events";
import { connect, createServer } from "node:net";
import { pipeline } from "node:stream";

export const NAME_SERVER_PORT = 53;
/** A resolver has asked again long before. */
const ANSWER_MS = 10_000;
/** More at a time are dropped, as a network drops. */
const MAX_QUERIES = 256;

const LOOPBACK = /^127\.\d{1,3}\.\d{1,3}\.\d{1,3}$|^::1$/;

/** The text of an /etc/resolv.conf with another name server, and those it had; undefined if none is on the loopback. */
export function withNameServer(text: string, address: string): { text: string; servers: string[] } | undefined {
  const servers = [...text.matchAll(/^[ \t]*nameserver[ \t]+(\S+)/gm)].map((match) => match[1] ?? "");
  const local = servers.filter((server) => LOOPBACK.test(server));
  if (local.length === 0) return undefined;
  const rest = text.replace(/^[ \t]*nameserver[ \t].*\n?/gm, "");
  return { text: `nameserver ${address}\n${rest}`, servers: local };
}

export interface NameServerRelay {
  close(): void;
}

/** Listens at `address` (IPv4 of an interface), and asks `server`. Rejects with the system's error if it cannot listen. */
export async function relayNames(address: string, server: string): Promise<NameServerRelay> {
  const listener = createSocket("udp4");
  const asking = new Set<DatagramSocket>();
  listener.on("message", (query, from) => {
    if (asking.size >= MAX_QUERIES) return;
    const socket = createSocket(server.includes(":") ? "udp6" : "udp4");
    asking.add(socket);
    const end = (): void => {
      clearTimeout(limit);
      if (asking.delete(socket)) socket.close();
    };
    const limit = setTimeout(end, ANSWER_MS);
    socket.once("message", (answer) => {
      listener.send(answer, from.port, from.address);
      end();
    });
    socket.once("error", end);
    socket.send(query, NAME_SERVER_PORT, server);
  });
  const streams = createServer((incoming) => {
    const outgoing = connect(NAME_SERVER_PORT, server);
    incoming.setTimeout(ANSWER_MS, () => incoming.destroy());
    const ended = (): void => {
      incoming.destroy();
      outgoing.destroy();
    };
    pipeline(incoming, outgoing, ended);
    pipeline(outgoing, incoming, ended);
  });
  streams.maxConnections = MAX_QUERIES;
  try {
    listener.bind(NAME_SERVER_PORT, address);
    await once(listener, "listening");
    streams.listen(NAME_SERVER_PORT, address);
    await once(streams, "listening");
  } catch (error) {
    listener.close();
    streams.close();
    throw error;
  }
  listener.on("error", () => listener.close());
  return {
    close: () => {
      for (const socket of asking) socket.close();
      asking.clear();
      listener.close();
      streams.close();
    },
  };
}
