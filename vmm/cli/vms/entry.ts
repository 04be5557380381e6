// The entry of the commands about VMs that run programs: a file of its own, so that the others do not load it.
import { UsageError } from "../usage-error.js";
import { runProcess, type ProcessEnd } from "../process.js";

/** vmlet's own failure, as Docker has it: every other code is the program's. */
const EXIT_OWN_FAILURE = 125;

async function main([command, ...rest]: readonly string[], end: ProcessEnd): Promise<number> {
  // The launcher leaves an attendant to a process that may be sealed.
  if (process.env["VMLET_ATTENDANT"] !== undefined) (await import("../../jail/threads.js")).noteThreads();
  switch (command) {
    case "run":
      end.failure = EXIT_OWN_FAILURE;
      end.exit = (await import("../../sys/exit.js")).exitNow;
      return (await import("./run.js")).run(rest);
    case "exec":
      end.failure = EXIT_OWN_FAILURE;
      end.exit = (await import("../../sys/exit.js")).exitNow;
      return (await import("./exec.js")).exec(rest);
    case "monitor":
      end.exit = (await import("../../sys/exit.js")).exitNow;
      return (await import("./monitor.js")).monitor();
    case "attach":
      end.exit = (await import("../../sys/exit.js")).exitNow;
      return (await import("./attach.js")).attach(rest);
    case "ps":
      return (await import("./ps.js")).ps(rest);
    case "inspect":
      return (await import("./inspect.js")).inspect(rest);
    case "logs":
      return (await import("./logs.js")).logs(rest);
    case "cp":
      return (await import("./cp.js")).cp(rest);
    case "images":
      return (await import("./images.js")).images(rest);
    case "rmi":
      return (await import("./images.js")).rmi(rest);
    case "stop":
      return (await import("./lifecycle.js")).stop(rest);
    case "kill":
      return (await import("./lifecycle.js")).kill(rest);
    case "rm":
      return (await import("./lifecycle.js")).rm(rest);
    case "wait":
      return (await import("./lifecycle.js")).wait(rest);
    default:
      throw new UsageError(`Unknown command ${JSON.stringify(command)}`);
  }
}

void runProcess(main);
