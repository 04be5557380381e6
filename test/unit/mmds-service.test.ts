// Needs: nothing. What the metadata service answers to whom.
import assert from "node:assert/strict";
import { HttpSession, MAX_REQUEST_BYTES } from "../../devices/mmds/http.js";
import { mmdsService, type MmdsServiceOptions } from "../../devices/mmds/service.js";
import { SealedTokens } from "../../vmm/virtio/backends/mmds-tokens.js";

const DATA = {
  latest: {
    "meta-data": { "ami-id": "ami-1", tags: ["a", { b: "c" }], "a/b~c": "odd", "": "empty" },
    "user-data": "text\nof lines",
  },
  age: 43,
  none: null,
  yes: true,
  grüße: "hi",
};

interface Answer {
  readonly status: number;
  readonly headers: ReadonlyMap<string, string>;
  readonly body: string;
}

function decode(bytes: Uint8Array | undefined): Answer {
  const text = Buffer.from(bytes ?? []).toString();
  const [head = "", body = ""] = text.split(/\r\n\r\n(.*)/s);
  const [first = "", ...lines] = head.split("\r\n");
  const headers = new Map(
    lines.map((line) => [line.slice(0, line.indexOf(":")).toLowerCase(), line.slice(line.indexOf(":") + 2)]),
  );
  assert.equal(headers.get("content-length"), String(Buffer.byteLength(body)));
  return { status: Number(/^HTTP\/1\.[01] (\d{3}) [A-Z]/.exec(first)?.[1]), headers, body };
}

interface Server {
  readonly ask: (request: string, headers?: Readonly<Record<string, string>>) => Answer;
  readonly at: (ms: number) => void;
}

function server(options: Partial<MmdsServiceOptions> = {}): Server {
  let nowMs = 0;
  const tokens = new SealedTokens(() => nowMs);
  const answer = mmdsService({ version: "V1", imdsCompat: false, source: { value: DATA }, tokens, ...options });
  return {
    ask: (request, headers = {}) => {
      const session = new HttpSession(answer);
      const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
      session.take(Buffer.from(`${request} HTTP/1.1\r\n${lines.join("")}\r\n`));
      return decode(session.nextAnswer());
    },
    at: (ms) => void (nowMs = ms),
  };
}

const JSON_WANTED = { Accept: "application/json" };

describe("mmds: answers", () => {
  it("values by their paths, as text: strings as they are, of objects the names", () => {
    const { ask } = server();
    const cases: (readonly [path: string, status: number, body: RegExp | string])[] = [
      ["/", 200, "age\ngrüße\nlatest/\nnone\nyes"],
      ["/latest", 200, "meta-data/\nuser-data"],
      ["/latest/", 200, "meta-data/\nuser-data"],
      ["//latest///meta-data/", 200, "\na/b~c\nami-id\ntags"],
      ["/latest/meta-data/ami-id", 200, "ami-1"],
      ["/latest/meta-data/a~1b~0c", 200, "odd"],
      ["/latest/user-data", 200, "text\nof lines"],
      ["/latest/meta-data/tags/0", 200, "a"],
      ["/latest/meta-data/tags/1/b", 200, "c"],
      ["/grüße", 200, "hi"],
      ["http://169.254.169.254/latest/meta-data/ami-id", 200, "ami-1"],
      ["http://169.254.169.254", 400, /no path/],
      ["/age", 501, /only be had as JSON/],
      ["/yes", 501, /JSON/],
      ["/none", 501, /JSON/],
      ["/latest/meta-data/tags", 501, /JSON/],
      ["/latest/meta-data/tags/2", 404, /There is no \/latest/],
      ["/latest/meta-data/tags/01", 404, /There is no/],
      ["/latest/meta-data/tags/length", 404, /There is no/],
      ["/latest/meta-data/ami-id/0", 404, /There is no/],
      ["/nothing", 404, /There is no \/nothing/],
      ["/__proto__", 404, /There is no/],
      ["/constructor", 404, /There is no/],
      ["latest", 404, /There is no latest/],
    ];
    for (const [path, status, body] of cases) {
      const answer = ask(`GET ${path}`);
      assert.equal(answer.status, status, path);
      assert.equal(answer.headers.get("content-type"), "text/plain");
      if (typeof body === "string") assert.equal(answer.body, body, path);
      else assert.match(answer.body, body, path);
    }
  });

  it("as JSON to those who ask for it, whatever it is", () => {
    const { ask } = server();
    for (const accept of ["application/json", "text/html, Application/JSON;q=0.9", " application/json "]) {
      const answer = ask("GET /latest/meta-data/tags", { accept });
      assert.deepEqual([answer.status, answer.headers.get("content-type")], [200, "application/json"], accept);
      assert.deepEqual(JSON.parse(answer.body), ["a", { b: "c" }]);
    }
    assert.deepEqual(JSON.parse(ask("GET /", JSON_WANTED).body), DATA);
    assert.equal(ask("GET /none", JSON_WANTED).body, "null");
    assert.equal(ask("GET /latest/user-data", JSON_WANTED).body, '"text\\nof lines"');
    assert.equal(ask("GET /age", { Accept: "*/*" }).status, 501);
    assert.equal(ask("GET /nothing", JSON_WANTED).status, 404);
  });

  it("in the form of EC2's service to everybody, if so configured", () => {
    const { ask } = server({ imdsCompat: true });
    assert.deepEqual(
      [ask("GET /latest", JSON_WANTED).body, ask("GET /age", JSON_WANTED).status],
      ["meta-data/\nuser-data", 501],
    );
  });

  it("before there is a document, and after it has changed", () => {
    const source: { value: unknown } = { value: undefined };
    const { ask } = server({ source });
    assert.deepEqual([ask("GET /", JSON_WANTED).body, ask("GET /").status, ask("GET /a").status], ["null", 501, 404]);
    source.value = { a: "b" };
    assert.equal(ask("GET /a").body, "b");
    let deep: unknown = "x";
    for (let depth = 0; depth < 100_000; depth++) deep = [deep];
    source.value = deep;
    assert.equal(ask("GET /", JSON_WANTED).status, 501);
  });

  it("other methods are told which there are", () => {
    const { ask } = server();
    for (const method of ["POST", "PATCH", "DELETE", "HEAD", "OPTIONS"]) {
      const answer = ask(`${method} /latest`);
      assert.deepEqual([answer.status, answer.headers.get("allow")], [405, "GET, PUT"], method);
    }
  });
});

