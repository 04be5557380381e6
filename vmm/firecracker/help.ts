// What --help prints.
import { ARGUMENTS } from "./command-line.js";
import { FIRECRACKER_VERSION } from "./version.js";

export function help(): string {
  const lines = Object.entries(ARGUMENTS).map(([name, argument]) => {
    const value = "value" in argument ? ` <${argument.value}>` : "";
    return [`  --${name}${value}`, argument.help] as const;
  });
  const width = Math.max(...lines.map(([left]) => left.length)) + 3;
  return [
    `Firecracker v${FIRECRACKER_VERSION}`,
    "",
    "The interface of Firecracker, behind which vmlet runs the guest.",
    "",
    ...lines.map(([left, right]) => `${left.padEnd(width)}${right}`),
    "",
  ].join("\n");
}
