// As much of Ajv as is used here: its own types are large, and take the compiler longer than all of vmm/firecracker.
declare module "ajv/dist/2020.js" {
  export interface ValidateFunction {
    (value: unknown): boolean;
    readonly errors?: readonly object[] | null;
  }
  export class Ajv2020 {
    constructor(options: object);
    compile(schema: object): ValidateFunction;
  }
}
