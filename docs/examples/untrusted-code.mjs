// Untrusted code, JavaScript or any other: in a VM of its own, with no network and limits on time, memory and output.
//   node untrusted-code.mjs IMAGE INTERPRETER... <CODE        such as: docker-daemon:node:22-slim node
import { buffer } from "node:stream/consumers";
import { ExecError, Vm } from "vmlet";

const [image, ...interpreter] = process.argv.slice(2);
const code = await buffer(process.stdin);
const mib = 2 ** 20;
const timeoutMs = Number(process.env.TIMEOUT_MS ?? 5000);

const vm = await Vm.start({ image, memoryMib: 512, network: "none" });
try {
  await vm.files.write("/tmp/code", code);
  const { exitCode, signal, stdout, stderr, truncated } = await vm.exec([...interpreter, "/tmp/code"], {
    user: "65534:65534",
    // Nothing above stops a program that only waits.
    timeoutMs,
    maxOutputBytes: 64 * 1024,
    limits: { data: 128 * mib, nproc: 32, fsize: 16 * mib, core: 0 },
  });
  console.log(JSON.stringify({ exitCode, signal, stdout, stderr, truncated }));
} catch (error) {
  if (!(error instanceof ExecError)) throw error;
  // It could not be run, or it took too long: then what it has written until then is there, too.
  const { exitCode, isTimeout, stdout, stderr, message } = error;
  console.log(JSON.stringify({ exitCode, isTimeout, stdout, stderr, message }));
} finally {
  await vm.close();
}
