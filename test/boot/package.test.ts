// Needs: npm with its registry or cache (for koffi); a /dev/kvm of any kind and the Debian packages of
// the guest for the boot. The package as its users get it: packed, installed into an empty project.
import assert from "node:assert/strict";
import { spawnSync, type SpawnSyncReturns } from "node:child_process";
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  readdirSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { tmpdir } from "node:os";
import { join, resolve } from "node:path";
import type { Diagnosis } from "../../vmm/cli/doctor.js";
import { ALL_TARGETS, missingPackages } from "../../vmm/host/first-use.js";
import { findProgram } from "../../vmm/host/programs.js";
import { cacheFolder } from "../../vmm/host/cache-folder.js";
import { timeLimit } from "../../vmm/host/time-limit.js";
import { countBoot } from "../helpers/booted.js";
import { withCertificates } from "../helpers/certificates.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { skip } from "../helpers/skip.js";

/** With a guest kernel to build, where no cache has it. */
const LIMIT_MS = 1_200_000;
const NO_NETWORK = /ENOTFOUND|EAI_AGAIN|ETIMEDOUT|ECONNREFUSED|ECONNRESET|ENOTCACHED/;
/** What the scripts need to say what they lack. */
const FEW_PROGRAMS = ["node", "env", "bash", "dirname", "realpath", "stat", "mkdir", "make"];

