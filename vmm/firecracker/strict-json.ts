// JSON as Firecracker reads it, which is stricter than JSON.parse: no key twice in one object, whole numbers only, no half
// characters, no more than so many levels. Metadata of a guest (MMDS) may be any JSON.
import { Fault } from "./fault.js";

/** As serde_json, which reads it in Firecracker. */
const MAX_DEPTH = 127;
const MAX_SHOWN_KEY = 40;
/** 2^64 - 1. */
const MAX_WHOLE = "18446744073709551615";

const DECODER = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true });
const STRUCTURE = /"(?:[^"\\]|\\.)*"|[{}[\],:]|[^\s"{}[\],:]+/gsy;
const SPACE = /\s*/y;

export interface JsonRules {
  /** Objects may name a key twice, and numbers may be any. */
  readonly isFree?: boolean;
}

/** Throws Fault. */
export function parseJson(bytes: Uint8Array, { isFree = false }: JsonRules = {}): unknown {
  let source: string;
  try {
    source = DECODER.decode(bytes);
  } catch {
    throw new Fault("The body is not JSON: it is not UTF-8");
  }
  return parseJsonText(source, { isFree });
}

/** Throws Fault. */
export function parseJsonText(source: string, { isFree = false }: JsonRules = {}): unknown {
  let value: unknown;
  try {
    value = JSON.parse(source);
  } catch (error) {
    // A depth that the parser of this host does not stand is beyond ours, too.
    if (!(error instanceof SyntaxError || error instanceof RangeError)) throw error;
    throw new Fault(`The body is not JSON: ${error.message}`);
  }
  checkTokens(source, isFree);
  return value;
}

/** `source` is JSON: what is looked for is what JSON.parse lets through. */
function checkTokens(source: string, isFree: boolean): void {
  /** Of each open object the keys so far; undefined for a list. */
  const open: (Set<string> | undefined)[] = [];
  let isKey = false;
  for (let at = 0; at < source.length;) {
    SPACE.lastIndex = at;
    SPACE.exec(source);
    STRUCTURE.lastIndex = SPACE.lastIndex;
    const token = STRUCTURE.exec(source)?.[0];
    if (token === undefined) return;
    at = STRUCTURE.lastIndex;
    switch (token[0]) {
      case "{":
      case "[":
        open.push(token === "{" ? new Set() : undefined);
        if (open.length > MAX_DEPTH) {
          throw new Fault(`The body is not JSON: more than ${String(MAX_DEPTH)} levels`);
        }
        isKey = token === "{";
        break;
      case "}":
      case "]":
        open.pop();
        isKey = false;
        break;
      case ",":
        isKey = open.at(-1) !== undefined;
        break;
      case ":":
        isKey = false;
        break;
      case '"':
        checkText(token, isKey && !isFree ? open.at(-1) : undefined);
        break;
      default:
        if (!isFree && /^-?\d/.test(token)) checkNumber(token);
    }
  }
}

function checkNumber(token: string): void {
  const shown = token.slice(0, MAX_SHOWN_KEY);
  if (!/^(?:0|-?[1-9]\d*)$/.test(token)) {
    throw new Fault(`The body has the number ${shown}; only whole numbers are taken`);
  }
  // JSON.parse rounds it, and the first number that does not fit looks then like the last one that does.
  const isLonger = token.length > MAX_WHOLE.length;
  if (isLonger || (token.length === MAX_WHOLE.length && token > MAX_WHOLE)) {
    throw new Fault(`The body has the number ${shown}; the largest is ${MAX_WHOLE}`);
  }
}

function checkText(token: string, keys: Set<string> | undefined): void {
  if (keys === undefined && !token.includes("\\u")) return;
  const text = JSON.parse(token) as string;
  if (/[\ud800-\udbff](?![\udc00-\udfff])|(?<![\ud800-\udbff])[\udc00-\udfff]/.test(text)) {
    throw new Fault("The body is not JSON: a text has half a character");
  }
  if (keys === undefined) return;
  if (keys.has(text)) throw new Fault(`The body names ${token.slice(0, MAX_SHOWN_KEY)} twice in one object`);
  keys.add(text);
}
