// Which passt this host has: its releases since 2025_01_21 serve a guest's queues by vhost-user.
import { spawnSync } from "node:child_process";
import { readFileSync } from "node:fs";
import { HostError } from "../../errors.js";
import { findProgram } from "../../host/programs.js";
import { noPasst } from "./passt.js";

export const VHOST_USER_OPTION = "--vhost-user";
/** It says at once what it is, `ms`. */
const VERSION_LIMIT_MS = 2000;

/**
 * The path of a passt with that option; undefined if the one that is installed has none, or there is none. Its help is in the
 * program: reading that takes a tenth of a millisecond, asking it eight, of every start.
 */
export function passtWithVhostUser(program = findProgram("passt")): string | undefined {
  try {
    return program !== undefined && readFileSync(program).includes(VHOST_USER_OPTION) ? program : undefined;
  } catch {
    // One that may be run and not read, if at all: a network is possible without.
    return undefined;
  }
}

/** Why there is no such passt. */
export function noVhostUser(program = findProgram("passt")): HostError {
  if (program === undefined) return noPasst();
  return new HostError(`The passt that is installed does not speak vhost-user (${versionOf(program)})`, {
    cure: "install one of 2025_01_21 or newer (Debian 13 has one), or say vhost=off",
  });
}

/** Debian's calls itself "unknown version". */
function versionOf(program: string): string {
  const [version = ""] = said(program, "--version").split("\n");
  if (version !== "" && !version.includes("unknown")) return version;
  const debian = said("dpkg-query", "--show", "--showformat=${Version}", "passt");
  return debian === "" ? version || "of an unknown version" : `passt ${debian}`;
}

function said(program: string, ...args: readonly string[]): string {
  const { error, stdout } = spawnSync(program, args, { encoding: "utf8", timeout: VERSION_LIMIT_MS });
  return error === undefined ? stdout : "";
}
