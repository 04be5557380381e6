// `vmlet balloon SOCKET MIB`: asks a running guest to give up so much of its memory.
import { print } from "../host/say.js";
import { parseBalloonCommand } from "./arguments.js";
import { request } from "../sdk/control-client.js";

export async function balloon(argv: readonly string[]): Promise<number> {
  const { help, socket, targetMib } = parseBalloonCommand(argv);
  if (help) {
    const { BALLOON_HELP } = await import("./help.js");
    print(BALLOON_HELP);
    return 0;
  }
  await request(socket, { balloon_mib: targetMib });
  return 0;
}
