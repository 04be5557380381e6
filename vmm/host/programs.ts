// Where this host keeps a program.
import { statSync } from "node:fs";

/** PATH, and where Debian keeps what only root has in its PATH. */
export function searchPath(): string[] {
  return [...(process.env["PATH"] ?? "").split(":"), "/sbin", "/usr/sbin"].filter((folder) => folder !== "");
}

function isFile(path: string): boolean {
  try {
    return statSync(path, { throwIfNoEntry: false })?.isFile() === true;
  } catch (error) {
    // A folder of another user's PATH, inherited through sudo or su.
    if ((error as NodeJS.ErrnoException).code === "EACCES") return false;
    throw error;
  }
}

/** Absolute path of a program that this user can see, or undefined. */
export function findProgram(name: string): string | undefined {
  return searchPath()
    .map((folder) => `${folder}/${name}`)
    .find(isFile);
}
