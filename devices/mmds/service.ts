// What the metadata service answers, as Firecracker's does: values of one JSON document by their paths, as JSON or in the
// form of EC2's service; with version 2, only to those who show a token, which they get here, too.
import type { HttpRequest, HttpResponse } from "./http.js";

/** Where the document comes from; undefined is one that nobody has given yet. */
export interface MmdsSource {
  readonly value: unknown;
}

/** Tokens that cannot be guessed, and are good for as long as was asked. */
export interface MmdsTokens {
  issue(seconds: number): string;
  isValid(token: string): boolean;
}

export interface MmdsServiceOptions {
  readonly version: "V1" | "V2";
  /** Answers are in EC2's form, whatever the request asks for. */
  readonly imdsCompat: boolean;
  readonly source: MmdsSource;
  readonly tokens: MmdsTokens;
}

const TOKEN_PATH = "/latest/api/token";
/** The names of Firecracker and of EC2. */
const TOKEN_HEADERS = ["X-metadata-token", "X-aws-ec2-metadata-token"];
const SECONDS_HEADERS = ["X-metadata-token-ttl-seconds", "X-aws-ec2-metadata-token-ttl-seconds"];
const MAX_TOKEN_SECONDS = 6 * 60 * 60;

/** Answers requests; keeps nothing between them. */
export function mmdsService(options: MmdsServiceOptions): (request: HttpRequest) => HttpResponse {
  return (request) => {
    if (request.path === "") return text(400, "There is no path");
    if (request.method === "GET") return get(request, options);
    if (request.method === "PUT") return putToken(request, options.tokens);
    return { ...text(405, `${request.method} is not GET or PUT`), headers: { Allow: "GET, PUT" } };
  };
}

function get(request: HttpRequest, { version, imdsCompat, source, tokens }: MmdsServiceOptions): HttpResponse {
  if (version === "V2") {
    const token = header(request, TOKEN_HEADERS)?.value;
    if (token === undefined) return text(401, `There is no token: give it as ${TOKEN_HEADERS.join(" or ")}`);
    if (!tokens.isValid(token)) return text(401, "The token is not valid, or not any more");
  }
  const value = valueAt(source.value ?? null, request.path);
  if (value === undefined) return text(404, `There is no ${request.path}`);
  if (!imdsCompat && accepts(request, "application/json")) {
    return asJson(value, request.path);
  }
  const shown = inTextForm(value);
  if (shown === undefined)
    return text(501, `${request.path} is neither text nor an object, and can only be had as JSON`);
  return text(200, shown);
}

function asJson(value: unknown, path: string): HttpResponse {
  try {
    return { status: 200, type: "application/json", body: JSON.stringify(value) };
  } catch (error) {
    // So deep that writing it out ends the stack.
    if (!(error instanceof RangeError)) throw error;
    return text(501, `${path} is too deep`);
  }
}

function putToken(request: HttpRequest, tokens: MmdsTokens): HttpResponse {
  // What comes through a proxy is not this guest's, and the token would be whoever's.
  if (request.headers.has("x-forwarded-for")) return text(400, "X-Forwarded-For is not taken");
  if (normalized(request.path) !== TOKEN_PATH) return text(404, `There is no ${request.path} to PUT; ${TOKEN_PATH} is`);
  const given = header(request, SECONDS_HEADERS);
  if (given === undefined) return text(400, `There is no lifetime: give it as ${SECONDS_HEADERS.join(" or ")}`);
  const seconds = /^\d{1,10}$/.test(given.value) ? Number(given.value) : NaN;
  if (!(seconds >= 1 && seconds <= MAX_TOKEN_SECONDS)) {
    const limit = `a number from 1 to ${String(MAX_TOKEN_SECONDS)}`;
    return text(400, `${given.name} ${JSON.stringify(given.value.slice(0, 20))} is not ${limit}`);
  }
  return { ...text(200, tokens.issue(seconds)), headers: { [given.name]: String(seconds) } };
}

function text(status: number, body: string): HttpResponse {
  return { status, type: "text/plain", body };
}

function header({ headers }: HttpRequest, names: readonly string[]): { name: string; value: string } | undefined {
  for (const name of names) {
    const value = headers.get(name.toLowerCase());
    if (value !== undefined) return { name, value };
  }
  return undefined;
}

function accepts({ headers }: HttpRequest, type: string): boolean {
  const accepted = headers.get("accept")?.toLowerCase().split(",") ?? [];
  return accepted.some((one) => one.split(";", 1)[0]?.trim() === type);
}

/** Without the slashes that are too many. */
function normalized(path: string): string {
  return path.replace(/\/{2,}/g, "/");
}

/** JSON Pointer, RFC 6901, which may end in a slash; undefined if nothing is there. */
function valueAt(document: unknown, path: string): unknown {
  const pointer = normalized(path).replace(/\/$/, "");
  if (pointer === "") return document;
  if (!pointer.startsWith("/")) return undefined;
  let value = document;
  for (const step of pointer.slice(1).split("/")) {
    const name = step.replaceAll("~1", "/").replaceAll("~0", "~");
    if (Array.isArray(value)) {
      value = /^(?:0|[1-9]\d{0,15})$/.test(name) ? (value as unknown[])[Number(name)] : undefined;
    } else if (isObject(value) && Object.hasOwn(value, name)) {
      value = value[name];
    } else {
      return undefined;
    }
  }
  return value;
}

/** Text as it is, and of an object the names in it, those of objects with a slash behind; undefined for all else. */
function inTextForm(value: unknown): string | undefined {
  if (typeof value === "string") return value;
  if (!isObject(value)) return undefined;
  return Object.keys(value)
    .sort()
    .map((name) => (isObject(value[name]) ? `${name}/` : name))
    .join("\n");
}

function isObject(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