describe("mmds: tokens", () => {
  const SECONDS = { "X-metadata-token-ttl-seconds": "60" };

  it("V2 answers only those who show one, by either name, as long as it is good", () => {
    const { ask, at } = server({ version: "V2" });
    assert.deepEqual([ask("GET /latest").status, ask("GET /nothing").status], [401, 401]);
    const got = ask("PUT /latest/api/token", SECONDS);
    assert.deepEqual([got.status, got.headers.get("x-metadata-token-ttl-seconds")], [200, "60"]);
    assert.match(got.body, /^[\w-]{20,70}$/);
    for (const name of ["X-metadata-token", "x-aws-ec2-metadata-token", "X-METADATA-TOKEN"]) {
      assert.equal(ask("GET /latest/user-data", { [name]: got.body }).body, "text\nof lines", name);
    }
    at(59_999);
    assert.equal(ask("GET /latest", { "X-metadata-token": got.body }).status, 200);
    at(60_000);
    assert.equal(ask("GET /latest", { "X-metadata-token": got.body }).status, 401);
  });

  it("what was not given out here is none", () => {
    const { ask } = server({ version: "V2" });
    const token = ask("PUT /latest/api/token", SECONDS).body;
    const other = server({ version: "V2" }).ask("PUT /latest/api/token", SECONDS).body;
    const changed = Array.from(
      token,
      (_, at) => token.slice(0, at) + (token[at] === "A" ? "Q" : "A") + token.slice(at + 1),
    );
    for (const wrong of [other, "", "x", "A".repeat(43), token.slice(1), `${token}A`, "é".repeat(43), ...changed]) {
      assert.equal(ask("GET /latest", { "X-metadata-token": wrong }).status, 401, wrong);
    }
    assert.equal(ask("GET /latest", { "X-metadata-token": token }).status, 200);
  });

  it("are given for a lifetime within its limits, at one path, to nobody behind a proxy; V1 has them, too", () => {
    for (const version of ["V1", "V2"] as const) {
      const { ask } = server({ version });
      const name = "X-aws-ec2-metadata-token-ttl-seconds";
      for (const good of ["1", "21600", "060"]) {
        const answer = ask("PUT //latest/api/token", { [name]: good });
        assert.deepEqual([answer.status, answer.headers.get(name.toLowerCase())], [200, String(Number(good))], good);
      }
      for (const wrong of ["0", "21601", "-1", "1.5", "", "x", "4294967297", "1e3", "9".repeat(1000)]) {
        assert.equal(ask("PUT /latest/api/token", { [name]: wrong }).status, 400, wrong);
      }
      assert.equal(ask("PUT /latest/api/token").status, 400);
      assert.equal(ask("PUT /latest/api/token", { ...SECONDS, "X-Forwarded-For": "10.0.0.1" }).status, 400);
      for (const path of ["/", "/latest/api", "/latest/api/token/x", "/latest"]) {
        assert.equal(ask(`PUT ${path}`, SECONDS).status, 404, path);
      }
    }
    assert.equal(server().ask("GET /latest", { "X-metadata-token": "nonsense" }).status, 200);
  });
});

