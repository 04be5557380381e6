// What a processor, the host's kernel or another process of vmlet hands on: instructions of the guest, messages of rtnetlink,
// lines between a monitor and who has started it.
import assert from "node:assert/strict";
import { decode } from "../../../vmm/fixups/instruction.js";
import { HostError } from "../../../vmm/errors.js";
import { readAddress, readAttributes, readLink, readRoute } from "../../../vmm/host/rtnetlink.js";
import { replyOf, requestOf } from "../../../vmm/oci/monitor-messages.js";
import { errorOf, LineReader, readFailure, readReport } from "../../../vmm/sdk/monitor-messages.js";
import { allowing, inPiecesToo, text, type ByteTarget } from "../coverage/byte-target.js";

export const instructionTarget: ByteTarget = {
  name: "instruction",
  parser: "decode: the instruction decoder",
  maxLength: 15,
  seeds: [
    Uint8Array.of(0x66, 0x67, 0x64, 0xf3, 0x0f, 0xb8, 0x84, 0x88, 1, 2, 3, 4),
    Uint8Array.of(0xf0, 0x48, 0x0f, 0xc7, 0x0d, 1, 2, 3, 4),
    Uint8Array.of(0x0f, 0xae, 0x64, 0x24, 0x40),
  ],
  run(input) {
    const instruction = decode(input);
    assert.ok(instruction === undefined || (instruction.length >= 1 && instruction.length <= input.length));
  },
};

export const netlinkTarget: ByteTarget = {
  name: "rtnetlink",
  parser: "readAttributes, readLink, readAddress, readRoute",
  maxLength: 128,
  seeds: [Buffer.concat([new Uint8Array(16), Uint8Array.of(7, 0, 3, 0, 0x6c, 0x6f, 0, 0, 8, 0, 4, 0, 0, 5, 0, 0)])],
  run(input) {
    const payload = Buffer.from(input);
    for (const bytes of readAttributes(payload).values()) assert.ok(bytes.length <= payload.length);
    assert.ok(!readLink(payload).name.includes("\0"));
    readAddress(payload);
    readRoute(payload);
  },
};

export const monitorTarget: ByteTarget = {
  name: "monitor-messages",
  parser: "readReport, readFailure, requestOf, replyOf: lines of a VM's or container's process",
  maxLength: 256,
  seeds: [
    text('{"ready":{"id":"a","restored":true}}'),
    text('{"failed":{"code":"ERR_EXEC","message":"m","problems":["p"],"cure":"c","exec":{"command":["a"]}}}'),
    text('{"code":"ERR_CONFIG","message":"m"}'),
    text('{"signal":9}'),
    text('{"ok":true,"processes":[{"pid":1,"parent":0,"command":"c"}]}'),
  ],
  words: [
    '"notice":',
    '"boots":true',
    '"start":true',
    '"forget":"a","names":["b"]',
    '"error":"e"',
    '"pause":true',
    "null",
  ],
  run(input) {
    const line = Buffer.from(input).toString("utf8");
    allowing([HostError], () => {
      const report = readReport(line);
      if ("failed" in report) errorOf(report.failed);
    });
    allowing([HostError], () => void errorOf(readFailure(line)));
    const request = requestOf(line);
    if (request !== undefined && "forget" in request)
      for (const name of [request.forget, ...request.names]) assert.ok(!/[/\0]|^\.\.?$/.test(name));
    const reply = replyOf(line);
    if (reply !== undefined && !("error" in reply)) for (const one of reply.processes ?? []) one.command.trim();
  },
};

export const linesTarget: ByteTarget = {
  name: "lines",
  parser: "LineReader: reports of a VM's process",
  maxLength: 256,
  seeds: [text('{"boots":true}\n{"notice":"a"}\n')],
  run(input) {
    inPiecesToo(input, (chunks) => {
      const lines: string[] = [];
      const reader = new LineReader((line) => lines.push(line), 1000);
      for (const chunk of chunks) reader.push(Buffer.from(chunk).toString("latin1"));
      return lines;
    });
  },
};
