// What a guest's agent sends, as bytes of a stream.
import assert from "node:assert/strict";
import { AgentConnection } from "../../../vmm/agent/connection.js";
import { decodeStat } from "../../../vmm/agent/file-stat.js";
import * as frames from "../../../vmm/agent/frames.js";
import { HelloSearch } from "../../../vmm/agent/hello-search.js";
import { decodeHello, encodeHello } from "../../../vmm/agent/hello.js";
import { ListDecoder } from "../../../vmm/agent/list-decoder.js";
import { parseMemory, parseProcess } from "../../../vmm/agent/proc-files.js";
import { RelayClient } from "../../../vmm/agent/relay-client.js";
import { AgentError } from "../../../vmm/errors.js";
import { AgentPeer, u32 } from "../../helpers/agent-peer.js";
import { allowing, inPiecesToo, text, type ByteTarget } from "../coverage/byte-target.js";

const HELLO = frames.encodeFrame(0, frames.HELLO, encodeHello({ streams: 20, nonce: 7 }));

export const agentFramesTarget: ByteTarget = {
  name: "agent-frames",
  parser: "FrameDecoder, HelloSearch, decodeHello",
  maxLength: 512,
  seeds: [
    HELLO,
    Buffer.concat([HELLO, frames.encodeFrame(1, frames.DATA, text("abc")), frames.encodeFrame(1, frames.END)]),
    Buffer.concat([text("rest of it"), HELLO]),
  ],
  run(input) {
    inPiecesToo(input, (chunks) => {
      const seen: unknown[] = [];
      const decoder = new frames.FrameDecoder((stream, type, payload) => {
        seen.push(stream, type, payload);
        if (type === frames.HELLO) allowing([AgentError], () => decodeHello(payload, "The agent"));
      });
      const isOdd = allowing([AgentError], () => {
        for (const chunk of chunks) decoder.push(chunk);
      });
      return [...seen, isOdd];
    });
    inPiecesToo(input, (chunks) => {
      const search = new HelloSearch();
      let isFound = false;
      for (const chunk of chunks) if (search.push(chunk) !== undefined) isFound = true;
      return isFound;
    });
  },
};

const ENTRY = ((): Buffer => {
  const stat = Buffer.alloc(64);
  stat.writeUInt32LE(0o100_644);
  const entry = Buffer.concat([Buffer.alloc(4), stat, text("name")]);
  entry.writeUInt16LE(entry.length, 0);
  entry.writeUInt16LE(4, 2);
  return entry;
})();

export const agentFilesTarget: ByteTarget = {
  name: "agent-files",
  parser: "ListDecoder, decodeStat",
  maxLength: 512,
  seeds: [ENTRY, Buffer.concat([ENTRY, ENTRY])],
  run(input) {
    inPiecesToo(input, (chunks) => {
      const seen: unknown[] = [];
      const decoder = new ListDecoder("list /");
      const isOdd = allowing([AgentError], () => {
        for (const chunk of chunks) {
          for (const { name, nameBytes, target } of decoder.push(Buffer.from(chunk))) {
            assert.ok(name !== "." && name !== ".." && !nameBytes.includes(0) && !nameBytes.includes(0x2f));
            seen.push(nameBytes, target);
          }
        }
        decoder.finish();
      });
      return isOdd ? undefined : seen;
    });
    allowing([AgentError], () => void decodeStat(Buffer.from(input.subarray(0, 64)), "stat /"));
  },
};