describe("mmds: HTTP", () => {
  const echo = (): HttpSession =>
    new HttpSession(({ method, path, headers }) => ({
      status: 200,
      type: "text/plain",
      body: `${method} ${path} ${headers.get("x") ?? ""}`,
    }));

  function answersTo(...pieces: readonly (string | Uint8Array)[]): { answers: Answer[]; isOver: boolean } {
    const session = echo();
    const answers: Answer[] = [];
    for (const piece of pieces) {
      session.take(Buffer.from(piece));
      for (let answer = session.nextAnswer(); answer !== undefined; answer = session.nextAnswer())
        answers.push(decode(answer));
    }
    return { answers, isOver: session.isOver };
  }

  it("one after the other on a connection, in whatever pieces; a body is skipped", () => {
    const text =
      "GET /1 HTTP/1.1\r\nX: a\r\n\r\nPUT /2 HTTP/1.1\r\nContent-Length: 5\r\n\r\nGET /GET /3 HTTP/1.1\r\nx:\tb \r\n\r\n";
    for (const pieces of [[text], Array.from(text), [text.slice(0, 30), text.slice(30)]]) {
      const { answers, isOver } = answersTo(...pieces);
      assert.deepEqual([answers.map(({ body }) => body), isOver], [["GET /1 a", "PUT /2 ", "GET /3 b"], false]);
    }
  });

  it("keeps a connection, or ends it, as it is asked to", () => {
    for (const [version, connection, isOver] of [
      ["1.1", "", false],
      ["1.1", "Connection: close\r\n", true],
      ["1.1", "connection: Close\r\n", true],
      ["1.0", "", true],
      ["1.0", "Connection: keep-alive\r\n", false],
    ] as const) {
      const result = answersTo(`GET / HTTP/${version}\r\n${connection}\r\n`);
      assert.deepEqual(
        [result.isOver, result.answers[0]?.headers.get("connection")],
        [isOver, isOver ? "close" : "keep-alive"],
      );
    }
  });

  it("what is no request gets one answer, and the end", () => {
    const cases: (readonly [text: string | Uint8Array, status: number])[] = [
      ["\r\n\r\n", 400],
      ["GET / HTTP/2.0\r\n\r\n", 400],
      ["get / HTTP/1.1\r\n\r\n", 400],
      ["GET /a b HTTP/1.1\r\n\r\n", 400],
      ["GET / HTTP/1.1\r\nno header\r\n\r\n", 400],
      ["GET / HTTP/1.1\r\n folded: x\r\n\r\n", 400],
      ["GET / HTTP/1.1\r\na b: x\r\n\r\n", 400],
      [`GET / HTTP/1.1\r\n${"a: b\r\n".repeat(65)}\r\n`, 400],
      ["GET / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", 400],
      ["GET / HTTP/1.1\r\nContent-Length: 0x10\r\n\r\n", 400],
      ["GET / HTTP/1.1\r\nContent-Length: 99999\r\n\r\n", 413],
      ["GET / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", 501],
      [new Uint8Array(MAX_REQUEST_BYTES), 413],
      [Uint8Array.from([0, 255, 13, 10, 13, 10]), 400],
    ];
    for (const [text, status] of cases) {
      const { answers, isOver } = answersTo(text);
      assert.deepEqual(
        [answers.map((answer) => answer.status), isOver],
        [[status], true],
        Buffer.from(text).toString().slice(0, 60),
      );
    }
    const over = echo();
    over.take(Buffer.from("\r\n\r\n"));
    over.nextAnswer();
    over.take(new Uint8Array(MAX_REQUEST_BYTES));
    over.take(new Uint8Array(MAX_REQUEST_BYTES));
    assert.deepEqual([over.nextAnswer(), over.room], [undefined, MAX_REQUEST_BYTES]);
  });

  it("the worst that fits is answered in no time", () => {
    const spaces = " ".repeat(MAX_REQUEST_BYTES - 100);
    const startMs = performance.now();
    for (const line of [`x: a${spaces}b`, `x:${spaces}`, "a".repeat(8000), `GET /${"/".repeat(8000)}`]) {
      answersTo(`GET / HTTP/1.1\r\n${line}\r\n\r\n`, `GET /${"/".repeat(8000)} HTTP/1.1\r\n\r\n`);
    }
    assert.ok(performance.now() - startMs < 1000);
  });
});
