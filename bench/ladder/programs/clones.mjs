// A process that has guests ready, in which a command is started that has been asked for before: each connection asks
// for one. In: the command's words, each ended by NUL, after their length in bytes (4, little-endian). Out: what the
// command writes, and its exit status as the last byte.
//   node clones.mjs LIBRARY SOCKET KERNEL INITRD MEMORY_MIB
import { createServer } from "node:net";
import { createRequire } from "node:module";

const [library, path, kernel, initrd, memory] = process.argv.slice(2);
const { openTemplate, warmThreads } = createRequire(import.meta.url)(library);

/** As many as are asked for at the same moment. */
const READY = 8;
const HEAD_BYTES = 4;

const template = await openTemplate({ kernel, initrd, memoryMib: Number(memory), quiet: true });
await warmThreads(2);

/** By command, guests that have started it. */
const pools = new Map();

async function startPool(command) {
  const pool = (await template.program({ command })).pool({ size: READY });
  await pool.filled();
  return pool;
}

async function serve(socket, words) {
  const name = words.join("\0");
  if (!pools.has(name)) pools.set(name, startPool(words));
  const vm = (await pools.get(name)).take({ output: (bytes, done) => socket.write(bytes, () => done()) });
  vm.endCommandInput();
  socket.once("close", () => vm.stop());
  const { exitStatus } = await vm.start();
  socket.end(Buffer.of(exitStatus ?? 255));
  await vm.close();
}

const server = createServer((socket) => {
  let asked = Buffer.alloc(0);
  socket.on("error", () => undefined);
  socket.on("data", (bytes) => {
    asked = Buffer.concat([asked, bytes]);
    if (asked.length < HEAD_BYTES || asked.length < HEAD_BYTES + asked.readUInt32LE()) return;
    socket.removeAllListeners("data").resume();
    const words = asked.subarray(HEAD_BYTES).toString("utf8").split("\0").slice(0, -1);
    serve(socket, words).catch((error) => socket.destroy(error));
  });
});
server.listen(path, () => console.log("ready"));
