// --fix: the cures as a shell script that is printed and never run. What has to run elsewhere, or
// has a word to fill in, is a comment.
import type { Command, Finding, Place } from "./checks.js";

const PLACES: Readonly<Record<Place, string>> = {
  here: "here",
  "container-host": "on the host of this container",
  "level-above": "on the machine that runs this one",
};
/** What the reader has to fill in. */
const BLANK = /<[A-Z]+>/;

function scriptLine({ place, line }: Command): string {
  return place === "here" && !BLANK.test(line) ? line : `#   ${PLACES[place]}: ${line}`;
}

export function fixScript(findings: readonly Finding[]): string {
  const parts = findings
    .filter(({ status, cure }) => status !== "ok" && cure !== undefined)
    .map(({ code, title, detail, cure = "", commands = [] }) =>
      [`# ${code}: ${title}: ${detail}`, `# ${cure}`, ...commands.map(scriptLine)].join("\n"),
    );
  return parts.length === 0 ? "# Nothing to fix.\n" : `${parts.join("\n\n")}\n`;
}
