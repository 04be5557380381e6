// The attendant of this process: a small one outside of the jail (launcher/attendant.h) that does on the host, when this one has ended or
// says that it ends, what has been settled before the seal. All that can be had from it afterwards: a new log, and connections to programs that listen
// for the guest.
import { closeSync, fstatSync, openSync, readSync, statSync, writeSync } from "node:fs";
import { HostError } from "../errors.js";
import { fcntl } from "../sys/descriptors.js";
import { receiveMessage } from "../sys/messages.js";
import { rawCall } from "../sys/raw-call.js";

const VARIABLE = "VMLET_ATTENDANT";
const F_SETFD = 2;
const FD_CLOEXEC = 1;
const SYS_WAIT4 = 61;
/** Longer than an answer ever takes that does not wait for a disk, `ms`. */
const ANSWER_LIMIT_MS = 10_000;

interface Place {
  readonly fd: number;
  readonly process: number;
}

/** Undefined without one, and where this process has only inherited the variable. Exported for tests. */
export function placeOf(text: string | undefined, pid: number): Place | undefined {
  const [owner, fd, process] = (text ?? "").split(" ").map(Number);
  if (owner !== pid || fd === undefined || process === undefined) return undefined;
  return { fd, process };
}

export class Attendant {
  readonly #fd: number;
  readonly #process: number;
  static #own: Attendant | undefined;

  private constructor({ fd, process }: Place) {
    this.#fd = fd;
    this.#process = process;
    // Programs that are started would keep it from seeing this process's end.
    fcntl(fd, "F_SETFD", F_SETFD, FD_CLOEXEC);
  }

  /** This process's; undefined if the launcher has left none. */
  static get own(): Attendant | undefined {
    const place = placeOf(process.env[VARIABLE], process.pid);
    if (place !== undefined) Attendant.#own ??= new Attendant(place);
    return Attendant.#own;
  }

  /** At the end: a file, a socket, a link, or a folder that has no folders. All paths are absolute. */
  removesAtEnd(path: string): void {
    this.#tell("r", path);
  }

  /** At the end, if it leads to `target` then. */
  removesLinkAtEnd(path: string, target: string): void {
    this.#tell("n", `${path}\0${target}`);
  }

  /** At the end, in place of the file: `record` with the keys exitCode, finished (ISO 8601) and, if there is one, error. */
  writesAtEnd(path: string, record: object): void {
    this.#tell("w", `${path}\0${JSON.stringify(record).slice(0, -1)}`);
  }

  /** For `turnLog`. */
  keepsLog(path: string): void {
    this.#tell("l", path);
  }

  /** For `connection`: programs listen for the guest at `path` and "_PORT". */
  connectsFor(path: string): void {
    this.#tell("p", path);
  }

  /** None of the above from here on. */
  sealed(): void {
    this.#tell("s");
  }

  /** The log is `PATH.1` from now on; the result is a new one's descriptor. Throws HostError. */
  turnLog(): number {
    const fd = this.#ask("t");
    if (fd === undefined) throw new HostError("The log cannot be turned");
    return fd;
  }

  /** A connected socket; undefined if no program listens for that port, or takes nobody at the moment. */
  connection(port: number): number | undefined {
    try {
      return this.#ask("c", String(port));
    } catch {
      // It has been killed.
      return undefined;
    }
  }

  /** Of the network that it has left this process's for, a descriptor; undefined if it could not, or has ended. */
  network(): number | undefined {
    let fd: number | undefined;
    try {
      fd = openSync(`/proc/${String(this.#process)}/ns/net`, "r");
      if (fstatSync(fd).ino !== statSync("/proc/self/ns/net").ino) return fd;
    } catch {
      // Gone, or another user's.
    }
    if (fd !== undefined) closeSync(fd);
    return undefined;
  }

  #ask(what: string, content = ""): number | undefined {
    this.#tell(what, content);
    return receiveMessage(this.#fd, 1, performance.now() + ANSWER_LIMIT_MS)?.descriptors[0];
  }

  /** Returns when all of it is done. Later calls do nothing. */
  end(exitCode: number, error = ""): void {
    if (Attendant.#own !== this) return;
    Attendant.#own = undefined;
    process.env[VARIABLE] = "";
    try {
      this.#tell("e", Buffer.concat([Buffer.of(exitCode), Buffer.from(error)]));
      // It answers by its end.
      readSync(this.#fd, Buffer.alloc(1));
    } catch {
      // It has been killed: what it would have removed is for the next command that looks.
    }
    closeSync(this.#fd);
    rawCall(SYS_WAIT4, this.#process);
  }

  #tell(what: string, content: string | Buffer = ""): void {
    const bytes = Buffer.from(content);
    const message = Buffer.alloc(5 + bytes.length);
    message.writeUInt32LE(1 + bytes.length);
    message.write(what, 4);
    bytes.copy(message, 5);
    try {
      for (let at = 0; at < message.length;) at += writeSync(this.#fd, message, at);
    } catch (error) {
      throw new HostError("The attendant, which removes files of the VM at its end, has ended", { cause: error });
    }
  }
}