describe("boot: the npm package", function () {
  this.timeout(LIMIT_MS);
  let project = "";
  /** What `npm install` said on standard error. */
  let complaints = "";

  function run(file: string, argv: readonly string[], env: NodeJS.ProcessEnv = {}): SpawnSyncReturns<string> {
    const timeout = timeLimit("a command of the package", LIMIT_MS);
    return spawnSync(file, argv, { cwd: project, encoding: "utf8", timeout, env: { ...process.env, ...env } });
  }

  before(function () {
    if (!existsSync("dist/vmlet.js") || !existsSync("build/vmm/index.d.ts")) skip(this, "not built: make build types");
    project = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    const packed = spawnSync("npm", ["pack", "--ignore-scripts", "--silent", "--pack-destination", project], {
      encoding: "utf8",
    });
    assert.equal(packed.status, 0, packed.stderr);
    writeFileSync(join(project, "package.json"), '{"name":"empty","private":true,"type":"module"}\n');
    const flags = ["--no-audit", "--no-fund", "--prefer-offline", "--fetch-retries=1"];
    const installed = run("npm", ["install", ...flags, `./${packed.stdout.trim()}`], withCertificates());
    complaints = installed.stderr;
    if (installed.status !== 0 && NO_NETWORK.test(installed.stderr)) skip(this, "npm's registry is out of reach");
    assert.equal(installed.status, 0, installed.stderr);
  });
  after(() => {
    if (project !== "") rmSync(project, { recursive: true });
  });

  it("brings what runs and the guest's sources, and nothing of the checkout besides", () => {
    const top = readdirSync(join(project, "node_modules/vmlet")).sort();
    const documents = [
      "CHANGELOG.md",
      "CONTRIBUTING.md",
      "DESIGN.md",
      "LICENSE",
      "README.md",
      "SECURITY.md",
      "docs",
      "recipes",
      "vmm",
    ];
    assert.deepEqual(top, [...documents, "bench", "build", "dist", "guest", "package.json"].sort());
    assert.deepEqual(readdirSync(join(project, "node_modules/vmlet/vmm/doctor")), ["README.md"]);
    const guest = readdirSync(join(project, "node_modules/vmlet/guest"));
    assert.ok(guest.includes("kernel") && guest.includes("init") && !guest.includes("out"), guest.join());
    assert.deepEqual(readdirSync(join(project, "node_modules/vmlet/build")).sort(), ["devices", "vmm"]);
  });

  it("is installed without a warning: nothing in it has an install script", () => {
    assert.equal(complaints, "");
    const lock = JSON.parse(readFileSync(join(project, "package-lock.json"), "utf8")) as {
      packages: Readonly<Record<string, { readonly hasInstallScript?: boolean }>>;
    };
    assert.ok(lock.packages["node_modules/vmlet"] !== undefined);
    const withScripts = Object.keys(lock.packages).filter((name) => lock.packages[name]?.hasInstallScript === true);
    assert.deepEqual(withScripts, []);
  });

  it("npx vmlet doctor", () => {
    const { status, stdout, stderr } = run("npx", ["vmlet", "doctor", "--json"]);
    assert.ok(stdout.startsWith("{"), stderr);
    const diagnosis = JSON.parse(stdout) as Diagnosis;
    assert.equal(status, diagnosis.exit_code);
    assert.ok(diagnosis.findings.some(({ code }) => code === "guest"));
  });

  it("its library has names and types", () => {
    const program = `import { createVm, ConfigError, Vm, type VmConfig, type Machine } from "vmlet";
const config: VmConfig = { kernel: "/nonexistent", memoryMib: -1 };
try {
  const vm: Machine = createVm(config, { output: (_bytes: Uint8Array, done: () => void) => done() });
  await vm.close();
} catch (error) {
  console.log(error instanceof ConfigError ? error.code : error);
}
await Vm.start({ rootfs: "/nonexistent" }).then((vm: Vm) => vm.exec(["true"]), (error: unknown) => console.log(error instanceof ConfigError));
`;
    writeFileSync(join(project, "main.ts"), program);
    const types = ["--types", "node", "--typeRoots", resolve("node_modules/@types")];
    const flags = ["--module", "nodenext", "--target", "es2022", "--strict", "--noEmitOnError", ...types];
    const compiled = run(process.execPath, [resolve("node_modules/typescript/bin/tsc"), ...flags, "main.ts"]);
    assert.equal(compiled.status, 0, compiled.stdout);
    const { stdout, stderr } = run(process.execPath, ["main.js"]);
    assert.equal(stdout, "ERR_CONFIG\ntrue\n", stderr);
  });

  it("a boot without a guest, and without what builds one, names the Debian packages", function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
    const bin = join(project, "few-programs");
    mkdirSync(bin);
    for (const name of FEW_PROGRAMS) symlinkSync(findProgram(name) ?? name, join(bin, name));
    const cli = join(project, "node_modules/vmlet/dist/vmlet.js");
    const env = { PATH: bin, VMLET_CACHE: join(project, "cache") };
    const argv = ["boot", "--accel", "kvm", "--quiet", "--", "true"];
    const { status, stdout, stderr } = run(process.execPath, [cli, ...argv], env);
    assert.deepEqual([status, stdout], [69, ""], stderr);
    assert.match(stderr, /is not built yet.*missing: .*\bgcc\b.*\bflex\b/);
    assert.match(stderr, /what helps: sudo apt-get install --no-install-recommends .*\bbusybox-static\b/);
  });

  it("npx vmlet boot: the first one builds the guest, with the one kernel that it needs, and runs the command", function () {
    const reason = whyNoKvm();
    if (reason !== undefined) skip(this, reason);
    const missing = missingPackages(ALL_TARGETS);
    if (missing.length > 0) skip(this, `Debian packages are missing: ${missing.join(" ")}`);
    // A cache of its own, but for the kernels, which take minutes.
    const cache = mkdtempSync(join(project, "cache-with-kernels-"));
    const kernels = join(cacheFolder() ?? project, "kernel");
    mkdirSync(kernels, { recursive: true });
    symlinkSync(kernels, join(cache, "kernel"));
    const command = ["sh", "-c", "echo from the guest; exit 3"];
    const env = { VMLET_CACHE: cache };
    const { status, stdout, stderr } = run("npx", ["vmlet", "boot", "--quiet", "--", ...command], env);
    const [key = ""] = readdirSync(join(cache, "guest"));
    const folder = join(cache, "guest", key);
    const built = readdirSync(folder).filter((name) => existsSync(join(folder, name, "vmlinux")));
    assert.equal(built.length, 1, `${built.join(" ")}: ${stderr}`);
    assert.equal(stdout, "from the guest\n", stderr);
    assert.equal(status, 3);
    countBoot();
  });
});
