// The loopback of the network namespace that it is run in, shared with an agent's in another one, where busybox serves FOLDER at port 80;
// prints as JSON what is heard at 127.0.0.1:
//   node loopback-ports.js FOLDER FILE
import { once } from "node:events";
import { connect } from "node:net";
import { setTimeout as delay } from "node:timers/promises";
import { shareLoopback } from "../../vmm/oci/network/loopback.js";
import { AgentProgram } from "./real-agent.js";

const [folder = "", file = ""] = process.argv.slice(2);
const TRIES = 100;

/** All that the other side says, or the error. */
async function said(port: number, address = "127.0.0.1"): Promise<string> {
  const socket = connect(port, address);
  const chunks: Buffer[] = [];
  socket.on("data", (chunk: Buffer) => chunks.push(chunk));
  try {
    socket.end(`GET /${file} HTTP/1.0\r\n\r\n`);
    await once(socket, "close");
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? "error";
  }
  return Buffer.concat(chunks).toString("latin1");
}

const program = new AgentProgram(["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh"]);
program.build();
const running = program.start();
const shared = shareLoopback(running.agent, program.path);
if (shared === undefined) console.log(JSON.stringify({ isShared: false }));
else {
  const server = await running.agent.exec(["busybox", "httpd", "-f", "-p", "80", "-h", folder]);
  let served = "";
  for (let turn = 0; turn < TRIES && !served.includes("200 OK"); turn++) {
    served = await said(80);
    await delay(50);
  }
  const both = await Promise.all([said(80), said(80, "127.8.8.8")]);
  const nobody = await said(81);
  shared.close();
  const after = await said(80);
  server.cancel();
  console.log(JSON.stringify({ isShared: true, served, both, nobody, after }));
}
await program.close();
