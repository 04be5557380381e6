// `vmlet oci install ENGINE`: the lines by which Docker, podman or containerd know the runtime.
import { join, resolve } from "node:path";
import { packageRoot } from "../host/guest-files.js";
import { print, say } from "../host/say.js";
import { ENGINES, missingFor, planInstallation, writeInstallation, type EngineName } from "../oci/install.js";
import { parseOptions } from "./parse-options.js";
import { UsageError } from "./usage-error.js";

const OPTIONS = {
  write: { type: "boolean" },
  config: { type: "string" },
  program: { type: "string" },
  help: { type: "boolean", short: "h" },
} as const;

const HELP = `vmlet oci install makes vmlet-runtime known to an engine: it prints the lines for its configuration, and where they go.

Usage: vmlet oci install [options] docker|podman|containerd

Options:
  --write           write them, too; what else is in the file stays
  --config FILE     the engine's file, in place of the usual one
  --program PATH    where vmlet-runtime is
  -h, --help        show this help
`;

export function oci([command, ...argv]: readonly string[]): number {
  if (command === "--help" || command === "-h") {
    print(HELP);
    return 0;
  }
  if (command !== "install") throw new UsageError(`vmlet oci: ${JSON.stringify(command ?? "")} is not install`);
  const { values, positionals } = parseOptions(argv, OPTIONS, "vmlet oci install", { allowPositionals: true });
  if (values.help === true) {
    print(HELP);
    return 0;
  }
  const [engine, another] = positionals;
  if (!isEngine(engine) || another !== undefined) {
    throw new UsageError(`vmlet oci install: give one of ${ENGINES.join(", ")}`);
  }
  const program = resolve(values.program ?? join(packageRoot(), "dist/vmlet-runtime"));
  const plan = planInstallation(engine, program, values.config === undefined ? undefined : resolve(values.config));
  for (const line of missingFor(program)) say(`missing: ${line}`);
  if (plan.isDone) {
    print(`${plan.path} has it already\n`);
  } else if (values.write === true) {
    writeInstallation(plan);
    print(`${plan.path} is written\n`);
  } else {
    print(`In ${plan.path}, or with --write:\n\n${plan.lines}\n`);
  }
  if (plan.then !== "") print(`Then:     ${plan.then}\n`);
  print(`Try it:   ${plan.tryIt}\nUndo it:  ${plan.undo}\n`);
  return 0;
}

function isEngine(word: string | undefined): word is EngineName {
  return (ENGINES as readonly (string | undefined)[]).includes(word);
}
