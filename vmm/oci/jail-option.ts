// Whether a container's monitor is sealed before its program begins: an annotation, or the runtime's option.
import { show } from "../config/show.js";
import { ConfigError } from "../errors.js";
import type { OciSpec } from "./runtime-spec.js";

export const JAIL_ANNOTATION = "io.vmlet.jail";
export const JAIL_VALUES = ["on", "off"] as const;
export type ContainerJail = (typeof JAIL_VALUES)[number];

/** `option`: of --jail, which who configures an engine gives; `on` there cannot be undone. Throws ConfigError. */
export function containerJail(
  { annotations = {} }: Pick<OciSpec, "annotations">,
  option: ContainerJail | undefined,
): ContainerJail {
  const value = annotations[JAIL_ANNOTATION];
  if (value === undefined) return option ?? "on";
  const known = JAIL_VALUES.find((one) => one === value);
  if (known === undefined) {
    throw new ConfigError([`annotations.${JAIL_ANNOTATION}: ${show(value)} is neither on nor off`]);
  }
  if (known === "off" && option === "on") {
    throw new ConfigError([`annotations.${JAIL_ANNOTATION}: off: the runtime's option --jail on forbids it`]);
  }
  return known;
}
