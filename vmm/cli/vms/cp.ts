// `vmlet cp`: files and folders between this host and a running VM, as `docker cp` has it.
import { ConfigError } from "../../errors.js";
import { OutputQueue, OutputWriter } from "../../host/standard-output.js";
import { print, say } from "../../host/say.js";
import { GuestTrees } from "../../agent/trees.js";
import type { CopyReport } from "../../agent/copy.js";
import { connectAgent } from "../../sdk/agent-socket.js";
import { StateFolder } from "../../sdk/state-folder.js";
import { parseOptions } from "../parse-options.js";
import { UsageError } from "../usage-error.js";

export const FLAGS = {
  archive: { type: "boolean", short: "a" },
  "follow-link": { type: "boolean", short: "L" },
  help: { type: "boolean", short: "h" },
} as const;
/** Standard input or output, as a tar stream. */
const STREAM = "-";
const STDOUT = 1;
const SHOWN_SKIPS = 10;

interface Side {
  /** Undefined: this host. */
  readonly vm: string | undefined;
  readonly path: string;
}

/** VM:PATH, or a path of this host; one that has a colon is written with a slash before it. */
export function parseSide(word: string): Side {
  const at = word.indexOf(":");
  if (word === STREAM || at < 1 || word.startsWith("/") || word.startsWith(".")) return { vm: undefined, path: word };
  return { vm: word.slice(0, at), path: word.slice(at + 1) };
}

export async function cp(argv: readonly string[]): Promise<number> {
  const { values, positionals } = parseOptions([...argv], FLAGS, "vmlet cp", { allowPositionals: true });
  if (values.help === true) {
    const { CP_HELP } = await import("./help.js");
    print(CP_HELP);
    return 0;
  }
  const [from, to, ...more] = positionals.map(parseSide);
  if (from === undefined || to === undefined || more.length > 0) {
    throw new UsageError("vmlet cp: a source and a target are to be given");
  }
  if ((from.vm === undefined) === (to.vm === undefined)) {
    throw new UsageError("vmlet cp: one of the two sides is VM:PATH, the other this host's");
  }
  const guest = from.vm === undefined ? to : from;
  if (!guest.path.startsWith("/")) {
    throw new UsageError(`vmlet cp: ${JSON.stringify(guest.path)} is not an absolute path of the VM`);
  }
  const state = new StateFolder();
  const record = state.find(guest.vm ?? "");
  if (record.status !== "running") throw new ConfigError([`VM ${record.name} does not run`]);
  const agent = await connectAgent(state.folderOf(record.id).agentSocket);
  const options = { keepOwner: values.archive === true, followLink: values["follow-link"] === true };
  try {
    const files = new GuestTrees(agent);
    if (from.vm !== undefined && to.path === STREAM) await writeOut(files, from.path);
    else if (from.path === STREAM) await files.writeTree(to.path, process.stdin);
    else if (from.vm !== undefined) tellSkipped(await files.copyOut(from.path, to.path, options));
    else tellSkipped(await files.copyIn(from.path, to.path, options));
    return 0;
  } finally {
    agent.close();
  }
}

async function writeOut(files: GuestTrees, path: string): Promise<void> {
  const name = path.replace(/\/+$/, "").split("/").at(-1) ?? "";
  const archive = files.readTree(path, { name: name === "" ? "." : name });
  const queue = new OutputQueue(
    new OutputWriter(STDOUT, {
      vanished: () => archive.destroy(),
      failed: (why) => {
        say(`standard output: ${why}: the archive is not whole`);
      },
    }),
  );
  for await (const bytes of archive) await new Promise<void>((done) => queue.push(bytes as Uint8Array, done));
}

function tellSkipped({ skipped, skippedCount }: CopyReport): void {
  for (const { path, reason } of skipped.slice(0, SHOWN_SKIPS)) say(`left out: ${path}: ${reason}`);
  if (skippedCount > SHOWN_SKIPS) say(`and ${String(skippedCount - SHOWN_SKIPS)} more`);
}
