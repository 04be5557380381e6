// The OpenAPI description of the interface, made of the same schemas that requests are checked against. Published with the package.
import { EXAMPLES } from "./examples.js";
import { SCHEMAS, type SchemaName } from "./schemas.js";
import { FIRECRACKER_VERSION } from "./version.js";

interface Operation {
  readonly summary: string;
  /** Of the body. */
  readonly body?: keyof typeof EXAMPLES | "MmdsContents";
  /** Of what is answered; without one there is nothing but a status. */
  readonly answer?:
    | SchemaName
    | "InstanceInfo"
    | "FirecrackerVersion"
    | "BalloonStats"
    | "BalloonHintingStatus"
    | "MmdsContents"
    | "VmConfiguration";
  /** What vmlet has not: every such request is refused. */
  readonly isRefused?: boolean;
}

type Operations = Readonly<Partial<Record<"get" | "put" | "patch" | "delete", Operation>>>;

export const OPERATIONS: Readonly<Record<string, Operations>> = {
  "/": { get: { summary: "What this is, and its state", answer: "InstanceInfo" } },
  "/version": { get: { summary: "The version of Firecracker that this passes for", answer: "FirecrackerVersion" } },
  "/vm/config": { get: { summary: "All that is configured", answer: "VmConfiguration" } },
  "/vm": { patch: { summary: "Pause the guest, or let it go on", body: "Vm" } },
  "/actions": { put: { summary: "Start the guest, write metrics, press Ctrl-Alt-Del", body: "InstanceActionInfo" } },
  "/boot-source": { put: { summary: "Kernel, initramfs and command line", body: "BootSource" } },
  "/machine-config": {
    get: { summary: "vCPUs and memory", answer: "MachineConfiguration" },
    put: { summary: "Set vCPUs and memory", body: "MachineConfiguration" },
    patch: { summary: "Change some of it", body: "PartialMachineConfiguration" },
  },
  "/cpu-config": { put: { summary: "A custom CPU template", body: "CpuConfig" } },
  "/drives/{drive_id}": {
    put: { summary: "Add or replace a drive", body: "Drive" },
    patch: { summary: "Another file or other limits, while the guest runs", body: "PartialDrive" },
    delete: { summary: "Unplug a drive", isRefused: true },
  },
  "/network-interfaces/{iface_id}": {
    put: { summary: "Add or replace a network interface", body: "NetworkInterface" },
    patch: { summary: "Other limits, while the guest runs", body: "PartialNetworkInterface" },
    delete: { summary: "Unplug a network interface", isRefused: true },
  },
  "/vsock": { put: { summary: "A socket device", body: "Vsock" } },
  "/balloon": {
    get: { summary: "The balloon", answer: "Balloon" },
    put: { summary: "Add or replace the balloon", body: "Balloon" },
    patch: { summary: "Another target, while the guest runs", body: "BalloonUpdate" },
  },
  "/balloon/statistics": {
    get: { summary: "What the guest last said of its memory", answer: "BalloonStats" },
    patch: { summary: "How often it is asked", body: "BalloonStatsUpdate" },
  },
  "/balloon/hinting/start": { patch: { summary: "Ask the guest for its free pages", body: "BalloonStartCmd" } },
  "/balloon/hinting/stop": { patch: { summary: "Let it use them again" } },
  "/balloon/hinting/status": { get: { summary: "How far that is", answer: "BalloonHintingStatus" } },
  "/entropy": { put: { summary: "An entropy device", body: "EntropyDevice" } },
  "/serial": { put: { summary: "Where the console's output goes", body: "SerialDevice" } },
  "/pmem/{id}": {
    put: { summary: "A pmem device", body: "Pmem", isRefused: true },
    patch: { summary: "Limits of a pmem device", body: "PartialPmem", isRefused: true },
    delete: { summary: "Unplug a pmem device", isRefused: true },
  },
  "/hotplug/memory": {
    get: { summary: "Memory that can be plugged in", isRefused: true },
    put: { summary: "Memory that can be plugged in", body: "MemoryHotplugConfig", isRefused: true },
    patch: { summary: "How much of it is", body: "MemoryHotplugSizeUpdate", isRefused: true },
  },
  "/logger": { put: { summary: "Where the log goes, and what is in it", body: "Logger" } },
  "/metrics": { put: { summary: "Where metrics go", body: "Metrics" } },
  "/mmds": {
    get: { summary: "The guest's metadata", answer: "MmdsContents" },
    put: { summary: "Replace the guest's metadata", body: "MmdsContents" },
    patch: { summary: "Merge into it (RFC 7396)", body: "MmdsContents" },
  },
  "/mmds/config": { put: { summary: "Which interfaces of the guest reach its metadata", body: "MmdsConfig" } },
  "/snapshot/create": { put: { summary: "Save the paused guest", body: "SnapshotCreateParams" } },
  "/snapshot/load": { put: { summary: "Go on with a saved guest", body: "SnapshotLoadParams" } },
};

