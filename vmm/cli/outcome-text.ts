// One line, or a few, about an end that was not a power-off.
import type { VmExit } from "../machine/vm-exit.js";

export function describeOutcome({ outcome, registers }: VmExit): string {
  switch (outcome) {
    case "poweroff":
      return "the guest has powered off";
    case "reboot":
      return "the guest asked for a reboot; start it again to go on";
    case "panic":
      return "the guest's kernel has panicked; the console above says why";
    case "triple-fault":
      return `the guest's processor met a triple fault${registers === undefined ? "" : `\n${registers}`}`;
    case "halted":
      return "the guest has halted for ever";
    case "killed":
      return "left; the guest was stopped as it stood";
  }
}
