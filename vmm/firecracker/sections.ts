// The parts of Firecracker's interface as types, as the schemas let them through: schemas.ts has the same as JSON Schema, and a test
// has the compiler compare the two.
import type { SCHEMAS, SchemaName } from "./schemas.js";

/** The type of what a schema lets through; more of JSON Schema than vmm/config/schema.ts knows, as null is a value here. */
type Of<S> = S extends { readonly enum: readonly (infer Value)[] }
  ? Value
  : S extends { readonly type: readonly (infer Types)[] }
    ? OfType<S, Types>
    : S extends { readonly type: infer Type }
      ? OfType<S, Type>
      : never;

type OfType<S, Type> =
  | (Type extends "string" ? string : never)
  | (Type extends "integer" ? number : never)
  | (Type extends "boolean" ? boolean : never)
  | (Type extends "null" ? null : never)
  | (Type extends "array" ? (S extends { readonly items: infer Item } ? readonly Of<Item>[] : never) : never)
  | (Type extends "object" ? OfObject<S> : never);

type OfObject<S> = S extends { readonly properties: infer Fields; readonly required: readonly (infer Required)[] }
  ? { readonly [Key in keyof Fields as Key extends Required ? Key : never]: Of<Fields[Key]> } & {
      readonly [Key in keyof Fields as Key extends Required ? never : Key]?: Of<Fields[Key]>;
    }
  : S extends { readonly additionalProperties: infer Value }
    ? Readonly<Record<string, Of<Value>>>
    : never;

/** A body or section that has been checked. */
export type Section<Name extends SchemaName> = Of<(typeof SCHEMAS)[Name]>;

export type BootSource = Section<"BootSource">;
export type Drive = Section<"Drive">;
export type MachineConfiguration = Section<"MachineConfiguration">;
export type NetworkInterface = Section<"NetworkInterface">;
export type RateLimiter = NonNullable<Drive["rate_limiter"]>;
export type TokenBucket = NonNullable<RateLimiter["ops"]>;
export type Vsock = Section<"Vsock">;
export type Balloon = Section<"Balloon">;
export type Entropy = Section<"EntropyDevice">;
export type Serial = Section<"SerialDevice">;
export type Logger = Section<"Logger">;
export type Metrics = Section<"Metrics">;
export type MmdsConfig = Section<"MmdsConfig">;
export type CpuConfig = Section<"CpuConfig">;
export type ConfigFile = Section<"FullVmConfiguration">;
