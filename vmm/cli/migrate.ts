// `vmlet migrate SOCKET ADDRESS`: a running guest goes on in another vmlet, and ends in the one that ran it.
import { resolve } from "node:path";
import { print } from "../host/say.js";
import { Progress } from "../host/progress.js";
import { addressText, parseMigrationAddress } from "../snapshot/migration/address.js";
import { request } from "../sdk/control-client.js";
import { parseMigrate } from "./snapshot-arguments.js";

const MIB = 2 ** 20;

export async function migrate(argv: readonly string[]): Promise<number> {
  const options = parseMigrate(argv);
  if (options.help) {
    const { MIGRATE_HELP } = await import("./snapshot-help.js");
    print(MIGRATE_HELP);
    return 0;
  }
  const parsed = parseMigrationAddress(options.address);
  // In the folder of the one who asks, not of the vmlet that runs the guest.
  const to = addressText(parsed.kind === "unix" ? { ...parsed, path: resolve(parsed.path) } : parsed);
  const progress = new Progress("the guest is being moved");
  let reply: Awaited<ReturnType<typeof request>>;
  try {
    reply = await request(options.socket, { migrate: { to } }, { timeoutMs: 0 });
  } finally {
    progress.done();
  }
  const { bytes = 0, stop_ms = 0, total_ms = 0, rounds = [] } = reply;
  if (options.json) print(`${JSON.stringify({ to, bytes, stop_ms, total_ms, rounds }, undefined, 2)}\n`);
  else {
    print(
      `moved to ${to}: ${(bytes / MIB).toFixed(1)} MiB in ${String(rounds.length)} rounds; ` +
        `the guest rested for ${stop_ms.toFixed(0)} ms\n`,
    );
  }
  return 0;
}
