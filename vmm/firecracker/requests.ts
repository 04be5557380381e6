// A request of HTTP -> what is asked, checked as far as that goes without a VM. What is refused here has reached nothing.
// Paths are read as Firecracker reads them: further parts of a path are not looked at where it does not.
import { checkSection } from "./check-section.js";
import { Fault } from "./fault.js";
import { ID, type SchemaName } from "./schemas.js";
import type { Section } from "./sections.js";
import { parseJson } from "./strict-json.js";

/** Bodies that are checked against a schema, each with what it asks for. */
interface Bodies {
  readonly action: Section<"InstanceActionInfo">;
  readonly setBalloon: Section<"Balloon">;
  readonly updateBalloon: Section<"BalloonUpdate">;
  readonly updateBalloonStatistics: Section<"BalloonStatsUpdate">;
  readonly startHinting: Section<"BalloonStartCmd">;
  readonly setBootSource: Section<"BootSource">;
  readonly setCpuConfig: Section<"CpuConfig">;
  readonly setDrive: Section<"Drive">;
  readonly updateDrive: Section<"PartialDrive">;
  readonly setEntropy: Section<"EntropyDevice">;
  readonly setLogger: Section<"Logger">;
  readonly setMachine: Section<"MachineConfiguration">;
  readonly updateMachine: Section<"PartialMachineConfiguration">;
  readonly setMemoryHotplug: Section<"MemoryHotplugConfig">;
  readonly updateMemoryHotplug: Section<"MemoryHotplugSizeUpdate">;
  readonly setMetrics: Section<"Metrics">;
  readonly setMmdsConfig: Section<"MmdsConfig">;
  readonly putMmds: unknown;
  readonly patchMmds: unknown;
  readonly setNet: Section<"NetworkInterface">;
  readonly updateNet: Section<"PartialNetworkInterface">;
  readonly setPmem: Section<"Pmem">;
  readonly updatePmem: Section<"PartialPmem">;
  readonly setSerial: Section<"SerialDevice">;
  readonly createSnapshot: Section<"SnapshotCreateParams">;
  readonly loadSnapshot: Section<"SnapshotLoadParams">;
  readonly setVmState: Section<"Vm">;
  readonly setVsock: Section<"Vsock">;
  readonly unplug: { readonly kind: "drives" | "pmem" | "network-interfaces"; readonly id: string };
}

/** Requests without a body. */
export type Question =
  | "getInstance"
  | "getVersion"
  | "getVmConfig"
  | "getMachine"
  | "getMmds"
  | "getBalloon"
  | "getBalloonStatistics"
  | "getHinting"
  | "stopHinting"
  | "getMemoryHotplug";

export type Asked =
  | { readonly name: Question; readonly body?: undefined }
  | { [Name in keyof Bodies]: { readonly name: Name; readonly body: Bodies[Name] } }[keyof Bodies];

export type AskedName = Asked["name"];

/** What is asked, and what of it is only there for old clients. */
export type ParsedRequest = Asked & { readonly deprecated?: string };

const METHODS = ["GET", "PUT", "PATCH", "DELETE"] as const;
export type Method = (typeof METHODS)[number];

/** Throws Fault. `body` is undefined or empty without one. */
export function parseRequest(method: string, url: string, body: Uint8Array | undefined): ParsedRequest {
  const path = url.replace(/^https?:\/\/[^/]*/, "").replace(/^\/+/, "");
  const [first = "", second, third] = path.replace(/\/$/, "").split("/");
  const given = body === undefined || body.length === 0 ? undefined : body;
  if (!isMethod(method)) throw unknownRequest(method, first);
  switch (method) {
    case "GET":
      return parseGet(given, first, second, third);
    case "PUT":
      return parsePut(given, first, second);
    case "PATCH":
      return parsePatch(given, first, second, third);
    case "DELETE":
      return parseDelete(given, first, second);
  }
}

function isMethod(method: string): method is Method {
  return METHODS.some((one) => one === method);
}

/** Clients look for its beginning. */
function unknownRequest(method: string, path: string): Fault {
  return new Fault(`Invalid request method and/or path: ${method} ${path}.`);
}

function parseGet(body: Uint8Array | undefined, first: string, second?: string, third?: string): ParsedRequest {
  if (body !== undefined) throw new Fault("A GET request has no body");
  switch (first) {
    case "":
      return { name: "getInstance" };
    case "version":
      return { name: "getVersion" };
    case "machine-config":
      return { name: "getMachine" };
    case "mmds":
      return { name: "getMmds" };
    case "vm":
      if (second === "config") return { name: "getVmConfig" };
      break;
    case "balloon":
      if (second === undefined) return { name: "getBalloon" };
      if (second === "statistics") return { name: "getBalloonStatistics" };
      if (second === "hinting" && third === "status") return { name: "getHinting" };
      break;
    case "hotplug":
      if (second === "memory") return { name: "getMemoryHotplug" };
      break;
  }
  throw unknownRequest("GET", first);
}

