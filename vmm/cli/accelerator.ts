// --accel, and why it is what it is.
import { HostError, VmmError } from "../errors.js";
import { say } from "../host/say.js";
import { chooseAccelerator, type AcceleratorChoice, type Choice } from "../lab/accelerator.js";

/** The accelerator; if /dev/kvm was needed and failed, the error gives the doctor's reason. */
export async function chooseOrExplain(accel: AcceleratorChoice): Promise<Choice> {
  try {
    return chooseAccelerator(accel);
  } catch (error) {
    if (!(error instanceof VmmError)) throw error;
    const why = (await import("../doctor/in-a-line.js")).whyNoKvm();
    if (why === undefined) throw error;
    const other = error.cure === undefined || accel === "kvm" ? "" : `; or ${error.cure}`;
    throw new HostError(`${error.message}: ${why.detail}`, { cause: error, cure: `${why.cure}${other}` });
  }
}

/** The line that tells the user of a lab that was not asked for. */
export async function sayWhyLab(choice: Choice): Promise<void> {
  if (choice.kind !== "lab" || choice.reason === undefined) return;
  const why = (await import("../doctor/in-a-line.js")).whyNoKvm();
  say(`${choice.reason}${why === undefined ? "" : `; better: ${why.detail}: ${why.cure}`}`);
}
