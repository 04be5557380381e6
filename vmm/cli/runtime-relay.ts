// The entry of the process that stands for a further program in a container: it has no VM, and need not read what one is made of.
import { relay } from "../oci/relay.js";
import { stretchInSilence } from "../host/time-limit.js";
import { exitNow } from "../sys/exit.js";
import { runProcess } from "./process.js";

// Standard error is the program's.
stretchInSilence();
void runProcess(([, folder = "", order = ""], end) => {
  end.exit = exitNow;
  return relay(folder, order);
});
