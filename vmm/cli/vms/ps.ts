// `vmlet ps`: the VMs of this user.
import { print } from "../../host/say.js";
import { StateFolder } from "../../sdk/state-folder.js";
import type { PublishedPort, VmRecord } from "../../sdk/vm-record.js";
import { parseOptions } from "../parse-options.js";
import { columns, roughly } from "./columns.js";

export const FLAGS = {
  all: { type: "boolean", short: "a" },
  quiet: { type: "boolean", short: "q" },
  "no-trunc": { type: "boolean" },
  json: { type: "boolean" },
  help: { type: "boolean", short: "h" },
} as const;
const HEAD = ["VM ID", "ROOT", "COMMAND", "CREATED", "STATUS", "PORTS", "NAME"];
const MAX_COMMAND = 24;

export async function ps(argv: readonly string[]): Promise<number> {
  const { values } = parseOptions([...argv], FLAGS, "vmlet ps");
  if (values.help === true) {
    const { PS_HELP } = await import("./help.js");
    print(PS_HELP);
    return 0;
  }
  const records = new StateFolder().list().filter(({ status }) => values.all === true || status !== "exited");
  if (values.quiet === true) print(records.map(({ id }) => `${id}\n`).join(""));
  else if (values.json === true) print(`${JSON.stringify(records)}\n`);
  else print(columns([HEAD, ...records.map((record) => row(record, values["no-trunc"] === true))]));
  return 0;
}

function row(record: VmRecord, isWhole: boolean): string[] {
  const { id, source, command, created, ports, name } = record;
  const words = command.join(" ");
  const shown = isWhole || words.length <= MAX_COMMAND ? words : `${words.slice(0, MAX_COMMAND - 1)}…`;
  return [
    id,
    source,
    shown === "" ? "-" : `"${shown}"`,
    `${roughly(Date.now() - Date.parse(created))} ago`,
    statusOf(record),
    ports.map(portText).join(", "),
    name,
  ];
}

export function statusOf({ status, created, finished, exitCode }: VmRecord): string {
  switch (status) {
    case "starting":
      return "Starting";
    case "running":
      return `Up ${roughly(Date.now() - Date.parse(created))}`;
    case "exited":
      return `Exited (${String(exitCode ?? 0)}) ${roughly(Date.now() - Date.parse(finished ?? created))} ago`;
  }
}

function portText({ hostAddress, hostPort, guestPort, protocol }: PublishedPort): string {
  return `${hostAddress}:${String(hostPort)}->${String(guestPort)}/${protocol}`;
}
