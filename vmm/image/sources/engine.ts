// An image of a Docker engine on this host: its API over its socket, as `docker save` uses it.
import { statSync } from "node:fs";
import { ImageError } from "../../errors.js";
import { digitsOf, Json } from "../json.js";
import { Archive } from "./archive.js";
import { dockerArchive } from "./docker-archive.js";
import { explainAnswer, readBody, request, type HttpAnswer } from "./http.js";
import { parseName } from "./registry-name.js";
import type { ImageSource, SourceContext } from "./source.js";

const DEFAULT_SOCKET = "/var/run/docker.sock";
const MAX_ANSWER = 8 * 1024 * 1024;

export interface EngineImage {
  /** As the engine knows it: 64 hexadecimal digits. */
  readonly digest: string;
  open(): Promise<ImageSource>;
}

/** Undefined where there is no engine, or only one that is not here. */
export function engineSocket(): string | undefined {
  const host = process.env["DOCKER_HOST"] ?? "";
  const path = host === "" ? DEFAULT_SOCKET : host.startsWith("unix://") ? host.slice("unix://".length) : undefined;
  return path !== undefined && statSync(path, { throwIfNoEntry: false })?.isSocket() === true ? path : undefined;
}

/** `name`: as `formatName` writes it. Undefined if the engine has none. Throws ImageError. */
export async function findInEngine(name: string, context: SourceContext): Promise<EngineImage | undefined> {
  const { DOCKER_HOST: host = "" } = process.env;
  const socketPath = engineSocket();
  if (socketPath === undefined) {
    if (host !== "" && !host.startsWith("unix://")) {
      throw new ImageError(`DOCKER_HOST is ${host.slice(0, 100)}: only engines on this host can be asked, by unix://`);
    }
    throw new ImageError(`${host === "" ? DEFAULT_SOCKET : host}: there is no Docker engine`, {
      cure: "start it, or say where it is: DOCKER_HOST=unix:///path/to/socket",
    });
  }
  const short = familiar(name);
  const ask = (path: string): Promise<HttpAnswer> =>
    request(new URL(path, "http://docker"), { socketPath, signal: context.signal });
  const answer = await ask(`/images/${short}/json`);
  if (answer.status === 404) {
    answer.body.destroy();
    return undefined;
  }
  if (answer.status !== 200)
    throw new ImageError(`${socketPath}: ${short}: the engine says ${await explainAnswer(answer)}`);
  const json = Json.parse(await readBody(answer, MAX_ANSWER, socketPath), `${socketPath}: ${short}`, MAX_ANSWER);
  const digest = digitsOf(json.at("Id").digest());
  const open = async (): Promise<ImageSource> => {
    const saved = await ask(`/images/get?names=${encodeURIComponent(short)}`);
    if (saved.status !== 200)
      throw new ImageError(`${socketPath}: ${short}: the engine says ${await explainAnswer(saved)}`);
    const stream = saved.body as AsyncIterable<Buffer>;
    const archive = await Archive.spool(`docker-daemon:${short}`, stream, undefined, context);
    try {
      return await dockerArchive(archive, "", context.limits);
    } catch (error) {
      await archive.close();
      throw error;
    }
  };
  return { digest, open };
}

/** Engines know images of Docker's own registry by their short names. */
function familiar(name: string): string {
  const parsed = parseName(name);
  if (parsed === undefined) return name;
  const { host, path, tag, digest } = parsed;
  const start = host === "docker.io" ? path.replace(/^library\//, "") : `${host}/${path}`;
  return `${start}${tag === undefined ? "" : `:${tag}`}${digest === undefined ? "" : `@${digest}`}`;
}
