// Bundles the command line, the vCPU thread and the library into dist/, one CommonJS file
// each: fewer files to find and parse is what makes the start fast.
import { build } from "esbuild";
import { chmodSync, writeFileSync } from "node:fs";

// NODE_EXTRA_CA_CERTS, where it is set, costs every start of Node 20 some 60 ms and is of no
// use to a VM; it cannot be unset from inside. The hash seed of the start-up snapshot need not
// be changed either: nothing that a guest controls becomes a property name.
const SHEBANG = "#!/usr/bin/env -S -u NODE_EXTRA_CA_CERTS node --no-rehash-snapshot\n";
const IMPORT_META_URL = 'const importMetaUrl=require("node:url").pathToFileURL(__filename).href;';

// A CommonJS file has a require of its own: loading node:module to make one costs 2 ms.
const ownRequire = {
  name: "own-require",
  setup(bundler) {
    bundler.onResolve({ filter: /^node:module$/ }, () => ({ path: "own-require", namespace: "own-require" }));
    bundler.onLoad({ filter: /.*/, namespace: "own-require" }, () => ({
      contents: "exports.createRequire = () => require;",
    }));
  },
};

const outputs = [
  { entry: "vmm/cli.ts", file: "dist/vmlet.js", shebang: SHEBANG },
  { entry: "vmm/vcpu/worker.ts", file: "dist/vcpu-worker.js", shebang: "" },
  { entry: "vmm/index.ts", file: "dist/index.js", shebang: "" },
];

await Promise.all(
  outputs.map(({ entry, file, shebang }) =>
    build({
      entryPoints: [entry],
      outfile: file,
      bundle: true,
      platform: "node",
      target: "node20",
      format: "cjs",
      minifyWhitespace: true,
      minifySyntax: true,
      banner: { js: shebang + IMPORT_META_URL },
      define: { "import.meta.url": "importMetaUrl" },
      plugins: [ownRequire],
      logLevel: "warning",
    }),
  ),
);
writeFileSync("dist/package.json", '{"type":"commonjs"}\n');
chmodSync("dist/vmlet.js", 0o755);
