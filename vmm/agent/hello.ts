// The first frames of a connection: who speaks which version. docs/agent-protocol.md, "The connection (stream 0)".
import { AgentError } from "../errors.js";

export const MAGIC = 0x414c_4d56;
export const VERSION = 2;
const HELLO_BYTES = 16;
/** What the protocol allows at once, whatever the agent says. */
export const MAX_STREAMS = 256;

export interface Hello {
  /** How many streams its sender serves at once. */
  readonly streams: number;
  /** Another one after each new start of the agent; 0 from a host that asks for the agent's HELLO. */
  readonly nonce: number;
}

export function encodeHello({ streams, nonce }: Hello, version: number = VERSION): Buffer {
  const payload = Buffer.alloc(HELLO_BYTES);
  payload.writeUInt32LE(MAGIC, 0);
  payload.writeUInt16LE(version, 4);
  payload.writeUInt32LE(streams, 8);
  payload.writeUInt32LE(nonce, 12);
  return payload;
}

/** Throws AgentError. `who` as in "The guest's agent". */
export function decodeHello(payload: Buffer, who: string): Hello {
  if (payload.length < 6 || payload.readUInt32LE(0) !== MAGIC) {
    throw new AgentError("protocol", `${who} does not speak the agent's protocol`);
  }
  const version = payload.readUInt16LE(4);
  if (version !== VERSION) {
    throw new AgentError(
      "version",
      `${who} speaks version ${String(version)} of the protocol, this vmlet ${String(VERSION)}`,
      {
        cure: "Use the init that comes with this vmlet",
      },
    );
  }
  if (payload.length !== HELLO_BYTES || payload.readUInt16LE(6) !== 0) {
    throw new AgentError("protocol", `${who} has sent a HELLO that is none`);
  }
  return { streams: payload.readUInt32LE(8), nonce: payload.readUInt32LE(12) };
}
