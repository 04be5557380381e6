// Needs: nothing. Lines between the processes of a VM or container, from one that says what it likes.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync } from "node:fs";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { encodeFrame, FAILED } from "../../vmm/agent/frames.js";
import { ConfigError, HostError } from "../../vmm/errors.js";
import { replyOf, requestOf } from "../../vmm/oci/monitor-messages.js";
import { AttachClient } from "../../vmm/sdk/attach-client.js";
import { ATTACH_STREAM } from "../../vmm/sdk/attach-server.js";
import { errorOf, failureOf, readFailure, readReport } from "../../vmm/sdk/monitor-messages.js";

const NONE = ["", "{", "null", "5", '"ready"', "[]", "{}"];

describe("monitor messages", () => {
  it("a report is one of those that there are, or none", () => {
    for (const report of [{ notice: "a" }, { boots: true }, { ready: { id: "x", restored: false } }]) {
      assert.deepEqual(readReport(JSON.stringify(report)), report);
    }
    for (const line of [...NONE, '{"ready":null}', '{"ready":{"id":5,"restored":true}}', '{"failed":null}']) {
      assert.throws(() => readReport(line), HostError, line);
    }
  });

  it("a failure stays what it was, and has all that its error takes", () => {
    const failure = JSON.stringify(failureOf(new ConfigError(["a", "b"])));
    assert.deepEqual(errorOf(readFailure(failure)), new ConfigError(["a", "b"]));
    for (const text of [
      ...NONE,
      '{"message":5}',
      '{"message":"m","problems":[5]}',
      '{"message":"m","exec":null}',
      '{"message":"m","exec":{}}',
    ]) {
      assert.throws(() => readFailure(text), HostError, text);
    }
  });

  it("a client that is attached outlives a failure that is none", async () => {
    const folder = mkdtempSync(join(tmpdir(), "vmlet-attach-"));
    const path = join(folder, "s");
    const server = createServer((socket) => {
      socket.on("error", () => undefined);
      socket.end(encodeFrame(ATTACH_STREAM, FAILED, Buffer.from("null")));
    });
    try {
      await new Promise<void>((resolve) => server.listen(path, resolve));
      const client = await AttachClient.connect(path, { output: (_output, _bytes, done) => done() });
      assert.equal(await client.ended, undefined);
    } finally {
      server.close();
      rmSync(folder, { recursive: true });
    }
  });

  it("a container's monitor is asked for what it knows, by names that lead nowhere else", () => {
    assert.deepEqual(requestOf('{"start":true}\n'), { start: true });
    assert.deepEqual(requestOf('{"signal":15}\n'), { signal: 15 });
    assert.deepEqual(requestOf('{"forget":"a-b","names":["0"]}'), { forget: "a-b", names: ["0"] });
    for (const line of [
      ...NONE,
      '{"start":1}',
      '{"signal":-1}',
      '{"signal":65}',
      '{"forget":"../x","names":[]}',
      '{"forget":"a"}',
      '{"forget":"a","names":["../x"]}',
      '{"forget":"a","names":[".."]}',
      '{"pause":true}x',
    ]) {
      assert.equal(requestOf(line), undefined, line);
    }
  });

  it("its answer is one, or none", () => {
    assert.deepEqual(replyOf('{"ok":true}\n'), { ok: true });
    assert.deepEqual(replyOf('{"error":"e"}'), { error: "e" });
    for (const text of [...NONE, '{"ok":1}', '{"ok":true,"processes":5}', '{"ok":true,"processes":[null]}']) {
      assert.equal(replyOf(text), undefined, text);
    }
  });
});
