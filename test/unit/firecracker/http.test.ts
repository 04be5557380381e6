// Needs: nothing. The API's socket: HTTP in any pieces, pipelined, kept alive, too large, broken off.
import assert from "node:assert/strict";
import { mkdtempSync, existsSync, rmSync } from "node:fs";
import { Agent, request } from "node:http";
import { connect, type Socket } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { ApiServer, type Answer, type ApiRequest } from "../../../vmm/firecracker/api-server.js";
import { Random } from "../../fuzz/random.js";

const LIMIT = 1000;

const REQUESTS = [
  "GET / HTTP/1.1\r\n\r\n",
  'PUT /a HTTP/1.1\r\nContent-Length: 7\r\nContent-Type: application/json\r\n\r\n{"a":1}',
  "PATCH /b HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: 1\r\n\r\n",
];
const REFUSED = [
  "GET / HTTP/9.0\r\n\r\n",
  "G\x00T / HTTP/1.1\r\n\r\n",
  "GET / HTTP/1.1\r\nno colon\r\n\r\n",
  "GET / HTTP/1.1\r\n: x\r\n\r\n",
  "GET / HTTP/1.1\r\nA B: x\r\n\r\n",
  "PUT / HTTP/1.1\r\nContent-Length: x\r\n\r\n",
  "PUT / HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
  "PUT / HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
  "PUT / HTTP/1.1\r\nContent-Length: 1, 1\r\n\r\n",
  "PUT / HTTP/1.1\r\nContent-Length: 1001\r\n\r\n",
  "PUT / HTTP/1.1\r\nContent-Length: 99999999999999999999\r\n\r\n",
  "PUT / HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
  "PUT / HTTP/1.1\r\nTransfer-Encoding: gzip\r\n\r\n",
  `GET / HTTP/1.1\r\nA: ${"x".repeat(20_000)}\r\n\r\n`,
  "x".repeat(20_000),
];

describe("firecracker: http", () => {
  describe("the server", function () {
    this.timeout(20_000);
    let folder: string;
    let path: string;
    let server: ApiServer;
    let served: ApiRequest[];
    let answer: (request: ApiRequest) => Promise<Answer>;
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

    it("finds requests in pieces of any size, with bodies by length and in chunks, without a host", async () => {
      answer = ({ method, target, body }) =>
        Promise.resolve({ status: 200, body: { is: `${method} ${target} ${Buffer.from(body).toString()}` } });
      const random = new Random(1);
      const text = Buffer.from(REQUESTS.join("").repeat(5));
      for (let round = 0; round < 20; round++) {
        const { socket, text: received } = open();
        for (let at = 0; at < text.length;) {
          const size = round === 0 ? 1 : 1 + random.below(200);
          socket.write(text.subarray(at, at + size));
          at += size;
          if (random.below(4) === 0) await sleep(0);
        }
        await until(() => count(received(), /HTTP\/1\.1 200/g) === 15);
        const answers = [...received().matchAll(/"is":"((?:[^"\\]|\\.)*)"/g)].map(([, is]) => is?.replaceAll("\\", ""));
        assert.deepEqual(answers.slice(0, 3), ["GET / ", 'PUT /a {"a":1}', "PATCH /b abcde"]);
        socket.destroy();
      }
    });

    for (const text of REFUSED) {
      it(`refuses ${JSON.stringify(text.slice(0, 70))}`, async () => {
        const { socket, text: received, closed } = open();
        socket.write(text);
        await closed;
        assert.match(received(), /^HTTP\/1\.1 400 Bad Request\r\n[^]*Connection: close\r\n[^]*"fault_message":"[^"]+/);
        assert.equal(served.length, 0);
      });
    }

    it("chunks that together are too long are refused", async () => {
      const chunk = `1f4\r\n${"x".repeat(500)}\r\n`;
      const { socket, text, closed } = open();
      socket.write(`PUT / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n${chunk.repeat(3)}`);
      await closed;
      assert.match(text(), /400 Bad Request[^]*A body of 1500 bytes is longer than the limit of 1000/);
      assert.equal(served.length, 0);
    });

    it("3,000 requests with bytes changed at random leave a server that answers", async function () {
      this.timeout(60_000);
      const random = new Random(2);
      for (let i = 0; i < 3000; i++) {
        const text = Buffer.from(`${random.pick(REQUESTS)}${random.pick(REQUESTS)}`);
        for (let changes = random.below(4); changes > 0; changes--) text[random.below(text.length)] = random.below(256);
        const { socket, closed } = open();
        socket.end(text);
        await closed;
      }
      assert.ok(served.length > 1500, String(served.length));
      const { socket, text } = open();
      socket.write("GET /last HTTP/1.1\r\n\r\n");
      await until(() => text().includes("/last"));
    });

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

    it("the answer to HEAD has no body", async () => {
      const { socket, text } = open();
      socket.write("HEAD / HTTP/1.1\r\n\r\nGET /next HTTP/1.1\r\n\r\n");
      await until(() => text().includes("/next"));
      assert.match(text(), /^HTTP\/1\.1 200 OK\r\n(?:[A-Z][^\r]*\r\n)*\r\nHTTP\/1\.1 200 OK/);
    });

    it("204 has neither body nor length; the socket's file goes with the server", async () => {
      answer = () => Promise.resolve({ status: 204, isDeprecated: true });
      const { socket, text } = open();
      socket.write("PUT / HTTP/1.1\r\nContent-Length: 2\r\n\r\n{}");
      await until(() => text().includes("204"));
      assert.match(text(), /^HTTP\/1\.1 204 No Content\r\n(?!Content)[^]*Deprecation: true\r\n[^]*\r\n\r\n$/);
      assert.doesNotMatch(text(), /Content-/);
      server.close();
      assert.equal(existsSync(path), false);
    });
  });
});
