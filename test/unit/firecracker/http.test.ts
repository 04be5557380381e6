// Needs: nothing. The API's socket: HTTP in any pieces, pipelined, kept alive, too large, broken off.
import assert from "node:assert/strict";
import { mkdtempSync, existsSync, rmSync } from "node:fs";
import { Agent, request } from "node:http";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ApiServer, type Answer } from "../../../vmm/firecracker/api-server.js";
import { HttpError, HttpParser, type HttpRequest } from "../../../vmm/firecracker/http-parser.js";
import { Random } from "../../fuzz/random.js";

const LIMIT = 1000;

function parse(
  text: string | Buffer,
  sizes?: (left: number) => number,
): { method: string; target: string; body: string }[] {
  const found: { method: string; target: string; body: string }[] = [];
  const parser = new HttpParser({
    maxBodyBytes: LIMIT,
    expectsContinue: () => undefined,
    request: ({ method, target, body }) => found.push({ method, target, body: Buffer.from(body).toString() }),
  });
  let rest = Buffer.from(text);
  while (rest.length > 0) {
    const size = sizes?.(rest.length) ?? rest.length;
    parser.push(rest.subarray(0, size));
    rest = rest.subarray(size);
  }
  return found;
}

describe("firecracker: http", () => {
  describe("the parser", () => {
    const REQUESTS = [
      "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
      'PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 7\r\nContent-Type: application/json\r\n\r\n{"a":1}',
      "PATCH /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: 1\r\n\r\n",
      "\r\nPUT /c HTTP/1.0\ncontent-length: 0\n\n",
    ];
    const EXPECTED = [
      { method: "GET", target: "/", body: "" },
      { method: "PUT", target: "/a", body: '{"a":1}' },
      { method: "PATCH", target: "/b", body: "abcde" },
      { method: "PUT", target: "/c", body: "" },
    ];

    it("finds pipelined requests in pieces of every size", () => {
      const text = REQUESTS.join("");
      for (let size = 1; size <= text.length; size++)
        assert.deepEqual(
          parse(text, () => size),
          EXPECTED,
        );
    });

    it("finds them in pieces of random sizes", () => {
      const random = new Random(1);
      const text = REQUESTS.join("").repeat(20);
      for (let i = 0; i < 50; i++) assert.equal(parse(text, (left) => 1 + random.below(left)).length, 80);
    });

    const REFUSED: readonly (readonly [text: string, message: RegExp])[] = [
      ["GET /\r\n\r\n", /request line/],
      ["GET / HTTP/2.0\r\n\r\n", /request line/],
      ["GET  / HTTP/1.1\r\n\r\n", /request line/],
      ["G\x00T / HTTP/1.1\r\n\r\n", /request line/],
      ["GET /\x7f HTTP/1.1\r\n\r\n", /request line/],
      ["GET / HTTP/1.1\r\nno colon\r\n\r\n", /NAME: VALUE/],
      ["GET / HTTP/1.1\r\n: x\r\n\r\n", /NAME: VALUE/],
      ["GET / HTTP/1.1\r\nA B: x\r\n\r\n", /NAME: VALUE/],
      ["GET / HTTP/1.1\r\nA: x\r\n folded\r\n\r\n", /NAME: VALUE/],
      ["PUT / HTTP/1.1\r\nContent-Length: x\r\n\r\n", /not a number/],
      ["PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", /not a number/],
      ["PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", /given twice/],
      ["PUT / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n", /not a number/],
      ["PUT / HTTP/1.1\r\nContent-Length: 1001\r\n\r\n", /1001 bytes is longer than the limit of 1000/],
      ["PUT / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n", /not a number/],
      ["PUT / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", /both a length and an encoding/],
      ["PUT / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n", /only chunked/],
      ["PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nx\r\n", /no size/],
      ["PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n", /1001 bytes/],
      ["PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", /no size/],
      ["PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nab\r\n", /longer than it says/],
      ["PUT / HTTP/1.1\r\nExpect: magic\r\nContent-Length: 1\r\n\r\n", /only 100-continue/],
      [`GET / HTTP/1.1\r\nA: ${"x".repeat(20_000)}\r\n\r\n`, /head of a request/],
      [`GET / HTTP/1.1\r\nA: ${"x".repeat(20_000)}`, /head of a request/],
      ["x".repeat(20_000), /head of a request/],
    ];
    for (const [text, message] of REFUSED) {
      it(`refuses ${JSON.stringify(text.slice(0, 70))}`, () => {
        for (const size of [text.length, 7, 1]) {
          assert.throws(
            () => parse(text, () => size),
            (error: unknown) => error instanceof HttpError && message.test(error.message),
          );
        }
      });
    }

    it("chunks that together are too long are refused before they are kept", () => {
      const chunk = `1f4\r\n${"x".repeat(500)}\r\n`;
      const begin = "PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n";
      assert.equal(parse(`${begin}${chunk.repeat(2)}0\r\n\r\n`)[0]?.body.length, 1000);
      assert.throws(() => parse(`${begin}${chunk.repeat(3)}`), /1500 bytes/);
    });

    it("100,000 requests with bytes changed at random end in requests or in HttpError, and nothing else", function () {
      this.timeout(60_000);
      const random = new Random(2);
      let understood = 0;
      for (let i = 0; i < 100_000; i++) {
        const text = Buffer.from(`${random.pick(REQUESTS)}${random.pick(REQUESTS)}`);
        for (let changes = random.below(4); changes > 0; changes--) text[random.below(text.length)] = random.below(256);
        try {
          understood += parse(text, (left) => 1 + random.below(left)).length;
        } catch (error) {
          if (!(error instanceof HttpError)) throw error;
        }
      }
      assert.ok(understood > 50_000, String(understood));
    });
  });

  describe("the server", function () {
    this.timeout(20_000);
    let folder: string;
    let path: string;
    let server: ApiServer;
    let served: HttpRequest[];
    let answer: (request: HttpRequest) => Promise<Answer>;
    const sockets: Socket[] = [];

    beforeEach(() => {
      folder = mkdtempSync(join(tmpdir(), "vmlet-test-"));
      path = join(folder, "api.sock");
      served = [];
      answer = ({ target }) => Promise.resolve({ status: 200, body: { target } });
      server = ApiServer.listen({
        path,
        maxBodyBytes: LIMIT,
        serve: (request) => {
          served.push(request);
          return answer(request);
        },
        refused: () => undefined,
      });
    });
    afterEach(() => {
      for (const socket of sockets.splice(0)) socket.destroy();
      server.close();
      rmSync(folder, { recursive: true });
    });

    function open(): { socket: Socket; text: () => string; closed: Promise<void> } {
      const socket = connect(path);
      sockets.push(socket);
      let text = "";
      socket.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
      socket.on("error", () => undefined);
      return { socket, text: () => text, closed: new Promise((resolve) => socket.on("close", () => resolve())) };
    }

    async function until(isSo: () => boolean): Promise<void> {
      for (let tries = 0; !isSo(); tries++) {
        assert.ok(tries < 500, "it never came to that");
        await sleep(10);
      }
    }

    const count = (text: string, what: RegExp): number => text.match(what)?.length ?? 0;

    it("answers pipelined requests in their order, one at a time", async () => {
      let running = 0;
      answer = async ({ target }) => {
        assert.equal(++running, 1);
        await sleep(5);
        running--;
        return { status: 200, body: { target } };
      };
      const { socket, text } = open();
      const paths = Array.from({ length: 30 }, (_, index) => `/${String(index)}`);
      socket.write(paths.map((target) => `GET ${target} HTTP/1.1\r\n\r\n`).join(""));
      await until(() => count(text(), /HTTP\/1\.1 200/g) === 30);
      assert.deepEqual(
        [...text().matchAll(/"target":"([^"]+)"/g)].map(([, target]) => target),
        paths,
      );
    });

    it("serves several connections, and a slow one does not hold up the others", async () => {
      const slow = open();
      slow.socket.write("PUT /slow HTTP/1.1\r\nContent-Length: 10\r\n\r\n12345");
      const others = Array.from({ length: 10 }, open);
      for (const { socket } of others) socket.write("GET /fast HTTP/1.1\r\n\r\n");
      await until(() => others.every(({ text }) => text().includes('{"target":"/fast"}')));
      slow.socket.write("67890");
      await until(() => slow.text().includes('{"target":"/slow"}'));
    });

    it("Node's own client keeps its connection, with bodies by length and in chunks", async () => {
      const agent = new Agent({ keepAlive: true, maxSockets: 1 });
      const ask = (target: string, parts: string[], isChunked: boolean): Promise<string> =>
        new Promise((resolve, reject) => {
          const body = parts.join("");
          const headers = isChunked ? {} : { "content-length": Buffer.byteLength(body) };
          const sent = request({ socketPath: path, path: target, method: "PUT", agent, headers }, (response) => {
            let text = "";
            response.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
            response.on("end", () => resolve(`${String(response.statusCode)} ${text}`));
          });
          sent.on("error", reject);
          for (const part of parts) sent.write(part);
          sent.end();
        });
      for (let i = 0; i < 20; i++) {
        assert.equal(await ask(`/${String(i)}`, ['{"a"', ":1}"], i % 2 === 0), `200 {"target":"/${String(i)}"}`);
      }
      agent.destroy();
      assert.equal(served.length, 20);
      assert.ok(served.every(({ body }) => Buffer.from(body).toString() === '{"a":1}'));
    });

    it("a client that waits to be asked for its body is", async () => {
      const { socket, text } = open();
      socket.write("PUT /x HTTP/1.1\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n");
      await until(() => text().startsWith("HTTP/1.1 100 Continue\r\n\r\n"));
      socket.write("body");
      await until(() => text().includes('{"target":"/x"}'));
    });

    it("what is no request gets 400 behind the answers before it, and the connection is closed", async () => {
      const { socket, text, closed } = open();
      socket.write("GET /a HTTP/1.1\r\n\r\nnonsense\r\n\r\nGET /b HTTP/1.1\r\n\r\n");
      await closed;
      assert.match(
        text(),
        /^HTTP\/1\.1 200 OK[^]*"\/a"[^]*HTTP\/1\.1 400 Bad Request[^]*Connection: close[^]*fault_message/,
      );
      assert.equal(served.length, 1);
    });

    it("a body that is too long is refused by its length alone", async () => {
      const { socket, text, closed } = open();
      socket.write("PUT /a HTTP/1.1\r\nContent-Length: 1001\r\n\r\n");
      await closed;
      assert.match(text(), /400 Bad Request[^]*A body of 1001 bytes is longer than the limit of 1000/);
      assert.equal(served.length, 0);
    });

    it("Connection: close and HTTP/1.0 end the connection after the answer, others do not", async () => {
      for (const head of ["GET / HTTP/1.1\r\nConnection: close", "GET / HTTP/1.0"]) {
        const { socket, text, closed } = open();
        socket.write(`${head}\r\n\r\n`);
        await closed;
        assert.match(text(), /Connection: close\r\n/);
      }
      const { socket, text } = open();
      socket.write("GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n");
      await until(() => text().includes("target"));
      socket.write("GET /again HTTP/1.1\r\n\r\n");
      await until(() => text().includes("/again"));
    });

    it("a client that has asked and closes its end gets its answers", async () => {
      answer = async ({ target }) => {
        await sleep(20);
        return { status: 200, body: { target } };
      };
      const { socket, text, closed } = open();
      socket.end("GET /a HTTP/1.1\r\n\r\nGET /b HTTP/1.1\r\n\r\n");
      await closed;
      assert.match(text(), /"\/a"[^]*"\/b"/);
    });

    it("clients that go in the middle leave nothing behind", async () => {
      for (let i = 0; i < 100; i++) {
        const { socket, closed } = open();
        socket.write("PUT /a HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf");
        await sleep(i % 3);
        socket.destroy();
        await closed;
      }
      const { socket, text } = open();
      socket.write("GET /last HTTP/1.1\r\n\r\n");
      await until(() => text().includes("/last"));
      assert.equal(served.length, 1);
    });

    it("more connections than it takes are told so, and there is room again when others have gone", async () => {
      const many = Array.from({ length: 32 }, open);
      await until(() => many.every(({ socket }) => !socket.connecting));
      many[0]?.socket.write("GET /one HTTP/1.1\r\n\r\n");
      await until(() => many[0]?.text().includes("/one") === true);
      const late = open();
      await late.closed;
      assert.match(late.text(), /503 Service Unavailable[^]*32 connections/);
      for (const { socket, closed } of many) {
        socket.destroy();
        await closed;
      }
      await sleep(20);
      const again = open();
      again.socket.write("GET /again HTTP/1.1\r\n\r\n");
      await until(() => again.text().includes("/again"));
    });

    it("a client that floods it with requests is read as fast as they are answered", async () => {
      answer = async ({ target }) => {
        await sleep(1);
        return { status: 200, body: { target } };
      };
      const { socket, text } = open();
      socket.write("GET /f HTTP/1.1\r\n\r\n".repeat(1000));
      await until(() => served.length > 10);
      assert.ok(served.length < 1000);
      await until(() => count(text(), /HTTP\/1\.1 200/g) === 1000);
    });

    it("204 has neither body nor length; the socket's file goes with the server", async () => {
      answer = () => Promise.resolve({ status: 204, isDeprecated: true });
      const { socket, text } = open();
      socket.write("PUT / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}");
      await until(() => text().includes("204"));
      assert.match(text(), /^HTTP\/1\.1 204 No Content\r\n(?!Content)[^]*Deprecation: true\r\n\r\n$/);
      assert.doesNotMatch(text(), /Content-/);
      server.close();
      assert.equal(existsSync(path), false);
    });
  });
});
