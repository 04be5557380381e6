// The validators of all schemas. This compiles them when it is loaded, which is how tests run it; in the bundle, compiled code of
// the same compiler stands in its place (vmm/bundle/validators.mjs), and Ajv itself is not there.
import { Ajv2020 } from "ajv/dist/2020.js";
import { AJV_OPTIONS } from "./ajv-options.js";
import { SCHEMAS, type SchemaName } from "./schemas.js";

/** What is wrong with a value, as Ajv says it. */
export interface Violation {
  readonly keyword: string;
  /** A JSON pointer to the value. */
  readonly instancePath: string;
  /** A JSON pointer into the schema. */
  readonly schemaPath: string;
  readonly params: Readonly<Record<string, unknown>>;
}

export interface Validator {
  (value: unknown): boolean;
  errors?: readonly Violation[] | null;
}

const ajv = new Ajv2020(AJV_OPTIONS);

export const VALIDATORS = Object.fromEntries(
  Object.entries(SCHEMAS).map(([name, schema]) => [name, ajv.compile(schema)]),
) as unknown as Readonly<Record<SchemaName, Validator>>;
