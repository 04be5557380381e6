// The program in a lab, as a shell there starts it.
import { LAB_CLI, LAB_PACKAGE } from "../../vmm/lab/checkout.js";
import type { LabInput } from "../../vmm/lab/image.js";
import { V8_FLAGS } from "../../vmm/host/v8-flags.js";
import { IN_JAIL, jailEnvironment, jailMode } from "./jail-lane.js";

export const LAB_PROGRAM =
  jailMode === undefined ? `node ${V8_FLAGS.join(" ")} ${LAB_CLI}` : `${LAB_PACKAGE}/${IN_JAIL}`;

export const LAB_ENVIRONMENT: Readonly<Record<string, string>> = { VMLET: LAB_PROGRAM, ...jailEnvironment };

/** What it needs there besides the package. */
export const LAB_PROGRAM_INPUTS: readonly LabInput[] =
  jailMode === undefined ? [] : [{ from: IN_JAIL, to: `vmlet/${IN_JAIL}` }];
