// Where a running VM is found by others: its record, its sockets, its log. In the jail they are there before the seal, and its attendant
// does what is left to do at the end.
import type { JailMode } from "../config/jail-modes.js";
import type { ResolvedConfig } from "../config/types.js";
import { bindForOwner, type BoundSocket } from "../virtio/backends/unix-listener.js";
import { FileInbox } from "./file-inbox.js";
import { OutputLog } from "./output-log.js";
import { StateFolder, type VmFolder } from "./state-folder.js";
import type { VmRecord } from "./vm-record.js";

type SocketName = "agent" | "attach" | "control";

export class VmPlaces {
  readonly folder: VmFolder;
  readonly #state: StateFolder;
  readonly #bound = new Map<SocketName, BoundSocket>();
  #record: VmRecord;
  #log: OutputLog | undefined;
  #inbox: FileInbox | undefined;
  /** Does in place of this process what it cannot do any more. */
  #end: ((exitCode: number, error: string | undefined) => void) | undefined;

  /** Throws ConfigError for a name that another VM has. */
  constructor(record: VmRecord) {
    this.#state = new StateFolder();
    this.#record = record;
    this.folder = this.#state.add(record);
  }

  /** One that listens. Throws HostError if there can be none. */
  socket(name: SocketName): BoundSocket {
    let socket = this.#bound.get(name);
    if (socket === undefined) {
      const path = this.folder[`${name}Socket`];
      socket = bindForOwner({ what: `${name} socket`, path });
      this.#bound.set(name, socket);
    }
    return socket;
  }

  /** Of what its program writes. */
  log(): OutputLog | undefined {
    if (this.#record.hasLog) this.#log ??= new OutputLog(this.folder.log);
    return this.#log;
  }

  /** Where files come for a process that opens none any more. */
  get inbox(): FileInbox | undefined {
    return this.#inbox;
  }

  /** Others may use it from now on. */
  running(restored: boolean): void {
    if (this.#record.status === "running") return;
    this.#record = { ...this.#record, status: "running", restored };
    this.#state.update(this.#record);
  }

  /**
   * The last step before the guest runs what nobody knows. Rejects with HostError or SystemCallError where the host does not allow it:
   * the guest is not to go on then.
   */
  async seal(mode: Exclude<JailMode, "off">, config: ResolvedConfig, restored: boolean): Promise<void> {
    const { sealPlaces } = await import("./seal-places.js");
    for (const name of ["agent", "control"] as const) this.socket(name);
    // Nobody attaches to a VM without a program of its own.
    if (this.#record.command.length > 0) this.socket("attach");
    const log = this.log();
    this.running(restored);
    if (!this.#record.autoRemove) this.#state.removeOldest();
    const { folder } = this;
    this.#inbox = new FileInbox(folder.filesSocket);
    const names = this.#state.nameOf(this.#record);
    this.#end = await sealPlaces(mode, { config, record: this.#record, folder, names, log });
  }

  /** Nothing of it stays, unless others may still want to know how it ended. */
  leave(exitCode: number, error: string | undefined): void {
    if (this.#end !== undefined) {
      this.#end(exitCode, error);
      return;
    }
    if (this.#record.autoRemove) {
      this.#state.remove(this.#record);
      return;
    }
    this.#record = {
      ...this.#record,
      status: "exited",
      exitCode,
      finished: new Date().toISOString(),
      ...(error === undefined ? {} : { error }),
    };
    this.#state.update(this.#record);
    this.#state.removeOldest();
  }

  /** It has not come to be. */
  drop(exitCode: number, error: string): void {
    if (this.#end === undefined) this.#state.remove(this.#record);
    else this.#end(exitCode, error);
  }
}
