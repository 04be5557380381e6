// Needs: docker-registry (Debian); root and Docker's engine for one test. Images of registries and engines.
import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { gzipSync } from "node:zlib";
import { ImageError } from "../../vmm/errors.js";
import {
  listImages,
  prepareImage,
  removeImage,
  type PreparedImage,
  type PrepareOptions,
} from "../../vmm/image/index.js";
import { openDocker, whyNoDocker } from "../helpers/docker-host.js";
import { readErofs, readParts } from "../helpers/erofs-reader.js";
import { configOf, dockerArchive, ociFiles, sha256, type MadeImage } from "../helpers/image-archives.js";
import { startRegistry, whyNoRegistry, type TestRegistry } from "../helpers/registry.js";
import { skip } from "../helpers/skip.js";
import { runProgram } from "../../bench/ladder/run-program.js";

const IMAGE: MadeImage = {
  layers: [[{ name: "a", body: "1".repeat(100_000) }], [{ name: "b", body: "2" }]],
  config: { Cmd: ["/a"] },
};

describe("image: registries and engines", function () {
  this.timeout(120_000);
  let folder: string;
  let cache: string;
  const before = { ...process.env };

  beforeEach(() => {
    folder = mkdtempSync(join(tmpdir(), "vmlet-registry-"));
    cache = join(folder, "cache");
    mkdirSync(join(folder, "docker"));
    process.env["DOCKER_CONFIG"] = join(folder, "docker");
    process.env["DOCKER_HOST"] = `unix://${folder}/none.sock`;
    delete process.env["REGISTRY_AUTH_FILE"];
  });
  afterEach(() => {
    for (const name of ["DOCKER_CONFIG", "DOCKER_HOST", "REGISTRY_AUTH_FILE"]) {
      if (before[name] === undefined) Reflect.deleteProperty(process.env, name);
      else process.env[name] = before[name];
    }
    rmSync(folder, { recursive: true });
  });

  async function prepare(reference: string, options: PrepareOptions = {}): Promise<PreparedImage> {
    const image = await prepareImage(reference, { cache, ...options });
    image.release();
    return image;
  }

  async function refusal(promise: Promise<unknown>): Promise<ImageError> {
    try {
      await promise;
    } catch (error) {
      assert.ok(error instanceof ImageError, String(error));
      assert.deepEqual(readdirSync(join(cache, "tmp")), [], "nothing is left behind");
      return error;
    }
    return assert.fail("was taken");
  }

  async function withRegistry(
    test: Mocha.Context,
    login: Parameters<typeof startRegistry>[1],
    use: (registry: TestRegistry) => Promise<void>,
  ): Promise<void> {
    const why = whyNoRegistry();
    if (why !== undefined) skip(test, why);
    mkdirSync(join(folder, "registry"));
    const registry = await startRegistry(join(folder, "registry"), login);
    try {
      await use(registry);
    } finally {
      await registry.close();
    }
  }

  it("by tag, by digest, through an index of several processors; what is there already is not asked for again", async function () {
    await withRegistry(this, undefined, async (registry) => {
      const digest = await registry.push(IMAGE, "team/app", "1");
      const name = `docker://${registry.host}/team/app`;
      const image = await prepare(`${name}:1`);
      assert.equal(image.id, sha256(configOf(IMAGE)));
      assert.deepEqual(image.config.cmd, ["/a"]);
      assert.deepEqual([...readErofs(readParts(image.manifestPath)).keys()].sort(), ["", "a", "b"]);
      assert.equal((await prepare(`${name}@sha256:${digest}`)).id, image.id);
      const entry = { mediaType: "application/vnd.oci.image.manifest.v1+json", digest: `sha256:${digest}`, size: 1 };
      const arm = { ...entry, platform: { os: "linux", architecture: "arm64" } };
      const type = "application/vnd.oci.image.index.v1+json";
      const index = (...manifests: object[]): string =>
        JSON.stringify({ schemaVersion: 2, mediaType: type, manifests });
      await registry.pushManifest(
        "team/app",
        "multi",
        index(arm, { ...entry, platform: { os: "linux", architecture: "amd64" } }),
        type,
      );
      assert.equal((await prepare(`${name}:multi`)).id, image.id);
      await registry.pushManifest("team/app", "arm", index(arm), type);
      assert.match((await refusal(prepare(`${name}:arm`))).message, /nothing for linux\/amd64, only for linux\/arm64$/);
      assert.match(
        (await refusal(prepare(`${name}:none`))).message,
        /the registry does not have it \(404: manifest unknown\)$/,
      );
      // The same tag leads elsewhere now: seen only by those who ask.
      const other: MadeImage = { layers: [[{ name: "c" }]] };
      await registry.push(other, "team/app", "1");
      assert.equal((await prepare(`${name}:1`)).id, image.id);
      assert.equal((await prepare(`${name}:1`, { pull: "never" })).id, image.id);
      assert.equal((await prepare(`${name}:1`, { pull: "always" })).id, sha256(configOf(other)));
      assert.match(
        (await refusal(prepare(`${name}:2`, { pull: "never" }))).message,
        /not in the cache, and nobody may be asked for it/,
      );
      // A plain name with a host is looked for in the same places.
      assert.equal((await prepare(`${registry.host}/team/app:1`)).id, sha256(configOf(other)));
      const names = (await listImages({ cache })).flatMap(({ references }) => references);
      assert.deepEqual([names.includes(`${name}:1`), names.includes(`${registry.host}/team/app:1`)], [true, false]);
      await removeImage(`${registry.host}/team/app:1`, { cache });
      assert.ok(!(await listImages({ cache })).some(({ references }) => references.includes(`${name}:1`)));
    });
  });

  it("a registry that wants a password gets that of Docker's configuration, or of a helper", async function () {
    // By bcrypt: the password is "secret".
    const htpasswd = "me:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n";
    const authorization = `Basic ${Buffer.from("me:secret").toString("base64")}`;
    await withRegistry(this, { htpasswd, authorization }, async (registry) => {
      await registry.push(IMAGE, "app", "1");
      const name = `docker://${registry.host}/app:1`;
      assert.match((await refusal(prepare(name))).message, /wants a user and a password$/);
      const write = (config: object): void =>
        writeFileSync(join(folder, "docker", "config.json"), JSON.stringify(config));
      write({ auths: { [registry.host]: { auth: Buffer.from("me:wrong").toString("base64") } } });
      const { message, cure } = await refusal(prepare(name));
      assert.match(message, /does not let us have it/);
      assert.match(cure ?? "", /docker login/);
      write({ auths: { [registry.host]: { auth: Buffer.from("me:secret").toString("base64") } } });
      assert.equal((await prepare(name)).id, sha256(configOf(IMAGE)));
      const helper = join(folder, "docker-credential-test");
      writeFileSync(
        helper,
        `#!/bin/sh\n[ "$1" = get ] && [ "$(cat)" = ${registry.host} ] && echo '{"Username":"me","Secret":"secret"}'\n`,
      );
      chmodSync(helper, 0o755);
      write({ credHelpers: { [registry.host]: "test" } });
      process.env["PATH"] = `${folder}:${before["PATH"] ?? ""}`;
      try {
        assert.equal((await prepare(name, { pull: "always" })).id, sha256(configOf(IMAGE)));
        write({ credsStore: "absent" });
        assert.match(
          (await refusal(prepare(name, { pull: "always" }))).message,
          /docker-credential-absent, which is not there$/,
        );
      } finally {
        process.env["PATH"] = before["PATH"];
      }
    });
  });

  /** A registry of the test's own, for what a good one does not do. */
  async function withServer(
    answer: (request: IncomingMessage, response: ServerResponse, host: string) => void,
    use: (host: string) => Promise<void>,
  ): Promise<void> {
    let host = "";
    const server = createServer((request, response) => answer(request, response, host));
    await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
    host = `127.0.0.1:${String((server.address() as AddressInfo).port)}`;
    try {
      await use(host);
    } finally {
      server.closeAllConnections();
      await new Promise((resolve) => server.close(resolve));
    }
  }

  const { files, manifest } = ociFiles({ ...IMAGE, pack: (tar) => tar });
  const blobs = new Map([...files].map(([path, bytes]) => [path.replace("blobs/sha256/", "sha256:"), bytes]));

  function serve(request: IncomingMessage, response: ServerResponse): void {
    const path = request.url ?? "";
    if (path === "/v2/") response.end("{}");
    else if (path.includes("/manifests/")) response.end(manifest);
    else {
      const bytes = blobs.get(path.split("/").pop() ?? "");
      if (bytes === undefined) response.writeHead(404).end("{}");
      else response.end(bytes);
    }
  }

  it("a token from another server, for which the password goes there alone; redirects do not carry it", async () => {
    const seen: string[] = [];
    await withServer(
      (request, response) => {
        seen.push(`store ${String(request.headers.authorization)}`);
        response.end(blobs.get(`sha256:${(request.url ?? "").slice(1)}`));
      },
      async (store) => {
        await withServer(
          (request, response, host) => {
            const path = request.url ?? "";
            if (path.startsWith("/token")) {
              seen.push(`token ${String(request.headers.authorization)} ${path}`);
              response.end('{"token":"t0"}');
            } else if (path !== "/v2/" && request.headers.authorization !== "Bearer t0") {
              response
                .writeHead(401, { "www-authenticate": `Bearer realm="http://${host}/token",service="s v"` })
                .end();
            } else if (path.includes("/blobs/")) {
              response.writeHead(307, { location: `http://${store}/${path.split("sha256:")[1] ?? ""}` }).end();
            } else serve(request, response);
          },
          async (host) => {
            writeFileSync(
              join(folder, "docker", "config.json"),
              JSON.stringify({ auths: { [host]: { auth: Buffer.from("u:p:q").toString("base64") } } }),
            );
            assert.equal((await prepare(`docker://${host}/app`)).id, sha256(configOf(IMAGE)));
          },
        );
      },
    );
    const basic = `Basic ${Buffer.from("u:p:q").toString("base64")}`;
    assert.ok(seen.includes(`token ${basic} /token?service=s+v&scope=repository%3Aapp%3Apull`), seen.join("\n"));
    assert.deepEqual([...new Set(seen.filter((line) => line.startsWith("store")))], ["store undefined"]);
  });

  it("a download that breaks off goes on from there, also where the registry begins again", async () => {
    for (const canRange of [true, false]) {
      let cuts = 0;
      const ranges: string[] = [];
      await withServer(
        (request, response) => {
          const bytes = blobs.get((request.url ?? "").split("/").pop() ?? "");
          if (bytes === undefined || bytes.length < 50_000) {
            serve(request, response);
            return;
          }
          const [, start = "0"] = /^bytes=(\d+)-$/.exec(request.headers.range ?? "") ?? [];
          ranges.push(start);
          const from = canRange ? Number(start) : 0;
          response.writeHead(from > 0 ? 206 : 200, { "content-length": String(bytes.length - from) });
          if (cuts++ < 2) {
            response.write(bytes.subarray(from, from + 20_000 * cuts));
            setTimeout(() => response.destroy(), 50);
          } else response.end(bytes.subarray(from));
        },
        async (host) => {
          assert.equal((await prepare(`docker://${host}/app`)).id, sha256(configOf(IMAGE)));
          assert.equal(ranges.length, 3);
          assert.ok(Number(ranges[1]) > 0 && Number(ranges[2]) >= Number(ranges[1]), ranges.join());
        },
      );
      rmSync(cache, { recursive: true });
    }
  });

  it("what a registry does wrong is refused: digests, endless answers, circles, blobs that are longer or gone", async () => {
    const cases: [(request: IncomingMessage, response: ServerResponse, host: string) => boolean, RegExp][] = [
      [
        (request, response) => (request.url ?? "").includes("/blobs/") && (response.end("wrong"), true),
        /has the digest sha256:|shorter/,
      ],
      [
        (request, response) => (request.url ?? "").includes("/manifests/") && (response.end("{}"), true),
        /is not a|no image/,
      ],
      [
        (request, response) =>
          (request.url ?? "").includes("/manifests/") && (response.end(Buffer.alloc(9_000_000, 32)), true),
        /more than 8388608 bytes/,
      ],
      [
        (request, response, host) =>
          request.url !== "/v2/" && (response.writeHead(302, { location: `http://${host}/x` }).end(), true),
        /leads to more than 10 other places/,
      ],
      [
        (request, response) =>
          request.url !== "/v2/" && (response.writeHead(302, { location: "file:///etc/passwd" }).end(), true),
        /leads to no address/,
      ],
      [
        (request, response) =>
          request.url !== "/v2/" && (response.writeHead(401, { "www-authenticate": "Digest x" }).end(), true),
        /wants "Digest", which is not known/,
      ],
      [
        (request, response) =>
          request.url !== "/v2/" && (response.writeHead(418).end('{"errors":[{"message":"no \\u001b[2J tea"}]}'), true),
        /the registry says 418: no +\[2J tea/,
      ],
    ];
    for (const [isWrong, message] of cases) {
      await withServer(
        (request, response, host) => {
          if (!isWrong(request, response, host)) serve(request, response);
        },
        async (host) => {
          assert.match((await refusal(prepare(`docker://${host}/app`))).message, message);
        },
      );
    }
    const big = ociFiles({ layers: [[{ name: "x", body: "3" }]] });
    await withServer(
      (request, response) => {
        const path = request.url ?? "";
        if (path.includes("/manifests/")) response.end(big.manifest);
        else {
          const bytes = big.files.get(`blobs/sha256/${path.split("sha256:")[1] ?? ""}`);
          const isLayer = bytes !== undefined && bytes[0] === 0x1f;
          response.end(isLayer ? Buffer.concat([bytes, gzipSync(Buffer.alloc(100_000))]) : (bytes ?? "{}"));
        }
      },
      async (host) => {
        assert.match(
          (await refusal(prepare(`docker://${host}/app`))).message,
          /is longer than the \d+ bytes that were announced$/,
        );
      },
    );
    assert.match((await refusal(prepare("docker://127.0.0.1:1/app"))).message, /127\.0\.0\.1:1.*nobody listens there/);
  });

  it("called off while a registry is silent: at once, with the reason", async () => {
    await withServer(
      (request, response) => {
        if (request.url === "/v2/") response.end();
      },
      async (host) => {
        const stop = new AbortController();
        setTimeout(() => stop.abort(new Error("enough")), 100);
        const startMs = performance.now();
        await assert.rejects(prepare(`docker://${host}/app`, { signal: stop.signal }), /^Error: enough$/);
        assert.ok(performance.now() - startMs < 10_000);
      },
    );
  });

  it("without an engine, its images are not there; a plain name leads on to the registry", async () => {
    assert.match((await refusal(prepare("docker-daemon:app"))).message, /none\.sock: there is no Docker engine$/);
    process.env["DOCKER_HOST"] = "tcp://127.0.0.1:1";
    assert.match((await refusal(prepare("docker-daemon:app"))).message, /only engines on this host/);
    assert.match((await refusal(prepare("127.0.0.1:1/app"))).message, /nobody listens there/);
  });

  it("an image of the Docker engine, once for each state of its name", async function () {
    const why = whyNoDocker();
    if (why !== undefined) skip(this, why);
    const docker = await openDocker();
    try {
      const host = docker.client.find((word) => word.startsWith("unix://")) ?? assert.fail(docker.client.join(" "));
      process.env["DOCKER_HOST"] = host;
      const archive = join(folder, "image.tar");
      const load = (image: MadeImage): void => {
        writeFileSync(archive, dockerArchive({ ...image, tags: ["app:1"] }));
        const [program = "", ...words] = docker.client;
        runProgram(program, [...words, "load", "-i", archive]);
      };
      load(IMAGE);
      for (const name of ["docker-daemon:app:1", "app:1"]) {
        const image = await prepare(name);
        assert.deepEqual([...readErofs(readParts(image.manifestPath)).keys()].sort(), ["", "a", "b"]);
        assert.deepEqual(image.config.cmd, ["/a"]);
      }
      const downloads: string[] = [];
      await prepare("docker-daemon:app:1", { onProgress: ({ phase }) => downloads.push(phase) });
      assert.deepEqual(downloads, []);
      load({ layers: [[{ name: "other", body: "3" }]] });
      const other = await prepare("docker-daemon:app:1");
      assert.deepEqual([...readErofs(readParts(other.manifestPath)).keys()].sort(), ["", "other"]);
      assert.match((await refusal(prepare("docker-daemon:none:1"))).message, /the engine does not have it$/);
    } finally {
      await docker.close();
    }
  });
});
