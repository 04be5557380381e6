// VT-x or AMD-V is on the level above, which does not hand it on.
import type { Check, Observation } from "../checks.js";
import { levelAbove } from "../level-above.js";
import { kindOf } from "./kvm-module.js";
import { extension } from "./processor.js";

export const nestedOff: Check = {
  code: "nested-off",
  area: "kvm",
  worst: "bad",
  look: (host): Observation | undefined => {
    if (extension(host) !== undefined) return undefined;
    const above = levelAbove(host);
    if (above === undefined) return undefined;
    return {
      // A software KVM needs no nested virtualization, and is slower.
      status: kindOf(host) === "none" ? "bad" : "note",
      title: "Level above",
      detail: `${above.name} runs this machine and hands neither VT-x nor AMD-V on`,
      cure: above.cure,
      commands: above.commands,
    };
  },
};
