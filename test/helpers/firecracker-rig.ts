// Firecracker's interface without its socket: requests go to the controller as the server hands them on. No guest is started.
import assert from "node:assert/strict";
import { Controller } from "../../vmm/firecracker/controller.js";
import { Fault, faultOf } from "../../vmm/firecracker/fault.js";
import type { Starter } from "../../vmm/firecracker/guest.js";
import { Logger } from "../../vmm/firecracker/logger.js";
import { MetricsWriter } from "../../vmm/firecracker/metrics.js";
import { parseRequest } from "../../vmm/firecracker/requests.js";
import { Settings } from "../../vmm/firecracker/settings.js";
import { vmConfig } from "../../vmm/firecracker/vm-config.js";

const MAX_BYTES = 51_200;

export interface RigAnswer {
  readonly status: number;
  readonly body?: Readonly<Record<string, unknown>> | undefined;
  readonly fault?: string;
  readonly isDeprecated?: boolean;
}

/** What is asked for is resolved as for a start, and goes no further. */
const NO_STARTER: Starter = {
  start: (settings) => {
    try {
      vmConfig(settings, { isSoftwareKvm: true });
    } catch (error) {
      throw faultOf(error, "Start");
    }
    throw new Fault("There is no guest in this test");
  },
  load: () => Promise.reject(new Fault("There is no snapshot in this test")),
};

export class FirecrackerRig {
  readonly settings = new Settings({ maxBytes: MAX_BYTES });
  readonly #controller: Controller;
  readonly #logger = new Logger("test", "test");
  readonly #metrics = new MetricsWriter(this.#logger);

  constructor(starter: Starter = NO_STARTER) {
    this.#logger.configure({ level: "Off" });
    this.#controller = new Controller({
      id: "test",
      settings: this.settings,
      logger: this.#logger,
      metrics: this.#metrics,
      starter,
      started: () => undefined,
    });
  }

  close(): void {
    this.#logger.close();
    this.#metrics.close();
  }

  /** All that a client has configured, as text. */
  everything(): string {
    return JSON.stringify([
      this.settings.describe(),
      this.settings.mmds.value,
      this.settings.serial,
      this.#controller.state,
    ]);
  }

  /** `body`: bytes as they are, anything else as JSON. Anything but a Fault is thrown. */
  async ask(method: string, path: string, body?: unknown): Promise<RigAnswer> {
    const bytes = body === undefined ? undefined : Buffer.isBuffer(body) ? body : Buffer.from(JSON.stringify(body));
    try {
      const asked = parseRequest(method, path, bytes);
      const reply = await this.#controller.handle(asked);
      const isDeprecated = asked.deprecated !== undefined;
      return { status: reply === undefined ? 204 : 200, body: reply, isDeprecated };
    } catch (error) {
      if (!(error instanceof Fault)) throw error;
      return { status: error.status, fault: error.message };
    }
  }

  async done(method: string, path: string, body?: unknown): Promise<void> {
    const answer = await this.ask(method, path, body);
    assert.equal(answer.status, 204, JSON.stringify(answer));
  }
}
