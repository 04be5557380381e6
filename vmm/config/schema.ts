// What a configuration may look like, as JSON Schema: draft 2020-12, as much of it as a VM needs. A
// part's schema stands beside its type; test/unit/config-schema.test.ts has the compiler compare the
// two. check.ts reads it.

/** Words for messages, which JSON Schema has no keyword for; a name that begins with "x-" means nothing to it. */
interface Words {
  /** What a message calls the value; default: its key. */
  readonly title?: string;
}

export interface TextSchema extends Words {
  readonly type: "string";
  /** ECMA-262, and the same with and without the flag "u": without it, a first match takes a fifth of the time. */
  readonly pattern: string;
  /** Completes "is not …". */
  readonly "x-expected": string;
}

export interface IntegerSchema extends Words {
  readonly type: "integer";
  readonly minimum: number;
  readonly maximum: number;
  readonly "x-unit"?: string;
}

export interface FlagSchema extends Words {
  readonly type: "boolean";
}

export interface ChoiceSchema extends Words {
  readonly enum: readonly (string | number)[];
}

export interface ListSchema extends Words {
  readonly type: "array";
  readonly items: RecordSchema;
  readonly maxItems: number;
}

export interface RecordSchema extends Words {
  readonly type: "object";
  readonly properties: Readonly<Record<string, Schema>>;
  readonly required: readonly string[];
  readonly additionalProperties: false;
}

export type Schema = TextSchema | IntegerSchema | FlagSchema | ChoiceSchema | ListSchema | RecordSchema;

/** The type of what a schema lets through. */
export type FromSchema<S> = S extends { enum: readonly (infer Value)[] }
  ? Value
  : S extends { type: "string" }
    ? string
    : S extends { type: "integer" }
      ? number
      : S extends { type: "boolean" }
        ? boolean
        : S extends { type: "array"; items: infer Item }
          ? readonly FromSchema<Item>[]
          : S extends { properties: infer Fields; required: readonly (infer Required)[] }
            ? { readonly [Key in keyof Fields as Key extends Required ? Key : never]: FromSchema<Fields[Key]> } & {
                readonly [Key in keyof Fields as Key extends Required ? never : Key]?:
                  FromSchema<Fields[Key]> | undefined;
              }
            : never;

/** A file of the host. */
export const PATH_SCHEMA = { type: "string", pattern: "^[^\\0]+$", "x-expected": "a path" } as const;

/** Octets as Linux prints them: a zero in front makes some programs read them as octal. */
export const OCTET = "(?:25[0-5]|2[0-4]\\d|1\\d\\d|[1-9]?\\d)";
export const IPV4_PATTERN = `${OCTET}(?:\\.${OCTET}){3}`;
