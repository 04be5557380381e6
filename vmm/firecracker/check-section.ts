// A body or section against its schema, and what is wrong with it in words.
import { notWhole } from "../config/check.js";
import { show } from "../config/show.js";
import { Fault } from "./fault.js";
import { SCHEMAS, type SchemaName } from "./schemas.js";
import type { Section } from "./sections.js";
import { VALIDATORS, type Violation } from "./validators.js";

/** Throws Fault. `where` stands in front of the message; default: the schema's title. */
export function checkSection<Name extends SchemaName>(name: Name, value: unknown, where?: string): Section<Name> {
  const validate = VALIDATORS[name];
  if (validate(value)) return value as Section<Name>;
  const [violation] = validate.errors ?? [];
  const title = where ?? SCHEMAS[name].title;
  throw new Fault(violation === undefined ? `${title}: not valid` : `${title}: ${inWords(name, value, violation)}`);
}

function inWords(name: SchemaName, value: unknown, violation: Violation): string {
  const { keyword, instancePath, schemaPath, params } = violation;
  const path = pointerParts(instancePath).join(".");
  const at = path === "" ? "" : `${path} `;
  const inside = path === "" ? "" : `${path}: `;
  const given = show(valueAt(value, instancePath));
  const rule = ruleAt(SCHEMAS[name], schemaPath);
  switch (keyword) {
    case "additionalProperties":
      return `${inside}unknown field ${show(params["additionalProperty"])}; known are ${Object.keys(rule.properties ?? {}).join(", ")}`;
    case "required":
      return `${inside}no ${String(params["missingProperty"])} is given`;
    case "enum":
      return `${at}${given} is not one of ${(rule.enum ?? []).map((one) => String(one)).join(", ")}`;
    case "type":
      return `${at}${given} is not ${typesInWords(params["type"])}`;
    case "pattern":
      return `${at}${given} is not ${rule["x-expected"] ?? "what it should be"}`;
    case "minimum":
    case "maximum":
      return `${at}${given} is ${notWhole({ minimum: 0, maximum: 0, ...rule })}`;
    case "maxItems":
      return `${at}has more than ${String(params["limit"])} items`;
    default:
      return `${at}${given} is not valid`;
  }
}

interface Rule {
  readonly properties?: object;
  readonly enum?: readonly unknown[];
  readonly minimum?: number;
  readonly maximum?: number;
  readonly "x-expected"?: string;
  readonly "x-unit"?: string;
}

function pointerParts(pointer: string): string[] {
  return pointer
    .split("/")
    .slice(1)
    .map((part) => decodeURIComponent(part).replaceAll("~1", "/").replaceAll("~0", "~"));
}

/** The schema that a keyword stands in. */
function ruleAt(schema: object, schemaPath: string): Rule {
  let at: unknown = schema;
  for (const part of pointerParts(schemaPath.replace(/^#/, "")).slice(0, -1)) at = field(at, part);
  return at ?? {};
}

function valueAt(value: unknown, pointer: string): unknown {
  let at = value;
  // In a value of the client's, a "%" is one.
  const parts = pointer.split("/").slice(1);
  for (const part of parts) at = field(at, part.replaceAll("~1", "/").replaceAll("~0", "~"));
  return at;
}

function field(from: unknown, key: string): unknown {
  if (typeof from !== "object" || from === null || !Object.hasOwn(from, key)) return undefined;
  return (from as Record<string, unknown>)[key];
}

const TYPES: Readonly<Record<string, string>> = {
  string: "a text",
  integer: "a whole number",
  boolean: "true or false",
  array: "a list",
  object: "an object",
  null: "null",
};

function typesInWords(type: unknown): string {
  const types = (Array.isArray(type) ? type : String(type).split(",")) as readonly string[];
  return types.map((one) => TYPES[one] ?? one).join(" or ");
}
