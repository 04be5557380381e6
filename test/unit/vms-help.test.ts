// Needs: nothing. What --help says of the commands about VMs that run programs is what their parsers take.
import assert from "node:assert/strict";
import { ATTACH_FLAGS } from "../../vmm/cli/vms/attach.js";
import { FLAGS as CP_FLAGS } from "../../vmm/cli/vms/cp.js";
import { EXEC_FLAGS } from "../../vmm/cli/vms/exec.js";
import * as texts from "../../vmm/cli/vms/help.js";
import { FLAGS as IMAGES_FLAGS, RMI_FLAGS } from "../../vmm/cli/vms/images.js";
import { FLAGS as INSPECT_FLAGS } from "../../vmm/cli/vms/inspect.js";
import { HELP, KILL_FLAGS, RM_FLAGS, STOP_FLAGS } from "../../vmm/cli/vms/lifecycle.js";
import { FLAGS as LOGS_FLAGS } from "../../vmm/cli/vms/logs.js";
import { FLAGS as PS_FLAGS } from "../../vmm/cli/vms/ps.js";
import { RUN_FLAGS } from "../../vmm/cli/vms/run-arguments.js";

type Flags = Readonly<Record<string, { readonly type: "string" | "boolean"; readonly short?: string }>>;

const COMMANDS: readonly (readonly [name: string, text: string, flags: Flags])[] = [
  ["run", texts.RUN_HELP, RUN_FLAGS],
  ["exec", texts.EXEC_HELP, EXEC_FLAGS],
  ["ps", texts.PS_HELP, PS_FLAGS],
  ["inspect", texts.INSPECT_HELP, INSPECT_FLAGS],
  ["logs", texts.LOGS_HELP, LOGS_FLAGS],
  ["attach", texts.ATTACH_HELP, ATTACH_FLAGS],
  ["stop", texts.STOP_HELP, STOP_FLAGS],
  ["kill", texts.KILL_HELP, KILL_FLAGS],
  ["rm", texts.RM_HELP, RM_FLAGS],
  ["wait", texts.WAIT_HELP, HELP],
  ["cp", texts.CP_HELP, CP_FLAGS],
  ["images", texts.IMAGES_HELP, IMAGES_FLAGS],
  ["rmi", texts.RMI_HELP, RMI_FLAGS],
];

describe("help: commands about VMs that run programs", () => {
  for (const [name, text, flags] of COMMANDS) {
    it(`${name}: says how it is called, and has the options that the parser takes, and no other`, () => {
      assert.match(text, new RegExp(`^Usage: vmlet ${name}\\b`, "m"));
      const said = [...text.matchAll(/^ {2}(?:(-\w), | {4})(--[a-z-]+)( \S)?/gm)].map(
        ([, short = "", long = "", value]) => `${short} ${long}${value === undefined ? "" : " VALUE"}`,
      );
      const taken = Object.entries(flags).map(
        ([long, { type, short }]) =>
          `${short === undefined ? "" : `-${short}`} --${long}${type === "string" ? " VALUE" : ""}`,
      );
      assert.deepEqual(said.sort(), taken.sort());
      for (const line of text.split("\n")) assert.ok(line.length <= 80, line);
    });
  }
});
