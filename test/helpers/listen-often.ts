// Listens at a path again and again, and removes it; ends when a line comes:
//   node listen-often.js PATH
import { closeSync, unlinkSync } from "node:fs";
import { listenUnix } from "../../vmm/sys/sockets.js";

const [path = ""] = process.argv.slice(2);
process.stdin.once("data", () => process.exit(0));
function again(): void {
  const fd = listenUnix(path);
  setTimeout(() => {
    unlinkSync(path);
    closeSync(fd);
    setImmediate(again);
  }, 1);
}
again();
