// The entry of the processes that vmlet-runtime's commands start: the one that has a container's VM, and one for each further
// program in it.
import { stretchInSilence } from "../host/time-limit.js";
import { exitNow } from "../sys/exit.js";
import { runProcess } from "./process.js";
import { UsageError } from "./usage-error.js";

// Standard error is the container's.
stretchInSilence();
void runProcess(async ([command, folder = "", order = ""], end) => {
  end.exit = exitNow;
  switch (command) {
    case "monitor":
      return (await import("../oci/monitor.js")).monitor(folder);
    case "relay":
      return (await import("../oci/relay.js")).relay(folder, order);
    default:
      throw new UsageError(`Unknown command ${JSON.stringify(command)}`);
  }
});
