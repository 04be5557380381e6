// `vmlet lab`: a shell or a command in the lab's first level.
import { availableParallelism } from "node:os";
import { basename } from "node:path";
import { LAB_PACKAGE, checkoutInputs } from "../lab/checkout.js";
import { runInLab } from "../lab/connect.js";
import { checkLabPrograms } from "../lab/accelerator.js";
import { parseLab } from "./arguments.js";
import { writeWhole } from "./report.js";
import { argumentBytes } from "./argument-bytes.js";
import { packageRoot } from "../host/guest-files.js";
import { print } from "../host/say.js";

const LAB_MEMORY_MIB = 1536;

export async function lab(argv: readonly string[]): Promise<number> {
  const { help, cpu, model, nvme, command } = parseLab(argv);
  if (help) {
    print((await import("./help.js")).LAB_HELP);
    return 0;
  }
  checkLabPrograms(cpu);
  const result = await runInLab(
    {
      cpu,
      ...(model === undefined ? {} : { model }),
      nvmeDisk: nvme,
      packageRoot: packageRoot(),
      memoryMib: LAB_MEMORY_MIB,
      cpus: Math.max(2, availableParallelism()),
      inputs: checkoutInputs(packageRoot()),
    },
    { argv: command.length > 0 ? argumentBytes(command) : ["sh", "-l"], cwd: LAB_PACKAGE },
  );
  let { status } = result;
  for (const [name, content] of result.files) status = await writeWhole("/output:", basename(name), content, status);
  return status;
}
