// Why a program did not begin, in the words by which engines tell what a shell's exit code of it would be.
import { ExecError } from "../errors.js";
import { messageOf } from "./log.js";

const WHAT = "unable to start container process: exec:";

export function startFailure(error: unknown): string {
  if (!(error instanceof ExecError)) return messageOf(error);
  const [name = ""] = error.command;
  if (error.message.includes("cannot set up the container")) {
    return `unable to start container process: ${error.message.replace(/^.*?guest: /s, "")}: ${error.errnoName ?? ""}`;
  }
  return (
    execFailure(name, error.errnoName, error.message.includes("is a directory")) ??
    `${WHAT} ${JSON.stringify(name)}: ${error.message.replace(/^.*?guest: /s, "")}`
  );
}

/** Undefined for what engines do not tell apart. */
export function execFailure(name: string, errnoName: string | undefined, isFolder = false): string | undefined {
  const what = `${WHAT} ${JSON.stringify(name)}:`;
  switch (errnoName) {
    case "ENOENT":
      return name.includes("/")
        ? `${what} stat ${name}: no such file or directory`
        : `${what} executable file not found in $PATH`;
    case "EACCES":
      return `${what} ${isFolder ? "is a directory: permission denied" : "permission denied"}`;
    case "ENOEXEC":
      return `${what} exec format error`;
    default:
      return undefined;
  }
}
