// Tests in parallel: one VM is prepared, others go on from it, and each takes the next test as soon as it is free.
//   node parallel-tests.mjs IMAGE FOLDER WORKERS        FOLDER has the tests: scripts NAME.test
import { mkdtemp, readdir, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ExecError, Vm } from "vmlet";

const [image, folder, workers] = process.argv.slice(2);
/** Of a test. */
const timeoutMs = Number(process.env.TIMEOUT_MS ?? 5000);
const tests = (await readdir(folder)).filter((name) => name.endsWith(".test")).sort();
const saved = await mkdtemp(join(tmpdir(), "prepared-"));
const results = [];

async function work() {
  const vm = await Vm.restore(join(saved, "vm"));
  try {
    for (let test; (test = tests.shift()) !== undefined;) {
      const options = { cwd: "/tests", mergeOutput: true, timeoutMs };
      const { exitCode, stdout } = await vm.exec(["sh", test], options).catch(timedOut);
      results.push({ test, exitCode, stdout });
    }
  } finally {
    await vm.close();
  }
}

function timedOut(error) {
  if (error instanceof ExecError) return error;
  throw error;
}

try {
  const prepared = await Vm.start({ image });
  // What takes its time, such as packages, a database, a browser, is done here, once.
  await prepared.files.copyIn(folder, "/tests");
  await prepared.snapshot(join(saved, "vm"), { stop: true });
  await prepared.close();
  await Promise.all(Array.from({ length: Number(workers) }, work));
} finally {
  await rm(saved, { recursive: true });
}
for (const { test, exitCode, stdout } of results.sort((a, b) => (a.test < b.test ? -1 : 1))) {
  console.log(exitCode === 0 ? `ok ${test}` : `FAILED (${exitCode}) ${test}\n${stdout}`);
}
process.exitCode = results.every(({ exitCode }) => exitCode === 0) ? 0 : 1;
