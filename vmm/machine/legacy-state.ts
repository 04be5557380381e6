// State of the devices that lie in shared words: each names its fields, thread-machine.ts knows where its words are.
// Of the boot timer, what the guest has told through it.
import { restoreAcpiPm, saveAcpiPm } from "../../devices/legacy/acpi-pm.js";
import { hasKeyboard, restoreKeyboard, saveKeyboard } from "../../devices/legacy/i8042.js";
import { restoreRtc, saveRtc } from "../../devices/legacy/rtc-state.js";
import { restoreSerial, saveSerial } from "../../devices/legacy/serial-state.js";
import type { State, StateReader } from "../../devices/state.js";
import { MILESTONE_COMMAND_END, MILESTONE_COMMAND_START, MILESTONE_INIT, type VmShared } from "../vcpu/shared.js";
import { restorePciConfigPorts, savePciConfigPorts } from "../../devices/pci/config-ports.js";
import { acpiPmWords, i8042Words, pciConfigWords, rtcWords, serialWords } from "./thread-machine.js";

const MILESTONES = { init: MILESTONE_INIT, commandStart: MILESTONE_COMMAND_START, commandEnd: MILESTONE_COMMAND_END };

/** Devices that not every machine has. */
const OPTIONAL = ["keyboard", "pciConfig"];

/** While no vCPU runs. */
export function saveLegacy(shared: VmShared, hasPci = false): State {
  return {
    serial: saveSerial(serialWords(shared)),
    rtc: saveRtc(rtcWords(shared)),
    acpiPm: saveAcpiPm(acpiPmWords(shared)),
    ...(hasKeyboard(i8042Words(shared)) ? { keyboard: saveKeyboard(i8042Words(shared)) } : {}),
    ...(hasPci ? { pciConfig: savePciConfigPorts(pciConfigWords(shared)) } : {}),
    bootTimer: {
      ...Object.fromEntries(
        Object.entries(MILESTONES).map(([name, code]) => [name, shared.milestone(code) !== undefined]),
      ),
      exitStatus: shared.exitStatus ?? null,
    },
  };
}

/** Throws StateError. What the guest has reached before, it has reached now. */
export function restoreLegacy(shared: VmShared, state: StateReader): void {
  const fields = ["serial", "rtc", "acpiPm", "bootTimer"];
  const names = state.names(fields.length + OPTIONAL.length);
  const more = OPTIONAL.filter((name) => names.includes(name));
  state.only([...fields, ...more]);
  if (more.includes("keyboard")) restoreKeyboard(i8042Words(shared), state.at("keyboard"));
  if (more.includes("pciConfig")) restorePciConfigPorts(pciConfigWords(shared), state.at("pciConfig"));
  restoreSerial(serialWords(shared), state.at("serial"));
  restoreRtc(rtcWords(shared), state.at("rtc"));
  restoreAcpiPm(acpiPmWords(shared), state.at("acpiPm"));
  const bootTimer = state.at("bootTimer");
  bootTimer.only([...Object.keys(MILESTONES), "exitStatus"]);
  const exitStatus = bootTimer.at("exitStatus");
  const now = process.hrtime.bigint();
  for (const [name, code] of Object.entries(MILESTONES)) {
    if (bootTimer.boolean(name)) shared.markMilestone(code, now);
  }
  if (!exitStatus.isNull) shared.setExitStatus(exitStatus.asInteger({ minimum: 0, maximum: 0xff }));
}
