// A line of /proc/PID/stat or /proc/PID/task/TID/stat. proc(5).

/** From the third field on. */
export function statFieldsOf(line: string): string[] {
  // The program's name, which comes second, may have blanks and brackets.
  return line.slice(line.lastIndexOf(")") + 2).split(" ");
}
