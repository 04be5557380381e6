// What a suite of networks in user mode has on this host: a program that only the host itself reaches, a folder, and the passts.
import { once } from "node:events";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { createServer, type Server } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { whyNoKvm } from "./kvm-guard.js";
import { skip } from "./skip.js";
import { userNetProblem } from "./user-net-guard.js";

/** `bytes` that the guest fetches. */
export const FETCHED_BYTES = 2 ** 18;

export interface UserNetRig {
  /** The suite's, while its tests run. */
  readonly folder: () => string;
  /** In a guest: prints how many bytes have come from the host's program. */
  readonly fetching: () => string;
}

/** Is there while the suite's tests run, or the reason why they are skipped. */
export function userNetRig(): UserNetRig {
  let folder = "";
  let server: Server;
  let port: number;
  before(async function () {
    const reason = whyNoKvm() ?? userNetProblem();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
    server = createServer((_, response) => response.end(Buffer.alloc(FETCHED_BYTES, "vmlet "))).listen(0, "127.0.0.1");
    await once(server, "listening");
    ({ port } = server.address() as AddressInfo);
  });
  after(() => {
    if (folder === "") return;
    server.close();
    rmSync(folder, { recursive: true });
  });
  return {
    folder: () => folder,
    // Not with nc: passt 2023-03-09 stops sending to a guest that has said that it will send no more.
    fetching: () => `wget -qO- http://10.0.2.2:${String(port)}/ 2>/dev/null | wc -c`,
  };
}

/** The passts that run with this MTU, by which a test knows its own. */
export function passtsOf(mtu: string): number[] {
  return readdirSync("/proc")
    .map(Number)
    .filter((pid) => {
      try {
        return readFileSync(`/proc/${String(pid)}/cmdline`, "latin1").includes(`--mtu\0${mtu}\0`);
      } catch {
        return false;
      }
    });
}
