// Why a program did not begin, in the words by which engines tell what a shell's exit code of it would be.
import { ExecError } from "../errors.js";
import { messageOf } from "./log.js";

export function startFailure(error: unknown): string {
  if (!(error instanceof ExecError)) return messageOf(error);
  const [name = ""] = error.command;
  const quoted = JSON.stringify(name);
  const what = "unable to start container process: exec:";
  if (error.message.includes("cannot set up the container")) {
    return `unable to start container process: ${error.message.replace(/^.*?guest: /s, "")}: ${error.errnoName ?? ""}`;
  }
  switch (error.errnoName) {
    case "ENOENT":
      return name.includes("/")
        ? `${what} ${quoted}: stat ${name}: no such file or directory`
        : `${what} ${quoted}: executable file not found in $PATH`;
    case "EACCES":
      return `${what} ${quoted}: ${error.message.includes("is a directory") ? "is a directory: permission denied" : "permission denied"}`;
    case "ENOEXEC":
      return `${what} ${quoted}: exec format error`;
    default:
      return `${what} ${quoted}: ${error.message.replace(/^.*?guest: /s, "")}`;
  }
}
