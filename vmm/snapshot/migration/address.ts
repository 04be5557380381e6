// Where a guest is moved to: unix:PATH or tcp:HOST:PORT.
import { isIPv6 } from "node:net";
import { show } from "../../config/show.js";
import { ConfigError } from "../../errors.js";

export type MigrationAddress =
  | { readonly kind: "unix"; readonly path: string }
  | { readonly kind: "tcp"; readonly host: string; readonly port: number };

const MAX_PORT = 65_535;
const FORMS = "unix:PATH, tcp:HOST:PORT or tcp:[IPV6]:PORT";

/** `isServer`: port 0 is one that is free. Throws ConfigError. */
export function parseMigrationAddress(text: string, { isServer = false } = {}): MigrationAddress {
  const wrong = (why: string): ConfigError => new ConfigError([`Address ${show(text)}: ${why}`]);
  if (text.includes("\0")) throw wrong("has a zero byte");
  if (text.startsWith("unix:")) {
    const path = text.slice("unix:".length);
    if (path === "") throw wrong("no path is given");
    return { kind: "unix", path };
  }
  const match = /^tcp:(?:\[([^\]]*)\]|([^:[\]]*)):(\d{1,5})$/.exec(text);
  if (match === null) throw wrong(`not ${FORMS}`);
  const [, bracketed, plain = "", digits = ""] = match;
  const host = bracketed ?? plain;
  const port = Number(digits);
  if (host === "") throw wrong("no host is given; a server that everybody reaches has 0.0.0.0");
  if (bracketed !== undefined && !isIPv6(bracketed)) throw wrong(`${bracketed} is no IPv6 address`);
  if (port > MAX_PORT || (port === 0 && !isServer)) {
    throw wrong(`port ${digits} is not from ${isServer ? "0" : "1"} to ${String(MAX_PORT)}`);
  }
  return { kind: "tcp", host, port };
}

export function addressText(address: MigrationAddress): string {
  if (address.kind === "unix") return `unix:${address.path}`;
  return `tcp:${isIPv6(address.host) ? `[${address.host}]` : address.host}:${String(address.port)}`;
}
