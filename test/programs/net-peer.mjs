// The host's end of the network test: node net-peer.mjs GUEST BYTES
//   port 7001   sends BYTES random bytes, whose MD5 sum is on standard output
//   port 7002   answers what comes until its end with the MD5 sum
//   port 7003   pings the guest and answers with ping's summary
import { execFile } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { createServer } from "node:net";

const [, , guest, length] = process.argv;
const bytes = randomBytes(Number(length));
const md5 = (data) => createHash("md5").update(data).digest("hex");

function serve(port, answer) {
  createServer({ allowHalfOpen: true }, answer).listen(port, "0.0.0.0");
}

serve(7001, (socket) => socket.end(bytes));
serve(7002, (socket) => {
  const hash = createHash("md5");
  socket.on("data", (data) => hash.update(data));
  socket.on("end", () => socket.end(`${hash.digest("hex")}\n`));
});
serve(7003, (socket) => {
  execFile("ping", ["-c", "3", guest], (_error, stdout) => {
    socket.end(`${stdout.match(/\d+ packets.*/)?.[0] ?? "no summary"}\n`);
  });
});
process.stdout.write(`${md5(bytes)}\n`);
