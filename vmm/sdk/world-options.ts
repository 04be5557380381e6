// What a guest's programs find besides their root: more names, another resolver, kernel settings; checked before anything is made.
import { isIP } from "node:net";
import { isHostName } from "../snapshot/host-name.js";
import { show } from "../config/show.js";
import type { WorldSpec } from "./vm-spec.js";

export interface WorldOptions {
  /** More lines of /etc/hosts: names, and the address of each. */
  readonly hosts?: Readonly<Record<string, string>> | undefined;
  /** Addresses of the name servers in /etc/resolv.conf, in place of the network's. */
  readonly dns?: readonly string[] | undefined;
  /** Domains in which a name without one is looked for. */
  readonly dnsSearch?: readonly string[] | undefined;
  /** Other options of resolv.conf(5). */
  readonly dnsOptions?: readonly string[] | undefined;
  /** Of /dev/shm, `bytes`; default: half of the guest's memory. */
  readonly shmBytes?: number | undefined;
  /** Kernel settings, as sysctl(8) names them: { "net.core.somaxconn": "1024" }. */
  readonly sysctls?: Readonly<Record<string, string>> | undefined;
}

export const WORLD_OPTIONS = ["hosts", "dns", "dnsSearch", "dnsOptions", "shmBytes", "sysctls"] as const;

const MAX_ENTRIES = 1024;
const MAX_TEXT = 4096;
const PAGE = 4096;
/** A word of resolv.conf(5): nothing that could begin another line. */
const WORD = /^[!-~]{1,256}$/;
const SYSCTL = /^[a-z0-9_]+(?:[./][A-Za-z0-9_-]+)+$/;

/** Undefined if nothing is asked for. Adds what is wrong to `problems`. */
export function checkWorld(given: Readonly<Record<string, unknown>>, problems: string[]): WorldSpec | undefined {
  if (WORLD_OPTIONS.every((name) => given[name] === undefined)) return undefined;
  const resolver = {
    nameservers: words(given, "dns", (text) => isIP(text) !== 0, "the address of a name server", problems),
    search: words(given, "dnsSearch", (text) => WORD.test(text), "a domain", problems),
    options: words(given, "dnsOptions", (text) => WORD.test(text), "an option of resolv.conf", problems),
  };
  const hosts = texts(given, "hosts", problems);
  for (const [name, address] of hosts) {
    if (!isHostName(name)) problems.push(`hosts: ${show(name)} is not 1 to 64 letters, digits, "." and "-"`);
    if (isIP(address) === 0) problems.push(`hosts: ${show(address)} of ${show(name)} is not an address`);
  }
  const sysctls = texts(given, "sysctls", problems);
  for (const [name, value] of sysctls) {
    if (!SYSCTL.test(name) || name.length > MAX_TEXT) {
      problems.push(`sysctls: ${show(name)} is no name such as net.core.somaxconn`);
    }
    if (/[\0\n]/.test(value) || value.length > MAX_TEXT) {
      problems.push(`sysctls: ${show(value)} of ${name} is not one line of at most ${String(MAX_TEXT)} characters`);
    }
  }
  const { shmBytes } = given;
  if (shmBytes !== undefined && (!Number.isSafeInteger(shmBytes) || (shmBytes as number) < PAGE)) {
    problems.push(`shmBytes ${show(shmBytes)} is not a whole number of bytes from ${String(PAGE)} on`);
  }
  return {
    hosts,
    ...(Object.values(resolver).every((list) => list === undefined) ? {} : { resolver }),
    ...(shmBytes === undefined ? {} : { shmBytes: shmBytes as number }),
    sysctls,
  };
}

function words(
  given: Readonly<Record<string, unknown>>,
  name: string,
  isRight: (text: string) => boolean,
  expected: string,
  problems: string[],
): string[] | undefined {
  const value = given[name];
  if (value === undefined) return undefined;
  if (!Array.isArray(value) || value.length > MAX_ENTRIES) {
    problems.push(`${name} ${show(value)} is not a list of at most ${String(MAX_ENTRIES)}`);
    return [];
  }
  for (const one of value as unknown[]) {
    if (typeof one !== "string" || !isRight(one)) problems.push(`${name}: ${show(one)} is not ${expected}`);
  }
  return value as string[];
}

function texts(given: Readonly<Record<string, unknown>>, name: string, problems: string[]): [string, string][] {
  const value: unknown = given[name] ?? {};
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    problems.push(`${name} ${show(value)} is not an object`);
    return [];
  }
  const entries = Object.entries(value as Record<string, unknown>);
  if (entries.length > MAX_ENTRIES)
    problems.push(`${name}: ${String(entries.length)} are too many; the limit is ${String(MAX_ENTRIES)}`);
  for (const [key, text] of entries) {
    if (typeof text !== "string") problems.push(`${name}.${key} ${show(text)} is not a text`);
  }
  return entries.filter((entry): entry is [string, string] => typeof entry[1] === "string");
}
