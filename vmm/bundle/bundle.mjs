// Bundles the command line, the vCPU thread, the library and the ladder into dist/, one CommonJS file
// each: fewer files to find and parse is what makes the start fast. The command line comes with
// what V8 has made of it, so that a start need not parse it either.
import { build, transform } from "esbuild";
import { twoParts } from "./parts.mjs";
import { compiledValidators, openApi } from "./validators.mjs";
import { spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import {
  accessSync,
  chmodSync,
  constants,
  copyFileSync,
  mkdirSync,
  readFileSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from "node:fs";

// The program is a script for the shell and for Node. The shell's line:
//   VMLET_SIGIGN         which signals this process ignores, as nohup has it; Node is about to forget it
//                        (vmm/host/inherited-signals.ts)
//   NODE_EXTRA_CA_CERTS  where it is set, costs every start of Node 20 some 60 ms and is of no use to a VM;
//                        it cannot be unset from inside
//   vmlet-jailer         of vmlet run and vmlet boot --jail: starts Node in namespaces (vmm/jail/launcher/around.h)
//   --                   Node looks for its own --env-file among all words up to this
//   --v8-pool-size       one thread for V8's compiler and collector, whose work here is little: each of them takes a filter in the
//                        jail, 0.2 ms of a start
//   --inspect-port       SIGUSR1 makes Node open a debugger, to which anybody on the host may connect, from
//                        its start until our first line runs: at an address that nothing can listen at
//                        (link-local without an interface: EINVAL)
const flags = await transform(readFileSync("vmm/host/v8-flags.ts", "utf8"), { loader: "ts" });
const { V8_FLAGS } = await import(`data:text/javascript,${encodeURIComponent(flags.code)}`);
const NODE_FLAGS = [...V8_FLAGS, "--v8-pool-size=1", "--inspect-port=[fe80::1]:9229"];
const SHELL_LINE = [
  'while read -r k v; do [ "$k" = SigIgn: ] && break; done 2>/dev/null </proc/$$/status',
  "unset NODE_EXTRA_CA_CERTS",
  'j=; case "$1:$*" in run:*|monitor:*|boot:*--jail*) j=$0; [ -L "$j" ] && j=$(readlink -f "$j"); j=${j%/*}/vmlet-jailer; [ -x "$j" ] || j=;; esac',
  `VMLET_SIGIGN=$v exec \${j:+"$j" around} node ${NODE_FLAGS.map((flag) => `'${flag}'`).join(" ")} -- "$0" "$@"`,
].join("; ");
const SHEBANG = `#!/bin/sh\n':' //; ${SHELL_LINE}\n`;
// Made when it is asked for: Node compiles for 0.4 ms what makes it.
const IMPORT_META =
  'const importMeta={dirname:__dirname,filename:__filename,get url(){return require("node:url").pathToFileURL(__filename).href}};';

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

/**
 * Node's own modules are loaded by what uses them, and not by what imports it: crypto takes 9 ms of a start, streams 5. The
 * names are those of the Node that builds; one that another Node does not have is undefined there, as it would be.
 */
const lazyNode = {
  name: "lazy-node",
  setup(bundler) {
    bundler.onResolve({ filter: /^node:/ }, ({ path, namespace }) =>
      namespace === "lazy-node" ? { path, external: true } : { path, namespace: "lazy-node" },
    );
    bundler.onLoad({ filter: /.*/, namespace: "lazy-node" }, async ({ path }) => {
      const names = Object.keys(await import(path)).filter((name) => name !== "default" && name !== "module.exports");
      return {
        contents: `let own;const node=()=>own??=require("${path}");
for(const name of ${JSON.stringify(names)})Object.defineProperty(exports,name,{enumerable:true,get:()=>node()[name]});`,
      };
    });
    // Each of a hundred modules would else copy every name of what it imports, to have a default that none asks for.
    bundler.onEnd(({ outputFiles = [] }) => {
      for (const file of outputFiles) {
        const text = file.text.replaceAll(/\b__toESM\((require_\w+\(\)),1\)/g, (whole, call) =>
          file.text.includes(`var ${call.slice(0, -2)}=__commonJS({"lazy-node:`) ? call : whole,
        );
        writeFileSync(file.path, text);
      }
    });
  },
};

/** Of all that the guest is built from: an installed package keeps its guest in the cache under this name. */
function guestKey() {
  const hash = createHash("sha256");
  for (const folder of ["guest/kernel", "guest/init"]) {
    const files = readdirSync(folder, { recursive: true, withFileTypes: true }).filter((entry) => entry.isFile());
    const paths = files.map(({ parentPath, path, name }) => `${parentPath ?? path}/${name}`).sort();
    for (const path of paths) hash.update(path).update(readFileSync(path));
  }
  return hash.digest("hex").slice(0, 16);
}

/** Characters: Node shows the whole line that an error comes from to whoever does not catch it. */
const LIBRARY_LINE = 120;

const api = await twoParts("vmm/cli/firecracker.ts", "vmm/firecracker/machine.ts", {
  platform: "node",
  plugins: [compiledValidators],
});
const outputs = [
  { entry: "vmm/cli.ts", file: "dist/cli.js", plugins: [compiledValidators] },
  { entry: "vmm/cli/vms/entry.ts", file: "dist/vms.js", plugins: [lazyNode] },
  {
    contents: api.first.contents,
    file: "dist/firecracker.js",
    plugins: [api.first.plugin, lazyNode, compiledValidators],
  },
  {
    contents: api.second.contents,
    file: "dist/firecracker-vm.js",
    plugins: [api.second.plugin, lazyNode, compiledValidators],
  },
  { entry: "vmm/cli/runtime.ts", file: "dist/runtime.js", plugins: [lazyNode] },
  { entry: "vmm/cli/runtime-vm.ts", file: "dist/runtime-vm.js", plugins: [lazyNode] },
  { entry: "vmm/cli/runtime-relay.ts", file: "dist/runtime-relay.js", plugins: [lazyNode] },
  { entry: "vmm/machine/vcpu-worker.ts", file: "dist/vcpu-worker.js" },
  { entry: "vmm/index.ts", file: "dist/index.js", lineLimit: LIBRARY_LINE },
  { entry: "bench/ladder/cli.ts", file: "dist/ladder.js" },
];

// What a plugin writes may be the first that is ready.
mkdirSync("dist", { recursive: true });
await Promise.all(
  outputs.map(({ entry, contents, file, plugins = [], lineLimit }) =>
    build({
      ...(contents === undefined ? { entryPoints: [entry] } : { stdin: { contents, resolveDir: process.cwd() } }),
      outfile: file,
      bundle: true,
      platform: "node",
      target: "node20",
      format: "cjs",
      minifyWhitespace: true,
      minifySyntax: true,
      lineLimit,
      banner: { js: IMPORT_META },
      define: {
        "import.meta": "importMeta",
        VMLET_GUEST_KEY: JSON.stringify(guestKey()),
      },
      plugins: [ownRequire, ...plugins],
      // Otherwise that plugin writes it.
      write: !plugins.includes(lazyNode),
      logLevel: "warning",
    }),
  ),
);
writeFileSync("dist/package.json", '{"type":"commonjs"}\n');

// The cache is V8's own: one of another version or with other flags is refused and costs nothing
// but the parsing. All characters are ASCII (esbuild escapes the rest), hence latin1.
// `program` and `cache` are expressions of JavaScript, names of files in dist/; `later`: the same of its second part, if it has two
// (vmm/bundle/parts.mjs).
const loader = ({ program, cache, later }) => `"use strict";
// From here on SIGUSR1 ends this program, as it ends any; libuv gives a signal its default action when the
// last listener goes.
const noDebugger = () => undefined;
process.on("SIGUSR1", noDebugger).removeListener("SIGUSR1", noDebugger);
if (process.platform !== "linux" || process.arch !== "x64") {
  process.stderr.write("vmlet: runs on Linux on x86-64 alone; this Node is for " + process.platform + " on " + process.arch + "\\n");
  process.exit(69);
}
const { readFileSync } = require("node:fs");
const { Script } = require("node:vm");
function load(program, cache, parts, module) {
  const filename = __dirname + program;
  const source = "(function(exports,require,module,__filename,__dirname,parts){" + readFileSync(filename, "latin1") + "\\n})";
  let cachedData;
  try {
    cachedData = readFileSync(__dirname + cache);
  } catch {
    // Without the cache, everything works, a few milliseconds later.
  }
  const script = new Script(source, { filename, cachedData });
  script.runInThisContext()(module.exports, require, module, filename, __dirname, parts);
  return module.exports;
}
const parts = ${later === undefined ? "undefined" : `{ load: () => load(${later.program}, ${later.cache}, parts, { exports: {} }) }`};
load(${program}, ${cache}, parts, module);
`;
// vmm/cli/vms/entry.ts
const VMS =
  '["run", "exec", "monitor", "attach", "ps", "inspect", "logs", "cp", "images", "rmi", "stop", "kill", "rm", "wait"]';
const IS_ABOUT_VMS = `${VMS}.includes(process.argv[2])`;
/** Both have a VM in their process. */
const IS_RUN = '["run", "monitor"].includes(process.argv[2])';
const IS_RESTORED = '(process.argv.includes("--from-template") || process.argv[3] === "restore")';
// vmm/cli/runtime-vm.ts, runtime-relay.ts
const RUNTIME = '"/runtime" + ({ monitor: "-vm", relay: "-relay" }[process.argv[2]] ?? "")';
const programs = [
  {
    file: "dist/vmlet.js",
    program: `(${IS_ABOUT_VMS} ? "/vms.js" : "/cli.js")`,
    cache: `(${IS_RUN} ? "/run.cache" : ${IS_ABOUT_VMS} ? "/vms.cache" : ${IS_RESTORED} ? "/restored.cache" : "/cli.cache")`,
  },
  {
    file: "dist/vmlet-runtime.js",
    program: `${RUNTIME} + ".js"`,
    cache: `${RUNTIME} + ".cache"`,
  },
  {
    file: "dist/vmlet-firecracker.js",
    program: '"/firecracker.js"',
    cache: '"/firecracker.cache"',
    later: { program: '"/firecracker-vm.js"', cache: '"/firecracker-vm.cache"' },
  },
];
for (const program of programs) {
  writeFileSync(program.file, `${SHEBANG}${loader(program)}`);
  chmodSync(program.file, 0o755);
}
compileFront();
await compileLauncher();
writeFileSync("dist/firecracker-openapi.json", `${JSON.stringify(await openApi(), undefined, 1)}\n`);

/** The runtime's front, where there is a compiler; otherwise what takes its place is slower. vmm/oci/front/front.c */
function compileFront() {
  const script = '#!/bin/sh\nexec "$(dirname "$(readlink -f "$0")")/vmlet-runtime.js" "$@"\n';
  compile("vmlet-runtime", "vmm/oci/front/front.c", [], script, "Containers start slower: the runtime's front");
}

/** The launcher of jails; without a compiler, there is none. vmm/jail/launcher/launcher.c */
async function compileLauncher() {
  const version = await transform(readFileSync("vmm/firecracker/version.ts", "utf8"), { loader: "ts" });
  const { FIRECRACKER_VERSION } = await import(`data:text/javascript,${encodeURIComponent(version.code)}`);
  const script =
    '#!/bin/sh\n[ "$1" = around ] && shift && exec "$@"\necho "vmlet-jailer: not built: there was no gcc" >&2\nexit 1\n';
  const flags = ["-D_GNU_SOURCE", `-DJAILER_VERSION=${JSON.stringify(FIRECRACKER_VERSION)}`];
  compile("vmlet-jailer", "vmm/jail/launcher/launcher.c", flags, script, "No jail around vmlet: its launcher");
}

/** A static program of `source` as dist/`name`; `otherwise`: what it is without a compiler, which `what` is said of. */
function compile(name, source, more, otherwise, what) {
  const flags = ["-std=gnu11", "-Os", "-Wall", "-Wextra", "-Werror", "-static", "-s", ...more];
  const nodeFlags = `-DNODE_FLAGS=${NODE_FLAGS.map((flag) => `${JSON.stringify(flag)},`).join("")}`;
  const words = [...flags, nodeFlags, "-o", `dist/${name}.new`, source];
  const { status, error, stderr } = spawnSync("gcc", words, { encoding: "utf8", timeout: 60_000 });
  if (status !== 0) {
    console.error(`${what} is not compiled: ${error?.code ?? stderr}`);
    writeFileSync(`dist/${name}.new`, otherwise);
  }
  chmodSync(`dist/${name}.new`, 0o755);
  renameSync(`dist/${name}.new`, `dist/${name}`);
}

function canOpenKvm() {
  try {
    accessSync("/dev/kvm", constants.R_OK | constants.W_OK);
    return true;
  } catch {
    return false;
  }
}

// With what a boot calls, where this host can boot a guest; with everything otherwise, which is
// longer to read by 3 ms. Without functions that are needed, a boot would compile for 4 ms.
for (const cache of [
  "cli",
  "restored",
  "run",
  "vms",
  "firecracker",
  "firecracker-vm",
  "runtime",
  "runtime-vm",
  "runtime-relay",
])
  rmSync(`dist/${cache}.cache`, { force: true });
const makeCache = (...which) =>
  spawnSync(process.execPath, [...V8_FLAGS, "vmm/bundle/code-cache.mjs", ...which], {
    stdio: ["ignore", "ignore", "pipe"],
    encoding: "utf8",
    timeout: 60_000,
  });
const allOf = (name) => {
  const { status, stderr } = makeCache("all", `dist/${name}.cache`, `dist/${name}.js`);
  if (status !== 0) throw new Error(`The code cache could not be made: ${stderr}`);
};
for (const name of ["vms", "runtime", "runtime-vm", "runtime-relay"]) allOf(name);
const booted = makeCache("booted");
if (booted.status !== 0) {
  if (canOpenKvm()) console.error(`The start is slower: no guest could be booted for its code cache: ${booted.stderr}`);
  for (const name of ["cli", "firecracker", "firecracker-vm"]) allOf(name);
} else {
  const restored = makeCache("restored", "dist/restored.cache");
  if (restored.status !== 0) console.error(`A restore is slower: no code cache for it: ${restored.stderr}`);
  const api = makeCache("api", "dist/firecracker.cache", "dist/firecracker.js");
  if (api.status !== 0) {
    console.error(`A start by Firecracker's interface is slower: no code cache for it: ${api.stderr}`);
    for (const name of ["firecracker", "firecracker-vm"]) allOf(name);
  }
}
const run = booted.status === 0 ? makeCache("run", "dist/run.cache", "dist/vms.js") : booted;
if (run.status !== 0) {
  if (canOpenKvm()) console.error(`vmlet run is slower: no code cache for it alone: ${run.stderr}`);
  copyFileSync("dist/vms.cache", "dist/run.cache");
}
