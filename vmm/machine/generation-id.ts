// The VM's generation id: a guest whose kernel knows the ACPI device reseeds its random numbers when it changes.
// "Virtual Machine Generation ID", Microsoft, 2012; DESIGN.md, "Tables for the kernel".
import type { GuestMemory, InterruptLine, SharedWords } from "../../devices/contracts.js";
import { GPE_GENERATION, raiseGpe } from "../../devices/legacy/acpi-pm.js";
import { GENERATION_ID_GPA, GENERATION_ID_LENGTH } from "../memory/layout.js";
import { randomBytes } from "../sys/random.js";

/** For a guest that boots. */
export function setGeneration(memory: Pick<GuestMemory, "slice">): void {
  memory.slice(GENERATION_ID_GPA, GENERATION_ID_LENGTH).set(randomBytes(GENERATION_ID_LENGTH));
}

/** For one that goes on from where others do, too, before it runs: it is told. `acpiPm`: that device's words. */
export function changeGeneration(
  memory: Pick<GuestMemory, "slice">,
  acpiPm: SharedWords,
  systemControl: InterruptLine,
): void {
  setGeneration(memory);
  if (raiseGpe(acpiPm, GPE_GENERATION)) systemControl.trigger();
}