export const procTarget: ByteTarget = {
  name: "proc-files",
  parser: "parseProcess, parseMemory: a guest's /proc",
  maxLength: 512,
  seeds: [
    text("1 (a) b) S 0 1 1 0 -1 4194560 1 2 3 4 50 60 0\xffName:\ta\nUid:\t0\t0\nVmRSS:\t 12 kB\n\xffa\0b\0"),
    text("MemTotal:  12 kB\nMemFree: 3 kB\nMemAvailable: 4 kB\nCached: 5 kB\n"),
  ],
  words: ["MemTotal:", "Uid:\t", "VmRSS:\t", " kB", ") ", " ("],
  run(input) {
    const bytes = Buffer.from(input);
    const first = bytes.indexOf(0xff);
    const second = bytes.indexOf(0xff, first + 1);
    const stat = bytes.subarray(0, first < 0 ? bytes.length : first);
    const status = first < 0 ? bytes.subarray(0, 0) : bytes.subarray(first + 1, second < 0 ? bytes.length : second);
    const process = parseProcess(5, stat, status, second < 0 ? bytes.subarray(0, 0) : bytes.subarray(second + 1));
    for (const value of [process?.parent, process?.residentBytes, process?.cpuMs, process?.uid]) {
      assert.ok(value === undefined || (value >= 0 && Number.isFinite(value)));
    }
    assert.ok(process === undefined || !/[\x00-\x1f\x7f]/.test(process.name), "a name that a terminal would obey");
    for (const value of Object.values(parseMemory(bytes.toString("latin1")))) assert.ok(Number.isFinite(value));
  },
};

/** Frames of an agent behind its HELLO, to a host that has asked for something. */
export const agentConnectionTarget: ByteTarget = {
  name: "agent-connection",
  parser: "AgentConnection: a host under a hostile agent",
  maxLength: 512,
  seeds: [
    Buffer.concat([
      frames.encodeFrame(1, frames.DATA, text("abc")),
      frames.encodeFrame(1, frames.END),
      frames.encodeFrame(1, frames.DONE),
      frames.encodeFrame(2, frames.CREDIT, u32(0, 100)),
      frames.encodeFrame(2, frames.FAILED, Buffer.concat([u32(2), text("no")])),
      frames.encodeFrame(3, frames.STARTED, u32(42)),
      frames.encodeFrame(0, frames.PONG),
    ]),
  ],
  run(input) {
    const peer = new AgentPeer();
    const connection = new AgentConnection(peer);
    let ends = 0;
    const end = (): void => {
      ends++;
    };
    const events = {
      onData: () => undefined,
      onDone: end,
      onRefused: end,
      onLost: end,
    };
    peer.hello();
    const opened = [frames.READ, frames.WRITE, frames.LIST].map((type) =>
      connection.open(
        {
          type,
          payload: text("/\0"),
          what: "x",
          outputs: type === frames.WRITE ? 0 : 1,
          hasInput: type === frames.WRITE,
        },
        events,
      ),
    );
    peer.raw(input);
    assert.ok(connection.error === undefined || connection.error instanceof AgentError);
    connection.close();
    assert.equal(ends, opened.length, "a stream has not ended once");
  },
};

/** The client's end of a relay, without a socket. */
class ClientEnd extends AgentPeer {
  pause(): void {
    // What comes all the same must do no harm.
  }

  resume(): void {
    // As above.
  }
}

export const relayTarget: ByteTarget = {
  name: "agent-relay",
  parser: "RelayClient: programs at the command socket",
  maxLength: 512,
  seeds: [
    Buffer.concat([
      frames.encodeFrame(0, frames.HELLO, encodeHello({ streams: 0, nonce: 7 })),
      frames.encodeFrame(1, frames.READ, text("/etc/x\0")),
      frames.encodeFrame(1, frames.CREDIT, u32(1, 50)),
      frames.encodeFrame(2, frames.STAT, text("/\0")),
      frames.encodeFrame(1, frames.CANCEL),
      frames.encodeFrame(0, frames.PING),
    ]),
  ],
  run(input) {
    const peer = new AgentPeer();
    const connection = new AgentConnection(peer);
    peer.hello();
    const end = new ClientEnd();
    let gone = 0;
    const client = new RelayClient(connection, end, 7, () => gone++);
    end.raw(input);
    assert.ok(connection.error === undefined, "a client does harm to the connection");
    client.close();
    connection.close();
    assert.equal(gone, 1);
  },
};
