// Commands that a message advises: they are copied into a shell, with whatever a path may contain.
import { existsSync } from "node:fs";

/** One word of a shell's command line, which no program takes for an option. */
export function shellWord(path: string): string {
  const safe = path.startsWith("-") ? `./${path}` : path;
  return /^[\w@%+=:,./-]+$/.test(safe) ? safe : `'${safe.replaceAll("'", "'\\''")}'`;
}

/** A path next to `path` that does not exist yet: writing to it overwrites nothing. */
export function freshPath(path: string, ending: string): string {
  const stem = path.replace(/\/+$/, "").replace(/(?<=[^/])\.[A-Za-z0-9]{1,5}$/, "");
  for (let number = 1; ; number++) {
    const candidate = `${stem}${number === 1 ? "" : `-${String(number)}`}${ending}`;
    if (candidate !== path && !existsSync(candidate)) return candidate;
  }
}
