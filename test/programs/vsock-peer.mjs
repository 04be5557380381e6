// The host's end of the socket test: node vsock-peer.mjs PATH
// Answers what the guest sends to port 1234 with its MD5 sum, then has the guest's port 5000 echo.
import { createHash, randomBytes } from "node:crypto";
import { createConnection, createServer } from "node:net";

const [, , path] = process.argv;

createServer({ allowHalfOpen: true }, (socket) => {
  const hash = createHash("md5");
  socket.on("data", (data) => hash.update(data));
  socket.on("end", () => socket.end(`${hash.digest("hex")}\n`));
}).listen(`${path}_1234`);

/** Everything that comes back after the greeting; undefined if the guest does not listen yet. */
function echo(bytes) {
  return new Promise((resolve) => {
    const socket = createConnection({ path, allowHalfOpen: true });
    const chunks = [];
    let greeting;
    socket.on("connect", () => socket.write("CONNECT 5000\n"));
    socket.on("data", (data) => {
      if (greeting !== undefined) {
        chunks.push(data);
        return;
      }
      const end = data.indexOf(10);
      greeting = data.toString("latin1", 0, end);
      chunks.push(data.subarray(end + 1));
      socket.end(bytes);
    });
    socket.on("error", () => undefined);
    socket.on("close", () => resolve(greeting === undefined ? undefined : { greeting, data: Buffer.concat(chunks) }));
    socket.on("end", () => socket.end());
  });
}

const bytes = randomBytes(2 ** 20);
for (;;) {
  const result = await echo(bytes);
  if (result !== undefined) {
    const isSame = Buffer.compare(result.data, bytes) === 0;
    process.stdout.write(
      `${result.greeting.replace(/\d+/, "PORT")}, ${isSame ? "the same" : "other"} bytes came back\n`,
    );
    break;
  }
  await new Promise((resolve) => setTimeout(resolve, 200));
}
process.exit(0);
