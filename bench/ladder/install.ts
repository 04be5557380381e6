// Debian packages of rungs that are not there: installed only after asking.
import { spawnSync } from "node:child_process";
import { createInterface } from "node:readline/promises";
import { findProgram } from "../../vmm/host/programs.js";
import { isRoot } from "./detect.js";
import type { Rung } from "./rung.js";

function missingPackages(rungs: readonly Rung[]): string[] {
  return rungs.flatMap((rung) => {
    const { debianPackage } = rung;
    const detected = rung.detect();
    const isMissing = "missing" in detected && detected.missing.includes("is not installed");
    return isMissing && debianPackage !== undefined ? [debianPackage] : [];
  });
}

async function asks(packages: readonly string[]): Promise<boolean> {
  if (!process.stdin.isTTY || !process.stderr.isTTY) return false;
  const readline = createInterface({ input: process.stdin, output: process.stderr });
  const answer = await readline.question(`Install ${packages.join(", ")} for more rungs? [y/N] `);
  readline.close();
  return /^y/i.test(answer);
}

/** Installs what the user wants; what cannot be installed is a row with its reason later. */
export async function offerPackages(rungs: readonly Rung[], yes: boolean): Promise<void> {
  const packages = missingPackages(rungs);
  if (packages.length === 0 || !isRoot() || findProgram("apt-get") === undefined) return;
  if (!yes && !(await asks(packages))) return;
  const environment = { ...process.env, DEBIAN_FRONTEND: "noninteractive" };
  for (const argv of [
    ["update", "-qq"],
    ["install", "-y", "-qq", "--no-install-recommends", ...packages],
  ]) {
    const { status } = spawnSync("apt-get", argv, { env: environment, stdio: ["ignore", "ignore", "inherit"] });
    if (status !== 0) process.stderr.write(`vmlet: apt-get ${argv.join(" ")} failed (${String(status)})\n`);
  }
}
