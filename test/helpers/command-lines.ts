// Command lines of vmlet as a person would copy them from a text.
import { filesOfTree, textOf } from "./documents.js";

export interface CommandLine {
  /** Where it stands: file, and the line itself. */
  readonly place: string;
  readonly argv: readonly string[];
}

/** How the program is called: here, where it is installed, and in a container or unit. */
const PROGRAM = /(?<![\w/.,-])(?:npx |dist\/|\/usr\/local\/bin\/)?vmlet(?:\.js)? (?=[a-z-])/;
const COMMANDS = new Set([
  "boot",
  "stats",
  "balloon",
  "pause",
  "resume",
  "snapshot",
  "doctor",
  "bench",
  "lab",
  "migrate",
  "--version",
  "--help",
]);

/** The command lines of a text; only lines of code, in which the name is no part of a sentence or of a picture. */
export function commandLines(place: string, code: string): CommandLine[] {
  // A session has prompts; its other lines are output.
  const isSession = /^\$ /m.test(code);
  return code
    .replaceAll(/\\\n\s*/g, "")
    .split("\n")
    .filter((line) => !/[─│]/.test(line) && (!isSession || line.startsWith("$ ")))
    .flatMap((line) =>
      line
        .split(PROGRAM)
        .slice(1)
        .map((rest) => ({ place: `${place}: ${line.trim()}`, argv: words(rest) })),
    )
    .filter(({ argv: [command = ""] }) => COMMANDS.has(command));
}

/** Those of all blocks of code of the tree's documents. */
export function documentedCommandLines(): CommandLine[] {
  return filesOfTree(".md").flatMap((path) =>
    [...textOf(path).matchAll(/^( *)```(\w*)\n([\s\S]*?)^\1```$/gm)]
      .filter(([, , language]) => language === "" || language === "sh")
      .flatMap(([, , , code = ""]) => commandLines(path, code)),
  );
}

/** Splits like a shell, up to what ends a simple command. Variables stay as they are written. */
export function words(text: string): string[] {
  const found: string[] = [];
  let word: string | undefined;
  for (let i = 0; i < text.length; i++) {
    const char = text.charAt(i);
    if (char === "'" || char === '"') {
      const end = text.indexOf(char, i + 1);
      // A sentence in quotation marks, not a quoted word.
      if (end < 0) break;
      word = (word ?? "") + text.slice(i + 1, end);
      i = end;
    } else if (char === " ") {
      // Two spaces are a table's: what follows is not the command's.
      if (text.charAt(i + 1) === " ") break;
      if (word !== undefined) found.push(word);
      word = undefined;
    } else if ("|;&>)#".includes(char)) {
      if (/^\d$/.test(word ?? "") && char === ">") word = undefined;
      break;
    } else {
      word = (word ?? "") + char;
    }
  }
  return word === undefined ? found : [...found, word];
}
