// The ladder as text, for the terminal.
import { formatColumns } from "../table.js";
import { notesOf } from "./notes.js";
import type { LadderResult } from "./result.js";
import { describeStamp, tablesOf, troubles } from "./tables.js";

export function formatLadder(result: LadderResult): string {
  const tables = Object.values(tablesOf(result)).map(
    ({ title, head, rows, wordColumns }) => `${title}\n${formatColumns([head, ...rows], wordColumns)}`,
  );
  const lists = [troubles(result), notesOf(result)].map((lines) => lines.map((line) => `- ${line}`).join("\n"));
  return [describeStamp(result).join("\n"), ...tables, ...lists].filter((part) => part !== "").join("\n\n");
}
