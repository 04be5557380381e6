// Validators of Firecracker's interface, compiled from its schemas while the program is bundled, and the OpenAPI description that
// is made of the same.
import { Ajv2020 } from "ajv/dist/2020.js";
import standaloneCode from "ajv/dist/standalone/index.js";
import { build } from "esbuild";

/** A module of the program, with all that it imports. */
async function load(entry) {
  const { outputFiles } = await build({
    entryPoints: [entry],
    bundle: true,
    write: false,
    format: "esm",
    platform: "node",
  });
  return import(`data:text/javascript,${encodeURIComponent(outputFiles[0].text)}`);
}

/** In place of vmm/firecracker/validators.ts. */
export const compiledValidators = {
  name: "compiled-validators",
  setup(bundler) {
    bundler.onLoad({ filter: /vmm\/firecracker\/validators\.ts$/ }, async () => {
      const { SCHEMAS } = await load("vmm/firecracker/schemas.ts");
      const { AJV_OPTIONS } = await load("vmm/firecracker/ajv-options.ts");
      const ajv = new Ajv2020({ ...AJV_OPTIONS, code: { source: true, esm: true, lines: true } });
      for (const [name, schema] of Object.entries(SCHEMAS)) ajv.addSchema(schema, name);
      const names = Object.keys(SCHEMAS);
      const code = standaloneCode(ajv, Object.fromEntries(names.map((name) => [name, name])));
      return { contents: `${code}\nexport const VALIDATORS = {${names.join(", ")}};\n`, resolveDir: process.cwd() };
    });
  },
};

export async function openApi() {
  const { openApi: describe } = await load("vmm/firecracker/openapi.ts");
  return describe();
}
