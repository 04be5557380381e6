// The words of a kernel command line, as Linux reads them. Linux: kernel/params.c, lib/cmdline.c.

/** What counts of each `key=value`: the last; a word without a value has an empty one. */
export type KernelWords = ReadonlyMap<string, string>;

/** Blanks separate words, double quotes hold one together; what follows "--" is for the first program. */
export function kernelWords(cmdline: string): KernelWords {
  const words = new Map<string, string>();
  for (const word of cmdline.match(/(?:[^\s"]|"[^"]*(?:"|$))+/g) ?? []) {
    if (word === "--") break;
    const [, quoted = word] = /^"(.*?)"?$/.exec(word) ?? [];
    const at = quoted.indexOf("=");
    const key = at < 0 ? quoted : quoted.slice(0, at);
    words.set(key, at < 0 ? "" : quoted.slice(at + 1).replace(/^"(.*?)"?$/, "$1"));
  }
  return words;
}
