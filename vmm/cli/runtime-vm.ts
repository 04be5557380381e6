// The entry of the process that vmlet-runtime's create starts: the one that has a container's VM.
import { monitor } from "../oci/monitor.js";
import { stretchInSilence } from "../host/time-limit.js";
import { exitNow } from "../sys/exit.js";
import { runProcess } from "./process.js";

// Standard error is the container's.
stretchInSilence();
void runProcess(([, folder = ""], end) => {
  end.exit = exitNow;
  return monitor(folder);
});