const METADATA = { latest: { "meta-data": { "instance-id": "i-1" } } };
const NUMBER = { type: "integer" } as const;

/** What is only answered. */
const ANSWERS = {
  Error: { type: "object", properties: { fault_message: { type: "string" } }, required: ["fault_message"] },
  InstanceInfo: {
    type: "object",
    properties: {
      app_name: { type: "string" },
      id: { type: "string" },
      state: { enum: ["Not started", "Running", "Paused"] },
      vmm_version: { type: "string" },
    },
    required: ["app_name", "id", "state", "vmm_version"],
  },
  FirecrackerVersion: {
    type: "object",
    properties: { firecracker_version: { type: "string" } },
    required: ["firecracker_version"],
  },
  BalloonStats: {
    type: "object",
    properties: Object.fromEntries(
      [
        ...["target_pages", "actual_pages", "target_mib", "actual_mib", "swap_in", "swap_out", "major_faults"],
        ...["minor_faults", "free_memory", "total_memory", "available_memory", "disk_caches"],
        ...["hugetlb_allocations", "hugetlb_failures", "oom_kill", "alloc_stall", "async_scan", "direct_scan"],
        ...["async_reclaim", "direct_reclaim"],
      ].map((name) => [name, NUMBER]),
    ),
    required: ["target_pages", "actual_pages", "target_mib", "actual_mib"],
  },
  BalloonHintingStatus: {
    type: "object",
    properties: { host_cmd: NUMBER, guest_cmd: { type: ["integer", "null"] } },
    required: ["host_cmd"],
  },
  MmdsContents: { type: "object", description: "Any JSON" },
  VmConfiguration: { type: "object", description: "As the configuration file, each section or null" },
} as const;

/** A document of OpenAPI 3.1, whose schemas are JSON Schema as they stand. */
export function openApi(): object {
  return {
    openapi: "3.1.0",
    info: {
      title: "Firecracker's interface of vmlet",
      version: FIRECRACKER_VERSION,
      description: "By HTTP on a Unix socket. A refusal changes nothing, and says why in fault_message.",
      license: { name: "Apache-2.0" },
    },
    paths: Object.fromEntries(
      Object.entries(OPERATIONS).map(([path, operations]) => [
        path,
        { ...parametersOf(path), ...pathItem(path, operations) },
      ]),
    ),
    components: { schemas: { ...SCHEMAS, ...ANSWERS } },
  };
}

function parametersOf(path: string): object {
  const name = /\{(\w+)\}/.exec(path)?.[1];
  if (name === undefined) return {};
  return { parameters: [{ name, in: "path", required: true, schema: { type: "string" } }] };
}

function pathItem(path: string, operations: Operations): object {
  return Object.fromEntries(
    Object.entries(operations).map(([method, operation]) => [method, describe(operationId(method, path), operation)]),
  );
}

/** What generators call a client's function: getVmConfig, putDrives, patchBalloonHintingStart, …; get alone for "/". */
function operationId(method: string, path: string): string {
  const words = path.replace(/\{\w+\}/, "").split(/\W+/);
  return [method, ...words.filter(Boolean).map((word) => word.charAt(0).toUpperCase() + word.slice(1))].join("");
}

function describe(id: string, { summary, body, answer, isRefused = false }: Operation): object {
  const fault = { description: "Refused; nothing has changed", content: json("Error") };
  const done =
    answer === undefined
      ? { 204: { description: "Done" } }
      : { 200: { description: "The answer", content: json(answer) } };
  const example = body === undefined ? undefined : body === "MmdsContents" ? METADATA : EXAMPLES[body];
  return {
    operationId: id,
    summary: isRefused ? `${summary}: vmlet has none, and refuses this` : summary,
    ...(body === undefined ? {} : { requestBody: { required: true, content: json(body, example) } }),
    responses: { ...(isRefused ? {} : done), 400: fault },
  };
}

function json(name: string, example?: unknown): object {
  const schema = { $ref: `#/components/schemas/${name}` };
  return { "application/json": { schema, ...(example === undefined ? {} : { example }) } };
}
