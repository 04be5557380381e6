// Names, resolver, /dev/shm and kernel settings of a guest, by its agent, before any of its programs begins.
import type { GuestFiles } from "../agent/files.js";
import type { GuestControl } from "../agent/guest.js";
import { GuestRequestError } from "../errors.js";
import { errnoText } from "../host/errno-text.js";
import type { ResolverSpec, WorldSpec } from "./vm-spec.js";

/** mount(2) */
const MS_NOSUID = 2;
const MS_NODEV = 4;
const MS_REMOUNT = 32;
const MS_BIND = 4096;
const HOSTS = "/etc/hosts";
const RESOLVER = "/etc/resolv.conf";
const MAX_FILE = 1024 * 1024;
/** In memory, and in every guest. */
const BEHIND = "/dev/.vmlet-";

/** `ownsEtc`: the files in /etc are the guest's alone; otherwise they are a disk's, and are covered. Rejects with GuestRequestError. */
export async function setUpWorld(
  guest: GuestControl,
  files: GuestFiles,
  { hosts, resolver, shmBytes, sysctls }: WorldSpec,
  ownsEtc: boolean,
): Promise<void> {
  const change = async (path: string, text: (old: string) => string): Promise<void> => {
    const old = (await files.exists(path)) ? await files.readText(path, { maxBytes: MAX_FILE }) : "";
    const place = ownsEtc ? path : `${BEHIND}${path.replaceAll("/", "-")}`;
    await files.write(place, text(old));
    if (!ownsEtc) await guest.mount(place, path, "", { flags: MS_BIND });
  };
  if (hosts.length > 0) {
    await change(HOSTS, (old) => {
      const lines = hosts.map(([name, address]) => `${address}\t${name}\n`);
      return `${old}${old === "" || old.endsWith("\n") ? "" : "\n"}${lines.join("")}`;
    });
  }
  if (resolver !== undefined) await change(RESOLVER, (old) => resolverText(old, resolver));
  if (shmBytes !== undefined) {
    const flags = MS_REMOUNT | MS_NOSUID | MS_NODEV;
    await guest.mount("tmpfs", "/dev/shm", "tmpfs", { flags, data: `size=${String(shmBytes)}` });
  }
  for (const [name, value] of sysctls) await setSysctl(files, name, value);
}

/** As sysctl(8) reads a name: where its first separator is a slash, dots are a part of names. */
export function sysctlPath(name: string): string {
  const isPath = /^[^./]*\//.test(name);
  return `/proc/sys/${isPath ? name : name.replace(/[./]/g, (one) => (one === "." ? "/" : "."))}`;
}

async function setSysctl(files: GuestFiles, name: string, value: string): Promise<void> {
  try {
    // A file that is not there would be refused as one that cannot be made.
    await files.stat(sysctlPath(name));
    await files.write(sysctlPath(name), `${value}\n`);
  } catch (error) {
    if (!(error instanceof GuestRequestError)) throw error;
    const { errno, errnoName } = error;
    throw new GuestRequestError(`set sysctl ${name}=${value}`, errno, errnoName, errnoText(errnoName));
  }
}

/** What is not given anew stays as the network has it. */
export function resolverText(old: string, { nameservers, search, options }: ResolverSpec): string {
  const kept = (key: RegExp): string[] => old.split("\n").filter((line) => key.test(line));
  const lines = [
    ...(nameservers?.map((address) => `nameserver ${address}`) ?? kept(/^nameserver\s/)),
    // A single dot takes away what the network says.
    ...(search === undefined
      ? kept(/^(?:search|domain)\s/)
      : search.join() === "."
        ? []
        : [`search ${search.join(" ")}`]),
    ...(options === undefined ? kept(/^options\s/) : [`options ${options.join(" ")}`]),
  ];
  return lines.map((line) => `${line}\n`).join("");
}
