// HTTP as registries and engines are asked: one answer a question, redirects followed, silence ended.
import type { IncomingMessage, RequestOptions } from "node:http";
import { readFileSync, readdirSync } from "node:fs";
import { join } from "node:path";
import { ImageError } from "../../errors.js";
import { errnoText } from "../../host/errno-text.js";

/** Nothing comes for so long: the other side has gone. `ms` */
const SILENCE_MS = 60_000;
const MAX_REDIRECTS = 10;
/** Debian's and Red Hat's files of the authorities that the system trusts. */
const SYSTEM_CERTIFICATES = ["/etc/ssl/certs/ca-certificates.crt", "/etc/pki/tls/certs/ca-bundle.crt"];
const MAX_SHOWN = 300;

export interface HttpOptions {
  readonly method?: "GET" | "HEAD" | "POST";
  readonly headers?: Readonly<Record<string, string>>;
  readonly body?: string;
  readonly signal?: AbortSignal | undefined;
  /** Of an engine on this host, instead of the URL's host. */
  readonly socketPath?: string;
}

export interface HttpAnswer {
  readonly status: number;
  readonly headers: IncomingMessage["headers"];
  readonly body: IncomingMessage;
}

/** The answer, whatever its status; its body is to be read, or thrown away. Throws ImageError where there is none. */
export async function request(url: URL, options: HttpOptions = {}): Promise<HttpAnswer> {
  let headers = { "user-agent": "vmlet", ...options.headers };
  let target = url;
  for (let redirects = 0; redirects <= MAX_REDIRECTS; redirects++) {
    const answer = await ask(target, { ...options, headers });
    const { location } = answer.headers;
    if (![301, 302, 303, 307, 308].includes(answer.status) || location === undefined) return answer;
    answer.body.destroy();
    const next = URL.canParse(location, target.href) ? new URL(location, target) : undefined;
    if (next === undefined || !["http:", "https:"].includes(next.protocol)) {
      throw new ImageError(`${show(target)}: leads to no address`);
    }
    if (target.protocol === "https:" && next.protocol === "http:") {
      throw new ImageError(`${show(target)}: leads from HTTPS to HTTP, where anybody could answer`);
    }
    // What a registry is told is nobody else's.
    if (next.host !== target.host) {
      headers = Object.fromEntries(
        Object.entries(headers).filter(([name]) => name !== "authorization"),
      ) as typeof headers;
    }
    target = next;
  }
  throw new ImageError(`${show(url)}: leads to more than ${String(MAX_REDIRECTS)} other places`);
}

async function ask(
  url: URL,
  { method = "GET", headers = {}, body, signal, socketPath }: HttpOptions,
): Promise<HttpAnswer> {
  signal?.throwIfAborted();
  const isSecure = url.protocol === "https:";
  const { request: start } = isSecure ? await import("node:https") : await import("node:http");
  const settings: RequestOptions = {
    method,
    headers: body === undefined ? headers : { ...headers, "content-length": String(Buffer.byteLength(body)) },
    // A connection each: nothing is left open behind an answer.
    agent: false,
    ...(socketPath === undefined ? {} : { socketPath }),
    ...(isSecure ? { ca: await authorities(url.host) } : {}),
  };
  return new Promise((resolve, reject) => {
    const sent = start(url, settings, (answer) => {
      answer.once("close", () => signal?.removeEventListener("abort", stop));
      resolve({ status: answer.statusCode ?? 0, headers: answer.headers, body: answer });
    });
    const stop = (): void => {
      sent.destroy(signal?.reason instanceof Error ? signal.reason : new Error("called off"));
    };
    signal?.addEventListener("abort", stop, { once: true });
    sent.setTimeout(SILENCE_MS, () =>
      sent.destroy(new ImageError(`${show(url)}: no answer for ${String(SILENCE_MS / 1000)} s`)),
    );
    sent.once("error", (error) => {
      signal?.removeEventListener("abort", stop);
      reject(signal?.aborted === true ? reasonOf(signal) : connectionError(url, socketPath, error));
    });
    sent.end(body);
  });
}

function reasonOf(signal: AbortSignal): Error {
  return signal.reason instanceof Error ? signal.reason : new Error("called off");
}

/** A failed system call has no message that a user understands. */
export function connectionError(url: URL, socketPath: string | undefined, error: Error): Error {
  if (error instanceof ImageError) return error;
  const { code = "" } = error as NodeJS.ErrnoException;
  const where = socketPath ?? url.host;
  const words = code === "ENOTFOUND" || code === "EAI_AGAIN" ? `no such host (${code})` : errnoText(code);
  return new ImageError(`${where}: ${code === "" ? error.message : words}`, { cause: error });
}

/** All of a body that is short. Throws ImageError. */
export async function readBody({ body }: HttpAnswer, maxBytes: number, what: string): Promise<Buffer> {
  const pieces: Buffer[] = [];
  let length = 0;
  for await (const chunk of body as AsyncIterable<Buffer>) {
    length += chunk.length;
    if (length > maxBytes) throw new ImageError(`${what}: more than ${String(maxBytes)} bytes`);
    pieces.push(chunk);
  }
  return Buffer.concat(pieces);
}

/** What an answer that is no good says, in a line. */
export async function explainAnswer(answer: HttpAnswer): Promise<string> {
  let text = "";
  try {
    text = (await readBody(answer, 64 * 1024, "")).toString("utf8");
    const json = JSON.parse(text) as { message?: unknown; errors?: { message?: unknown; code?: unknown }[] };
    const message = json.message ?? json.errors?.[0]?.message ?? json.errors?.[0]?.code;
    if (typeof message === "string") text = message;
  } catch {
    // Not JSON: as it is.
  }
  const line = text
    .replace(/[^\x20-\x7e]+/g, " ")
    .trim()
    .slice(0, MAX_SHOWN);
  return `${String(answer.status)}${line === "" ? "" : `: ${line}`}`;
}

export function isLoopback({ hostname }: URL): boolean {
  return hostname === "localhost" || hostname === "[::1]" || /^127(?:\.\d{1,3}){3}$/.test(hostname);
}

/** A URL without what may be secret in it. */
export function show(url: URL): string {
  return `${url.protocol}//${url.host}${url.pathname}`.slice(0, MAX_SHOWN);
}

/** Node's, the system's, and those that Docker has for this registry. */
async function authorities(host: string): Promise<string[]> {
  const { rootCertificates } = await import("node:tls");
  const read = (path: string): string[] => {
    try {
      return [readFileSync(path, "utf8")];
    } catch {
      return [];
    }
  };
  const extra = process.env["NODE_EXTRA_CA_CERTS"];
  const folder = join("/etc/docker/certs.d", host);
  return [
    ...rootCertificates,
    ...SYSTEM_CERTIFICATES.flatMap(read),
    ...(extra === undefined ? [] : read(extra)),
    ...names(folder)
      .filter((name) => name.endsWith(".crt"))
      .flatMap((name) => read(join(folder, name))),
  ];
}

function names(folder: string): string[] {
  try {
    return readdirSync(folder);
  } catch {
    return [];
  }
}
