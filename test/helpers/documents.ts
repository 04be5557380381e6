// The tree's documents as tests read them: files, sections, tables, links.
import { readFileSync, readdirSync } from "node:fs";
import { dirname, join, normalize } from "node:path";

/** With what `make mutants` leaves while it runs. */
const FOLDERS_WITHOUT = /^(node_modules|build|build-mutants\..*|dist|out|results|\.git)$/;

/** Paths of the tree's files whose name ends so, from the top folder. */
export function filesOfTree(...endings: readonly string[]): string[] {
  const walk = (folder: string): string[] =>
    readdirSync(folder, { withFileTypes: true }).flatMap((entry) => {
      const path = normalize(join(folder, entry.name));
      if (entry.isDirectory()) return FOLDERS_WITHOUT.test(entry.name) ? [] : walk(path);
      return endings.some((ending) => entry.name.endsWith(ending)) ? [path] : [];
    });
  return walk(".").sort();
}

export const DOCUMENTS: readonly string[] = filesOfTree(".md");

export function textOf(path: string): string {
  return readFileSync(path, "utf8");
}

/** The part of a document under a heading, up to the next heading of any level. */
export function section(path: string, heading: string): string {
  const found = new RegExp(`^#+ ${heading}\\n([\\s\\S]*?)(?=^#+ |(?![\\s\\S]))`, "m").exec(textOf(path));
  if (found === null) throw new Error(`${path} has no section "${heading}"`);
  return found[1] ?? "";
}

/** Cells of the rows of all tables in a text, without their heads; back-ticks are taken off. */
export function rows(markdown: string): string[][] {
  const lines = markdown.split("\n").filter((line) => line.startsWith("|"));
  const isRule = (line: string | undefined): boolean => line !== undefined && /^\|[-:| ]+\|$/.test(line);
  return lines
    .filter((line, i) => !isRule(line) && !isRule(lines[i + 1]))
    .map((line) => line.split(/(?<!\\)\|/).slice(1, -1))
    .map((cells) => cells.map((cell) => cell.replaceAll("`", "").replaceAll("\\|", "|").trim()));
}

/** Text outside of blocks of code. */
function prose(markdown: string): string {
  return markdown.replaceAll(/^ *```[\s\S]*?^ *```/gm, "");
}

/** Anchors of a document's headings, as GitHub makes them. */
export function anchors(path: string): string[] {
  return [...prose(textOf(path)).matchAll(/^#+ (.*)$/gm)].map(([, title = ""]) =>
    title
      .toLowerCase()
      .replaceAll(/[^\p{L}\d_ -]/gu, "")
      .replaceAll(" ", "-"),
  );
}

/** A link to a file of the tree: its path from the top folder, and its anchor if it has one. */
export interface Link {
  readonly file: string;
  readonly anchor: string | undefined;
}

export function links(path: string): Link[] {
  return [...prose(textOf(path)).matchAll(/\]\((?!https?:)([^)\s]+)\)/g)].map(([, target = ""]) => {
    const [file = "", anchor] = target.split("#");
    return { file: file === "" ? path : normalize(join(dirname(path), file)), anchor };
  });
}
