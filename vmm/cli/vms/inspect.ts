// `vmlet inspect VM...`: all that is known of VMs, as JSON.
import { print } from "../../host/say.js";
import { StateFolder } from "../../sdk/state-folder.js";
import { parseOptions } from "../parse-options.js";
import { UsageError } from "../usage-error.js";

export const FLAGS = { json: { type: "boolean" }, help: { type: "boolean", short: "h" } } as const;

export async function inspect(argv: readonly string[]): Promise<number> {
  const { values, positionals } = parseOptions([...argv], FLAGS, "vmlet inspect", { allowPositionals: true });
  if (values.help === true) {
    const { INSPECT_HELP } = await import("./help.js");
    print(INSPECT_HELP);
    return 0;
  }
  if (positionals.length === 0) throw new UsageError("vmlet inspect: no VM is given");
  const state = new StateFolder();
  const records = positionals.map((word) => {
    const record = state.find(word);
    const { agentSocket, controlSocket } = state.folderOf(record.id);
    return record.status === "exited" ? record : { ...record, agentSocket, controlSocket };
  });
  print(`${JSON.stringify(records, undefined, 2)}\n`);
  return 0;
}
