// Requests of Firecracker's interface at random: bodies that its schemas let through, mostly, and then something is done to them.
import { OPERATIONS } from "../../vmm/firecracker/openapi.js";
import { SCHEMAS } from "../../vmm/firecracker/schemas.js";
import type { Random } from "../fuzz/random.js";

export interface FuzzRequest {
  readonly method: string;
  readonly path: string;
  readonly body: Buffer | undefined;
}

const IDS = ["root", "data", "eth0", "x_1", "", "a-b", "../x", "ä", "__proto__"];
const METHODS = ["GET", "PUT", "PATCH", "DELETE", "POST", "HEAD", "put"];
const TEXTS = [
  "kernel",
  "disk",
  "missing",
  "/",
  "lo",
  "02:00:00:00:00:01",
  "0x1",
  "0b1x0",
  "V2",
  "",
  "\0",
  "é",
  "9".repeat(300),
];
const ODD: readonly unknown[] = [
  null,
  true,
  0,
  -1,
  1.5,
  2 ** 53,
  2 ** 64,
  "",
  "x",
  [],
  {},
  [[]],
  { a: 1 },
  "__proto__",
];

interface Rule {
  readonly type?: string | readonly string[];
  readonly enum?: readonly unknown[];
  readonly properties?: Readonly<Record<string, Rule>>;
  readonly required?: readonly string[];
  readonly items?: Rule;
  readonly minimum?: number;
  readonly maximum?: number;
}

const paths = Object.entries(OPERATIONS);

export function randomRequest(random: Random): FuzzRequest {
  const [template, operations] = random.pick(paths);
  const id = random.pick(IDS);
  let path = template.replace(/\{\w+\}/, id);
  const [method, operation] = random.pick(Object.entries(operations));
  const name = operation.body;
  let value: unknown;
  if (name === "MmdsContents") value = anything(random, 4);
  else if (name !== undefined) value = fromRule(random, SCHEMAS[name], id);
  for (let changes = random.oneIn(2) ? random.below(3) : 0; changes > 0; changes--) value = changed(random, value);
  let body: Buffer | undefined = value === undefined ? undefined : Buffer.from(JSON.stringify(value));
  if (random.oneIn(20)) body = damaged(random, body ?? Buffer.from("{}"));
  if (random.oneIn(30)) body = random.oneIn(2) ? undefined : Buffer.from("{}");
  if (random.oneIn(30)) path += random.pick(["/", "/more", "?a=b", "//", "/%00"]);
  return { method: random.oneIn(30) ? random.pick(METHODS) : method.toUpperCase(), path, body };
}

function fromRule(random: Random, rule: Rule, id: string): unknown {
  if (rule.enum !== undefined) return random.pick(rule.enum);
  const types = typeof rule.type === "string" ? [rule.type] : (rule.type ?? ["null"]);
  switch (random.pick(types)) {
    case "string":
      return random.pick(TEXTS);
    case "integer":
      return random.oneIn(2) ? random.below(300) : Math.min(rule.maximum ?? 1, (rule.minimum ?? 0) + random.value());
    case "boolean":
      return random.oneIn(2);
    case "array":
      return Array.from({ length: random.below(4) }, () => fromRule(random, rule.items ?? {}, id));
    case "object":
      return Object.fromEntries(
        Object.entries(rule.properties ?? {})
          .filter(([key]) => rule.required?.includes(key) === true || random.oneIn(2))
          .map(([key, inner]) => [
            key,
            /(^|_)id$/.test(key) ? id : likelyOr(random, key, () => fromRule(random, inner, id)),
          ]),
      );
    default:
      return null;
  }
}

/** What makes a request more likely to be taken. */
function known(random: Random, key: string): string | number | readonly string[] | null | undefined {
  if (random.oneIn(4)) return undefined;
  switch (key) {
    case "kernel_image_path":
    case "path_on_host":
      return random.pick(["kernel", "disk"]);
    case "host_dev_name":
      return "lo";
    case "vcpu_count":
      return 1 + random.below(4);
    case "mem_size_mib":
      return 64 + 2 * random.below(64);
    case "socket":
    case "initrd_path":
    case "serial_out_path":
    case "log_path":
      return null;
    case "metrics_path":
      return "missing/metrics";
    case "network_interfaces":
      return ["eth0"];
    default:
      return undefined;
  }
}

function likelyOr(random: Random, key: string, otherwise: () => unknown): unknown {
  const likely = known(random, key);
  return likely === undefined ? otherwise() : likely;
}

function changed(random: Random, value: unknown): unknown {
  if (Array.isArray(value)) {
    const items = [...(value as unknown[])];
    items.splice(random.below(items.length + 1), random.below(2), random.pick(ODD));
    return items;
  }
  if (typeof value !== "object" || value === null) return random.pick(ODD);
  const entries = Object.entries(value);
  if (entries.length === 0 || random.oneIn(4))
    return { ...value, [random.pick(["other", "__proto__", "", "id"])]: random.pick(ODD) };
  const at = random.below(entries.length);
  const way = random.below(3);
  return Object.fromEntries(
    entries.flatMap(([key, inner], index) => {
      if (index !== at) return [[key, inner]];
      if (way === 0) return [];
      return [[key, way === 1 ? random.pick(ODD) : changed(random, inner)]];
    }),
  );
}

function anything(random: Random, depth: number): unknown {
  if (depth === 0 || random.oneIn(3)) return random.pick(ODD);
  if (random.oneIn(2)) return Array.from({ length: random.below(4) }, () => anything(random, depth - 1));
  return Object.fromEntries(
    Array.from({ length: random.below(4) }, () => [random.pick(TEXTS), anything(random, depth - 1)]),
  );
}

function damaged(random: Random, bytes: Buffer): Buffer {
  const copy = Buffer.from(bytes);
  switch (random.below(4)) {
    case 0:
      return copy.subarray(0, random.below(copy.length + 1));
    case 1:
      return Buffer.concat([copy, copy]);
    case 2:
      // A key twice.
      return Buffer.from(copy.toString().replace(/^\{("[^"]*":[^,}]*)/, "{$1,$1"));
    default:
      if (copy.length > 0) copy[random.below(copy.length)] = random.below(256);
      return copy;
  }
}
