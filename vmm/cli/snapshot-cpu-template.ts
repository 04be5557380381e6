// `vmlet snapshot cpu-template HOST...`: what the processors of several hosts have in common.
import { readFileSync } from "node:fs";
import { ConfigError } from "../errors.js";
import { errnoText } from "../host/errno-text.js";
import { print } from "../host/say.js";
import { parseSnapshotCpuTemplate } from "./snapshot-arguments.js";

export async function cpuTemplate(argv: readonly string[]): Promise<number> {
  const { help, paths } = parseSnapshotCpuTemplate(argv);
  if (help) {
    print((await import("./snapshot-help.js")).SNAPSHOT_CPU_TEMPLATE_HELP);
    return 0;
  }
  const { templateOfHosts } = await import("../snapshot/host-descriptions.js");
  print(templateOfHosts(paths.map((path) => ({ path, text: read(path) }))));
  return 0;
}

function read(path: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === undefined) throw error;
    throw new ConfigError([`${path}: ${errnoText(code)}`]);
  }
}
