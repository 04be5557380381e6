// `vmlet images` and `vmlet rmi`: the images that are kept on this host.
import { VmmError } from "../../errors.js";
import { print, say } from "../../host/say.js";
import { exitCodeOfError } from "../exit-code.js";
import { parseOptions } from "../parse-options.js";
import { UsageError } from "../usage-error.js";
import { columns, megabytes, roughly } from "./columns.js";

export const FLAGS = {
  quiet: { type: "boolean", short: "q" },
  json: { type: "boolean" },
  help: { type: "boolean", short: "h" },
} as const;
export const RMI_FLAGS = { help: { type: "boolean", short: "h" } } as const;
const HEAD = ["IMAGE", "ID", "USED", "SIZE", "ALONE"];
const SHORT_ID = 12;

export async function images(argv: readonly string[]): Promise<number> {
  const { values } = parseOptions([...argv], FLAGS, "vmlet images");
  if (values.help === true) {
    const { IMAGES_HELP } = await import("./help.js");
    print(IMAGES_HELP);
    return 0;
  }
  const { listImages } = await import("../../image/index.js");
  const list = await listImages();
  if (values.quiet === true) print(list.map(({ id }) => `${id.slice(0, SHORT_ID)}\n`).join(""));
  else if (values.json === true) print(`${JSON.stringify(list)}\n`);
  else {
    const rows = list.map(({ id, references, used, bytes, ownBytes }) => [
      references.join(", "),
      id.slice(0, SHORT_ID),
      `${roughly(Date.now() - Date.parse(used))} ago`,
      megabytes(bytes),
      megabytes(ownBytes),
    ]);
    print(columns([HEAD, ...rows]));
  }
  return 0;
}

export async function rmi(argv: readonly string[]): Promise<number> {
  const { values, positionals } = parseOptions([...argv], RMI_FLAGS, "vmlet rmi", { allowPositionals: true });
  if (values.help === true) {
    const { RMI_HELP } = await import("./help.js");
    print(RMI_HELP);
    return 0;
  }
  if (positionals.length === 0) throw new UsageError("vmlet rmi: no IMAGE is given");
  const { removeImage } = await import("../../image/index.js");
  let exitCode = 0;
  for (const word of positionals) {
    try {
      await removeImage(word);
      print(`${word}\n`);
    } catch (error) {
      if (!(error instanceof VmmError)) throw error;
      say(error.message);
      exitCode ||= exitCodeOfError(error);
    }
  }
  return exitCode;
}
