// A command of the runtime, by its name; each loads what it needs.
import type { Context } from "./context.js";
import { parseCommandLine, type CommandLine } from "./command-line.js";
import { Log, messageOf } from "./log.js";
import { print } from "../host/say.js";

const EXIT_FAILURE = 1;
const EXIT_EXEC_FAILURE = 255;
const EXIT_UNKNOWN = 3;

/** The result is the process's exit code; what goes wrong is in the log. */
export async function runCommand(argv: readonly string[]): Promise<number> {
  let line: CommandLine;
  try {
    line = parseCommandLine(argv);
  } catch (error) {
    new Log({ log: undefined, logFormat: "text", isDebug: false }).fail(messageOf(error));
    return EXIT_FAILURE;
  }
  const log = new Log(line.global);
  try {
    return await dispatch(line.command, { global: line.global, log, argv: line.argv });
  } catch (error) {
    log.fail(messageOf(error));
    return line.command === "exec" ? EXIT_EXEC_FAILURE : EXIT_FAILURE;
  }
}

async function dispatch(command: string, context: Context): Promise<number> {
  if (context.argv[0] === "--help" || context.argv[0] === "-h") command = "help";
  switch (command) {
    case "create":
      return (await import("./create.js")).create(context);
    case "start":
      return (await import("./start.js")).start(context);
    case "run":
      return (await import("./run.js")).run(context);
    case "exec":
      return (await import("./exec.js")).exec(context);
    case "state":
      return (await import("./inspect.js")).state(context);
    case "list":
      return (await import("./inspect.js")).list(context);
    case "ps":
      return (await import("./inspect.js")).ps(context);
    case "kill":
      return (await import("./signal.js")).kill(context);
    case "pause":
      return (await import("./signal.js")).pause(context);
    case "resume":
      return (await import("./signal.js")).resume(context);
    case "delete":
      return (await import("./delete.js")).deleteCommand(context);
    case "update":
      return (await import("./resources.js")).update(context);
    case "events":
      return (await import("./resources.js")).events(context);
    case "features":
      return (await import("./describe.js")).features();
    case "spec":
      return (await import("./describe.js")).spec(context);
    case "version":
      return (await import("./describe.js")).version();
    case "help":
    case "":
      print((await import("./help.js")).HELP);
      return 0;
    default:
      context.log.fail(`No help topic for '${command}'`);
      return EXIT_UNKNOWN;
  }
}
