// The entry of vmlet-runtime: an OCI runtime's commands, in a bundle of their own. What is behind it is vmm/oci.
import { runCommand } from "../oci/command.js";
import { stretchInSilence } from "../host/time-limit.js";
import { exitNow } from "../sys/exit.js";
import { runProcess } from "./process.js";

// Standard error is the container's.
stretchInSilence();
void runProcess((argv, end) => {
  end.exit = exitNow;
  return runCommand(argv);
});
