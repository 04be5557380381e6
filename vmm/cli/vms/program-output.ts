// What a VM's program writes, on its way to this process's own streams.
import { OutputQueue, OutputWriter } from "../../host/standard-output.js";
import { say } from "../../host/say.js";

const STREAMS = { 1: "standard output", 2: "standard error" } as const;

/** `vanished`: nobody reads the stream any more. `name`: for the line that says what is lost. */
export function programOutput(fd: 1 | 2, vanished: () => void, name: string = STREAMS[fd]): OutputQueue {
  return new OutputQueue(
    new OutputWriter(fd, {
      vanished,
      failed: (why) => {
        say(`${name}: ${why}: what the program writes is lost`);
      },
    }),
  );
}