function parsePut(body: Uint8Array | undefined, first: string, second?: string): ParsedRequest {
  if (body === undefined) throw new Fault("A PUT request has a body");
  const section = <Name extends SchemaName>(name: Name): Section<Name> => checkSection(name, parseJson(body));
  switch (first) {
    case "actions":
      return { name: "action", body: section("InstanceActionInfo") };
    case "balloon":
      return { name: "setBalloon", body: section("Balloon") };
    case "boot-source":
      return { name: "setBootSource", body: section("BootSource") };
    case "cpu-config":
      return { name: "setCpuConfig", body: section("CpuConfig") };
    case "drives":
      return { name: "setDrive", body: withId("drive_id", second, () => section("Drive")) };
    case "entropy":
      return { name: "setEntropy", body: section("EntropyDevice") };
    case "logger":
      return { name: "setLogger", body: section("Logger") };
    case "machine-config": {
      const machine = section("MachineConfiguration");
      return { name: "setMachine", body: machine, ...deprecatedTemplate("PUT", machine) };
    }
    case "metrics":
      return { name: "setMetrics", body: section("Metrics") };
    case "mmds":
      if (second === undefined) return { name: "putMmds", body: parseJson(body, { isFree: true }) };
      if (second === "config") return parseMmdsConfig(section("MmdsConfig"));
      break;
    case "network-interfaces":
      return { name: "setNet", body: withId("iface_id", second, () => section("NetworkInterface")) };
    case "pmem":
      return { name: "setPmem", body: withId("id", second, () => section("Pmem")) };
    case "serial":
      return { name: "setSerial", body: section("SerialDevice") };
    case "snapshot":
      if (second === "create") return { name: "createSnapshot", body: section("SnapshotCreateParams") };
      if (second === "load") return parseLoad(section("SnapshotLoadParams"));
      break;
    case "vsock": {
      const vsock = section("Vsock");
      const isOld = vsock.vsock_id !== undefined && vsock.vsock_id !== null;
      return { name: "setVsock", body: vsock, ...(isOld ? { deprecated: "PUT /vsock: vsock_id is deprecated" } : {}) };
    }
    case "hotplug":
      if (second === "memory") return { name: "setMemoryHotplug", body: section("MemoryHotplugConfig") };
      break;
  }
  throw unknownRequest("PUT", second === undefined ? first : `${first}/${second}`);
}

function parsePatch(body: Uint8Array | undefined, first: string, second?: string, third?: string): ParsedRequest {
  if (first === "balloon" && second === "hinting") {
    if (third === "stop") return { name: "stopHinting" };
    if (third !== "start") throw unknownRequest("PATCH", "balloon/hinting");
    const asked = body === undefined ? {} : checkSection("BalloonStartCmd", parseJson(body));
    return { name: "startHinting", body: asked };
  }
  if (body === undefined) throw new Fault("A PATCH request has a body");
  const section = <Name extends SchemaName>(name: Name): Section<Name> => checkSection(name, parseJson(body));
  switch (first) {
    case "balloon":
      if (second === "statistics") return { name: "updateBalloonStatistics", body: section("BalloonStatsUpdate") };
      return { name: "updateBalloon", body: section("BalloonUpdate") };
    case "drives":
      return { name: "updateDrive", body: withId("drive_id", second, () => section("PartialDrive")) };
    case "machine-config": {
      const machine = section("PartialMachineConfiguration");
      if (Object.values(machine).every((value) => value === null)) throw new Fault("A PATCH request changes something");
      return { name: "updateMachine", body: machine, ...deprecatedTemplate("PATCH", machine) };
    }
    case "mmds":
      return { name: "patchMmds", body: parseJson(body, { isFree: true }) };
    case "network-interfaces":
      return { name: "updateNet", body: withId("iface_id", second, () => section("PartialNetworkInterface")) };
    case "pmem":
      return { name: "updatePmem", body: withId("id", second, () => section("PartialPmem")) };
    case "vm":
      return { name: "setVmState", body: section("Vm") };
    case "hotplug":
      if (second === "memory") return { name: "updateMemoryHotplug", body: section("MemoryHotplugSizeUpdate") };
      break;
  }
  throw unknownRequest("PATCH", first);
}

function parseDelete(body: Uint8Array | undefined, first: string, second?: string): ParsedRequest {
  if (body !== undefined) throw new Fault("A DELETE request has no body");
  if (first !== "drives" && first !== "pmem" && first !== "network-interfaces") throw unknownRequest("DELETE", first);
  return { name: "unplug", body: { kind: first, id: checkedId(second) } };
}

const ID_FORM = new RegExp(ID.pattern, "u");

function checkedId(id: string | undefined): string {
  if (id === undefined || id === "") throw new Fault("The path has no id");
  if (!ID_FORM.test(id)) throw new Fault("The id in the path has other characters than letters, digits and _");
  return id;
}

/** The id of the path stands in the body, too. */
function withId<Key extends string, Body extends Readonly<Record<Key, string>>>(
  key: Key,
  id: string | undefined,
  read: () => Body,
): Body {
  const checked = checkedId(id);
  const body = read();
  if (body[key] === checked) return body;
  throw new Fault(`The id of the path, ${checked}, is not that of the body, ${body[key]}`);
}

function deprecatedTemplate(method: Method, { cpu_template }: Section<"PartialMachineConfiguration">) {
  const isOld = cpu_template !== undefined && cpu_template !== null;
  return isOld ? { deprecated: `${method} /machine-config: cpu_template is deprecated` } : {};
}

function parseMmdsConfig(body: Section<"MmdsConfig">): ParsedRequest {
  const isOld = (body.version ?? "V1") === "V1";
  return {
    name: "setMmdsConfig",
    body,
    ...(isOld ? { deprecated: "PUT /mmds/config: V1 is deprecated, use V2" } : {}),
  };
}

function parseLoad(body: Section<"SnapshotLoadParams">): ParsedRequest {
  const hasPath = body.mem_file_path !== undefined && body.mem_file_path !== null;
  const hasBackend = body.mem_backend !== undefined && body.mem_backend !== null;
  if (hasPath === hasBackend) {
    throw new Fault(`Snapshot: give mem_backend or mem_file_path, ${hasPath ? "not both" : "one of the two"}`);
  }
  const isOld = hasPath || body.enable_diff_snapshots === true;
  const deprecated = "PUT /snapshot/load: mem_file_path and enable_diff_snapshots are deprecated";
  return { name: "loadSnapshot", body, ...(isOld ? { deprecated } : {}) };
}
