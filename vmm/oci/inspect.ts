// `state`, `list` and `ps`: what there is.
import { ConfigError, HostError } from "../errors.js";
import { print } from "../host/say.js";
import { processesIn } from "./cgroups.js";
import { onlyWord, parseOptions } from "./command-line.js";
import type { Context } from "./context.js";
import { askMonitor } from "./monitor-messages.js";
import { allContainers, containerOf, stateOf, type Container } from "./state.js";

/** Where the guest's kernel is emulated, each of its processes takes tens of milliseconds to be read, `ms`. */
const PROCESSES_LIMIT_MS = 60_000;

export function state({ global, argv }: Context): number {
  const { words } = parseOptions(argv, {});
  print(`${JSON.stringify(summary(containerOf(global.root, onlyWord(words, "state"))), undefined, 2)}\n`);
  return 0;
}

/** As runc has it: the state, and what else is known. */
function summary(container: Container) {
  const record = container.known;
  const { ociVersion, id, status, pid, bundle, annotations } = stateOf(record, container.status);
  return {
    ociVersion,
    id,
    pid,
    status,
    bundle,
    rootfs: record.rootfs,
    created: record.created,
    ...(Object.keys(annotations).length > 0 ? { annotations } : {}),
    owner: "",
  };
}

export function list({ global, argv }: Context): number {
  const { options } = parseOptions(argv, { values: ["format|f"], flags: ["quiet|q"] });
  const format = options.value("format") ?? "table";
  if (format !== "table" && format !== "json") throw new ConfigError([`invalid format option`]);
  const found = allContainers(global.root).flatMap((container) => {
    try {
      return [{ ...summary(container), owner: "root" }];
    } catch (error) {
      // It is about to be made, goes in this moment, or is another runtime's.
      if (error instanceof ConfigError) return [];
      throw error;
    }
  });
  if (options.has("quiet")) print(found.map(({ id }) => `${id}\n`).join(""));
  else if (format === "json") print(`${JSON.stringify(found.length === 0 ? null : found)}\n`);
  else {
    print(
      columns([
        ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"],
        ...found.map(({ id, pid, status, bundle, created, owner }) => [
          id,
          String(pid),
          status,
          bundle,
          created,
          owner,
        ]),
      ]),
    );
  }
  return 0;
}

/** As Go's tabwriter makes it with a minimal width of 12, a padding of 3 and blanks. */
function columns(rows: readonly (readonly string[])[]): string {
  const widths = (rows[0] ?? []).map((_, index) => Math.max(12, ...rows.map((row) => (row[index] ?? "").length + 3)));
  return rows
    .map(
      (row) =>
        `${row.map((cell, index) => (index === row.length - 1 ? cell : cell.padEnd(widths[index] ?? 0))).join("")}\n`,
    )
    .join("");
}

/** In JSON the host's processes, as engines look for them there; as a table those of the guest. */
export async function ps({ global, argv }: Context): Promise<number> {
  const { options, words } = parseOptions(argv, { values: ["format|f"] }, { allowsMixed: true });
  const [id = ""] = words;
  if (id === "") throw new ConfigError(['"ps" requires a minimum of 1 argument']);
  const container = containerOf(global.root, id);
  const record = container.known;
  const format = options.value("format") ?? "table";
  if (format === "json") {
    const pids = processesIn(record.cgroups);
    const monitor = record.monitor?.pid;
    print(`${JSON.stringify(monitor === undefined || container.status === "stopped" ? pids : [monitor])}\n`);
    return 0;
  }
  if (format !== "table") throw new ConfigError(["invalid format option"]);
  const reply = await askMonitor(container, record, { processes: true }, PROCESSES_LIMIT_MS);
  if (reply === undefined) throw new HostError("the guest does not answer");
  if ("error" in reply) throw new HostError(reply.error);
  print(
    columns([
      ["PID", "PPID", "CMD"],
      ...(reply.processes ?? []).map(({ pid, parent, command }) => [String(pid), String(parent), command]),
    ]),
  );
  return 0;
}
