// `vmlet pause SOCKET` and `vmlet resume SOCKET`: a running guest rests, and goes on. They return once that is so.
import { print } from "../host/say.js";
import { parsePause } from "./arguments.js";
import { request } from "../sdk/control-client.js";

export async function pause(argv: readonly string[]): Promise<number> {
  const { help, socket } = parsePause("pause", argv);
  if (help) {
    const { PAUSE_HELP } = await import("./help.js");
    print(PAUSE_HELP);
    return 0;
  }
  await request(socket, { pause: true });
  return 0;
}

export async function resume(argv: readonly string[]): Promise<number> {
  const { help, socket } = parsePause("resume", argv);
  if (help) {
    const { RESUME_HELP } = await import("./help.js");
    print(RESUME_HELP);
    return 0;
  }
  await request(socket, { resume: true });
  return 0;
}
