// Values of `vmlet run`'s options about what a program finds: names, limits, mounts; as Docker writes them.
import type { LimitName, LimitValue } from "../../agent/exec-request.js";
import type { VmOptions, VolumeOption } from "../../sdk/vm-options.js";
import type { TmpfsSpec } from "../../sdk/vm-spec.js";
import { parseBytes, parseWhole } from "../numbers.js";
import { UsageError } from "../usage-error.js";

function refuse(option: string, text: string, expected: string): UsageError {
  return new UsageError(`--${option} ${JSON.stringify(text)} is not ${expected}`);
}

/** NAME:ADDRESS, or NAME=ADDRESS. */
export function parseHosts(words: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    words.map((text) => {
      const [, name, address] = /^([^:=]+)[:=](.+)$/.exec(text) ?? [];
      if (name === undefined || address === undefined) throw refuse("add-host", text, "NAME:ADDRESS");
      if (address === "host-gateway") {
        throw refuse(
          "add-host",
          text,
          "NAME:ADDRESS; the guest's gateway (ip route) leads to this host with --network user",
        );
      }
      return [name, address.replace(/^\[(.*)\]$/, "$1")];
    }),
  );
}

/** NAME=SOFT[:HARD]; -1 is unlimited. */
export function parseUlimits(words: readonly string[]): VmOptions["limits"] {
  if (words.length === 0) return undefined;
  const limits: [LimitName, { soft: LimitValue; hard: LimitValue }][] = words.map((text) => {
    const [, name, soft, hard = soft] = /^([a-z]+)=(-1|unlimited|\d+)(?::(-1|unlimited|\d+))?$/.exec(text) ?? [];
    if (name === undefined || soft === undefined || hard === undefined) {
      throw refuse("ulimit", text, "NAME=SOFT[:HARD] with numbers, or -1 for no limit");
    }
    const value = (one: string): LimitValue => (one === "-1" || one === "unlimited" ? "unlimited" : Number(one));
    // Names are checked with all others.
    return [name as LimitName, { soft: value(soft), hard: value(hard) }];
  });
  return Object.fromEntries(limits);
}

export function parseGroups(words: readonly string[]): number[] | undefined {
  if (words.length === 0) return undefined;
  return words.map((text) => {
    const group = parseWhole(text);
    if (group === undefined) {
      throw refuse("group-add", text, "the number of a group; names are the image's, in its /etc/group");
    }
    return group;
  });
}

export function parseShmSize(text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const bytes = parseBytes(text.replace(/(\d)b$/i, "$1"), 1);
  if (bytes === undefined) throw refuse("shm-size", text, "a size such as 67108864, 64m or 1g");
  return bytes;
}

/** NAME=VALUE */
export function parseSysctls(words: readonly string[]): Record<string, string> {
  return Object.fromEntries(
    words.map((text) => {
      const at = text.indexOf("=");
      if (at < 1) throw refuse("sysctl", text, "NAME=VALUE");
      return [text.slice(0, at), text.slice(at + 1)];
    }),
  );
}

export interface Mounts {
  readonly volumes: readonly VolumeOption[];
  readonly tmpfs: readonly TmpfsSpec[];
}

const MOUNT =
  "type=bind,source=HOST,target=GUEST[,readonly] or type=tmpfs,target=GUEST[,tmpfs-size=SIZE][,tmpfs-mode=MODE]";
const NAMES: Readonly<Record<string, string>> = {
  src: "source",
  dst: "target",
  destination: "target",
  ro: "readonly",
};
const KEYS: Readonly<Record<string, readonly string[]>> = {
  bind: ["type", "source", "target", "readonly"],
  tmpfs: ["type", "target", "tmpfs-size", "tmpfs-mode"],
};

/** As --mount has them: KEY=VALUE with commas between. */
export function parseMounts(words: readonly string[]): Mounts {
  const volumes: VolumeOption[] = [];
  const tmpfs: TmpfsSpec[] = [];
  for (const text of words) {
    const given = new Map<string, string>();
    for (const word of text.split(",")) {
      const at = word.indexOf("=");
      const key = at < 0 ? word : word.slice(0, at);
      const name = Object.hasOwn(NAMES, key) ? (NAMES[key] ?? key) : key;
      if (given.has(name)) throw new UsageError(`--mount ${JSON.stringify(text)}: ${name} is given twice`);
      given.set(name, at < 0 ? "true" : word.slice(at + 1));
    }
    // As Docker has it.
    const type = given.get("type") ?? "volume";
    if (type === "volume") {
      throw new UsageError(`--mount ${JSON.stringify(text)}: volumes have no names here; write ${MOUNT}`);
    }
    const keys = Object.hasOwn(KEYS, type) ? KEYS[type] : undefined;
    const unknown = [...given.keys()].find((key) => keys?.includes(key) === false);
    if (keys === undefined || unknown !== undefined) {
      const what = unknown === undefined ? `type=${type}` : unknown;
      throw new UsageError(`--mount ${JSON.stringify(text)}: there is no ${what}; write ${MOUNT}`);
    }
    const guestPath = given.get("target") ?? "";
    const hostPath = given.get("source") ?? "";
    if (guestPath === "" || (type === "bind" && hostPath === "")) throw refuse("mount", text, MOUNT);
    if (type === "bind") volumes.push({ hostPath, guestPath, readonly: isTrue(text, given.get("readonly")) });
    else tmpfs.push({ guestPath, options: tmpfsOptions(text, given) });
  }
  return { volumes, tmpfs };
}

function isTrue(text: string, value = "false"): boolean {
  if (value === "true" || value === "1") return true;
  if (value === "false" || value === "0") return false;
  throw new UsageError(`--mount ${JSON.stringify(text)}: readonly is true or false`);
}

function tmpfsOptions(text: string, given: ReadonlyMap<string, string>): string {
  const size = given.get("tmpfs-size");
  const mode = given.get("tmpfs-mode");
  const bytes = size === undefined ? undefined : parseBytes(size.replace(/(\d)b$/i, "$1"), 1);
  if (size !== undefined && bytes === undefined) {
    throw new UsageError(`--mount ${JSON.stringify(text)}: tmpfs-size is a size such as 65536 or 64m`);
  }
  return [
    ...(bytes === undefined ? [] : [`size=${String(bytes)}`]),
    ...(mode === undefined ? [] : [`mode=${mode}`]),
  ].join(",");
}
