// An HTTP server that runs posted code, each piece in a fresh VM of a pool: curl --data-binary @code.js localhost:PORT
//   node code-server.mjs PORT IMAGE INTERPRETER...
import { once } from "node:events";
import { createServer } from "node:http";
import { ExecError, VmPool } from "vmlet";

const [port, image, ...interpreter] = process.argv.slice(2);
const MAX_CODE_BYTES = 2 ** 20;
const timeoutMs = Number(process.env.TIMEOUT_MS ?? 5000);
const pool = new VmPool({ image }, { size: 2 });

async function run(request, signal) {
  const chunks = [];
  let length = 0;
  for await (const chunk of request) if ((length += chunk.length) <= MAX_CODE_BYTES) chunks.push(chunk);
  if (length > MAX_CODE_BYTES) return { status: 413, error: `More than ${MAX_CODE_BYTES} bytes` };
  const vm = await pool.take();
  try {
    await vm.files.write("/tmp/code", Buffer.concat(chunks), { signal });
    const limits = { timeoutMs, maxOutputBytes: MAX_CODE_BYTES, signal };
    const { exitCode, stdout, stderr } = await vm.exec([...interpreter, "/tmp/code"], limits);
    return { status: 200, exitCode, stdout, stderr };
  } catch (error) {
    if (!(error instanceof ExecError)) throw error;
    const { isTimeout, message, stdout, stderr } = error;
    return { status: isTimeout ? 408 : 500, error: message, stdout, stderr };
  } finally {
    await vm.close();
  }
}

const server = createServer((request, response) => {
  const gone = new AbortController();
  response.once("close", () => gone.abort());
  run(request, gone.signal)
    .catch((error) => ({ status: 500, error: error.message }))
    .then(({ status, ...answer }) => response.writeHead(status).end(`${JSON.stringify(answer)}\n`));
});
await once(server.listen(Number(port), "127.0.0.1"), "listening");
console.log(server.address());
await once(process, "SIGTERM");
server.close();
await pool.close();
