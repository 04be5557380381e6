// `vmlet snapshot create|restore|receive|inspect|delete`.
import { resolve } from "node:path";
import type * as Texts from "./snapshot-help.js";
import { print } from "../host/say.js";
import { UsageError } from "./usage-error.js";

const COMMANDS = ["create", "restore", "receive", "inspect", "delete", "cpu-template"] as const;

export async function snapshot([command, ...rest]: readonly string[]): Promise<number> {
  switch (command) {
    case "create":
      return create(rest);
    case "restore":
      return (await import("./snapshot-restore.js")).restore(rest);
    case "receive":
      return (await import("./snapshot-receive.js")).receive(rest);
    case "inspect":
      return inspect(rest);
    case "delete":
      return remove(rest);
    case "cpu-template":
      return (await import("./snapshot-cpu-template.js")).cpuTemplate(rest);
    case "--help":
    case "-h":
      return help("SNAPSHOT_HELP");
    case undefined:
      throw new UsageError(`vmlet snapshot: give one of ${COMMANDS.join(", ")}`);
    default:
      throw new UsageError(`vmlet snapshot: unknown ${JSON.stringify(command)}; known are ${COMMANDS.join(", ")}`);
  }
}

async function help(name: keyof typeof Texts): Promise<number> {
  print((await import("./snapshot-help.js"))[name]);
  return 0;
}

async function create(argv: readonly string[]): Promise<number> {
  const { parseSnapshotCreate } = await import("./snapshot-arguments.js");
  const options = parseSnapshotCreate(argv);
  if (options.help) return help("SNAPSHOT_CREATE_HELP");
  const { request } = await import("../sdk/control-client.js");
  const { Progress } = await import("../host/progress.js");
  const progress = new Progress("the guest is being saved");
  // In the folder of the one who asks, not of the vmlet that runs the guest.
  const folder = resolve(options.folder);
  let reply: Awaited<ReturnType<typeof request>>;
  try {
    const since = options.diff === undefined ? {} : { base: resolve(options.diff) };
    const mode = options.diff === undefined ? "full" : "diff";
    const asked = { folder, stop: options.stop, watch: options.watch, mode, ...since } as const;
    reply = await request(options.socket, { snapshot: asked }, { timeoutMs: 0 });
  } finally {
    progress.done();
  }
  const { id = "", bytes = 0, paused_ms = 0 } = reply;
  if (options.json) print(`${JSON.stringify({ folder, id, bytes, paused_ms }, undefined, 2)}\n`);
  else {
    const { mib } = await import("./snapshot-table.js");
    print(
      `${folder}: ${mib(bytes)}; the guest ${options.stop ? "has ended" : `rested for ${paused_ms.toFixed(0)} ms`}\n`,
    );
  }
  return 0;
}

async function inspect(argv: readonly string[]): Promise<number> {
  const { parseSnapshotInspect } = await import("./snapshot-arguments.js");
  const options = parseSnapshotInspect(argv);
  if (options.help) return help("SNAPSHOT_INSPECT_HELP");
  const { inspectSnapshot } = await import("../snapshot/inspect.js");
  const { snapshotJson, snapshotTable } = await import("./snapshot-table.js");
  const { problemsHere } = await import("../snapshot/problems-here.js");
  const description = inspectSnapshot(options.folder, { verify: options.verify });
  const problems = problemsHere(options.folder);
  print(options.json ? snapshotJson(description, problems) : snapshotTable(description, problems));
  return 0;
}

async function remove(argv: readonly string[]): Promise<number> {
  const { parseSnapshotDelete } = await import("./snapshot-arguments.js");
  const options = parseSnapshotDelete(argv);
  if (options.help) return help("SNAPSHOT_DELETE_HELP");
  const { deleteSnapshot } = await import("../snapshot/delete.js");
  deleteSnapshot(options.folder);
  return 0;
}
