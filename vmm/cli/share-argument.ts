// --share PATH[,tag=NAME][,ro].
import type { ShareConfig } from "../config/shares.js";
import { firstWord, readSpec, specError } from "./spec.js";

const KEYS = "tag=, ro";

export function parseShare(text: string): ShareConfig {
  // The path stands alone, so it may have any character in it, "=" too.
  const [path, rest] = firstWord(text);
  if (path === "") throw specError("--share", text, "it does not begin with a folder's path");
  const share: { -readonly [Key in keyof ShareConfig]: ShareConfig[Key] } = { path };
  if (rest === undefined) return share;
  readSpec("--share", rest, KEYS, (word) => {
    if (word.key === "tag") share.tag = word.text();
    else if (word.key === "ro") share.isReadonly = word.flag();
    else return false;
    return true;
  });
  return share;
}
