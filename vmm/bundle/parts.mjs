// A program in two files: what it needs until somebody has an answer, and what it loads behind that. V8 reads a program's code
// cache whole, 4 ms for each MB. A module of both is in the first file alone, so that a class is one class and a signal has one
// handler. `parts` is what the program's loader gives both (bundle.mjs): the first part's modules, and how the second is loaded.
import { build } from "esbuild";
import { relative, resolve } from "node:path";

/** Modules of the program that begins with `entry`: all, and those that run when it is loaded. */
async function modulesOf(entry, options) {
  const { metafile } = await build({
    ...options,
    entryPoints: [entry],
    bundle: true,
    metafile: true,
    write: false,
    logLevel: "silent",
  });
  const atOnce = new Set();
  const visit = (path) => {
    if (atOnce.has(path) || !(path in metafile.inputs)) return;
    atOnce.add(path);
    for (const { path: next, kind } of metafile.inputs[path].imports) {
      if (kind !== "dynamic-import") visit(next);
    }
  };
  visit(entry);
  return { all: new Set(Object.keys(metafile.inputs)), atOnce };
}

/** Sources of the two parts of a program that begins with `entry` and imports `later` when it needs it; for build() of both. */
export async function twoParts(entry, later, options) {
  const [first, second] = await Promise.all([entry, later].map((one) => modulesOf(one, options)));
  const isSource = (path) => /^(vmm|devices)\//.test(path);
  const shared = [...first.atOnce].filter((path) => isSource(path) && second.all.has(path));
  const imports = shared.map((path, i) => `import * as m${i} from "./${path}";`);
  const given = shared.map((path, i) => `${JSON.stringify(path)}:m${i}`);
  return {
    first: {
      contents: [`import "./${entry}";`, ...imports, `parts.modules={${given.join()}};`].join("\n"),
      plugin: inPlaceOf("later-part", [later], () => "module.exports=parts.load();"),
    },
    second: {
      contents: `export * from "./${later}";`,
      plugin: inPlaceOf("first-part", shared, (path) => `module.exports=parts.modules[${JSON.stringify(path)}];`),
    },
  };
}

function inPlaceOf(name, paths, contents) {
  return {
    name,
    setup(bundler) {
      bundler.onResolve({ filter: /^\..*\.js$/ }, ({ path, resolveDir }) => {
        const source = relative(process.cwd(), resolve(resolveDir, path)).replace(/js$/, "ts");
        return paths.includes(source) ? { path: source, namespace: name } : undefined;
      });
      bundler.onLoad({ filter: /.*/, namespace: name }, ({ path }) => ({ contents: contents(path) }));
    },
  };
}
