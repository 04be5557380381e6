// The command line's entry: the only reader of process.argv and the only caller of exit.
import { createRequire } from "node:module";
import { runProcess, type ProcessEnd } from "./cli/process.js";
import { FIRECRACKER_GUEST_COMMAND, GUEST_COMMAND, WAIT_COMMAND } from "./lab/environment.js";
import { UsageError } from "./cli/usage-error.js";
import { print } from "./host/say.js";

const KNOWN = [
  ...["attach", "balloon", "bench", "boot", "cp", "doctor", "exec", "images", "inspect", "kill", "lab", "logs"],
  ...["migrate", "oci", "pause", "ps", "resume", "rm", "rmi", "run", "snapshot", "stats", "stop", "wait"],
];

async function main([command, ...rest]: readonly string[], end: ProcessEnd): Promise<number> {
  // Only there is somebody who gives work.
  if (command === WAIT_COMMAND && process.env["VMLET_IN_LAB"] === "1") {
    return main(await (await import("./cli/lab-work.js")).takeWork(), end);
  }
  switch (command) {
    case "boot":
      end.exit = (await import("./sys/exit.js")).exitNow;
      return (await import("./cli/boot.js")).boot(rest);
    case "doctor":
      return (await import("./cli/doctor.js")).doctor(rest);
    case "bench":
      return bench(rest);
    case "stats":
      return (await import("./cli/stats.js")).stats(rest);
    case "balloon":
      return (await import("./cli/balloon.js")).balloon(rest);
    case "oci":
      return (await import("./cli/oci.js")).oci(rest);
    case "pause":
      return (await import("./cli/pause.js")).pause(rest);
    case "resume":
      return (await import("./cli/pause.js")).resume(rest);
    case "snapshot":
      if (rest[0] === "restore" || rest[0] === "receive") end.exit = (await import("./sys/exit.js")).exitNow;
      return (await import("./cli/snapshot.js")).snapshot(rest);
    case "migrate":
      return (await import("./cli/migrate.js")).migrate(rest);
    case "lab":
      // Node's own exit would reset the terminal to its state at the start, even if another job has it now.
      end.exit = (await import("./sys/exit.js")).exitNow;
      return (await import("./cli/lab.js")).lab(rest);
    case GUEST_COMMAND:
      if (process.env["VMLET_IN_LAB"] !== "1") throw new UsageError(`vmlet ${command} is for the lab alone`);
      end.exit = (await import("./sys/exit.js")).exitNow;
      return (await import("./cli/guest-in-lab.js")).guestInLab(rest);
    case FIRECRACKER_GUEST_COMMAND:
      if (process.env["VMLET_IN_LAB"] !== "1") throw new UsageError(`vmlet ${command} is for the lab alone`);
      end.exit = (await import("./sys/exit.js")).exitNow;
      return (await import("./cli/firecracker-in-lab.js")).firecrackerInLab();
    case "--version":
    case "-V":
      print(`${(await import("./host/version.js")).VERSION}\n`);
      return 0;
    case "--help":
    case "-h":
    case "help":
      print((await import("./cli/help.js")).help());
      return 0;
    case undefined:
      throw new UsageError("No command is given; try: vmlet --help");
    default:
      throw new UsageError(`Unknown command ${JSON.stringify(command)}; known are ${KNOWN.join(", ")}`);
  }
}

/** In a file of its own: it is as big as all the rest, and only this command reads it. */
async function bench(argv: readonly string[]): Promise<number> {
  const { tinyInitrd } = await import("./host/guest-files.js");
  if (!argv.includes("--help") && !argv.includes("-h")) {
    await (await import("./host/first-use.js")).buildMissing([tinyInitrd()]);
  }
  const file = "./ladder.js";
  const ladder = createRequire(import.meta.url)(file) as { bench(argv: readonly string[]): Promise<number> };
  return ladder.bench(argv);
}

void runProcess(main);
