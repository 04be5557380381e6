// `vmlet attach VM`: this terminal at the program of a running VM.
import { ConfigError } from "../../errors.js";
import { print } from "../../host/say.js";
import { StateFolder } from "../../sdk/state-folder.js";
import { parseOptions } from "../parse-options.js";
import { UsageError } from "../usage-error.js";
import { attachTo } from "./attached.js";
import { DetachKeys } from "./detach-keys.js";

export const ATTACH_FLAGS = {
  "detach-keys": { type: "string" },
  "no-stdin": { type: "boolean" },
  help: { type: "boolean", short: "h" },
} as const;

export async function attach(argv: readonly string[]): Promise<number> {
  const { values, positionals } = parseOptions([...argv], ATTACH_FLAGS, "vmlet attach", { allowPositionals: true });
  if (values.help === true) {
    const { ATTACH_HELP } = await import("./help.js");
    print(ATTACH_HELP);
    return 0;
  }
  const [word, ...more] = positionals;
  if (word === undefined || more.length > 0) throw new UsageError("vmlet attach: one VM is to be given");
  const detachKeys = new DetachKeys(values["detach-keys"]);
  const state = new StateFolder();
  const record = state.find(word);
  if (record.status === "exited") throw new ConfigError([`VM ${record.name} has ended`]);
  if (record.command.length === 0)
    throw new ConfigError([`VM ${record.name} has no program of its own; vmlet exec starts one`]);
  return attachTo(state.folderOf(record.id).attachSocket, {
    name: record.name,
    hasTerminal: record.hasTerminal,
    isInteractive: values["no-stdin"] !== true,
    detachKeys,
    redraws: true,
  });
}
