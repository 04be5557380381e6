// How a registry is told who asks: RFC 7617 (Basic), and tokens of a server of its own, distribution's "Token
// Authentication". The password goes to nobody who could be somebody else.
import { ImageError } from "../../errors.js";
import { Json } from "../json.js";
import { credentialsFor, type Credentials } from "./credentials.js";
import { explainAnswer, isLoopback, readBody, request, show } from "./http.js";

const MAX_ANSWER = 1024 * 1024;

export class RegistryLogin {
  readonly #host: string;
  readonly #path: string;
  readonly #signal: AbortSignal | undefined;
  #authorization: string | undefined;

  constructor(host: string, path: string, signal: AbortSignal | undefined) {
    this.#host = host;
    this.#path = path;
    this.#signal = signal;
  }

  get headers(): Readonly<Record<string, string>> {
    return this.#authorization === undefined ? {} : { authorization: this.#authorization };
  }

  /** `challenge`: what the registry wants. Throws ImageError. */
  async answer(challenge: string, url: URL): Promise<void> {
    const credentials = await credentialsFor(this.#host);
    const [, scheme = "", rest = ""] = /^\s*(\w+)\s*(.*)$/s.exec(challenge) ?? [];
    if (scheme.toLowerCase() === "basic") {
      if (credentials === undefined) {
        throw new ImageError(`${this.#host}: the registry wants a user and a password`, {
          cure: `docker login ${this.#host}`,
        });
      }
      mustBePrivate(url);
      this.#authorization = basic(credentials);
    } else if (scheme.toLowerCase() === "bearer") {
      this.#authorization = `Bearer ${await this.#token(parameters(rest), credentials)}`;
    } else throw new ImageError(`${this.#host}: the registry wants "${scheme.slice(0, 40)}", which is not known`);
  }

  async #token(challenge: ReadonlyMap<string, string>, credentials: Credentials | undefined): Promise<string> {
    const realm = challenge.get("realm") ?? "";
    if (!URL.canParse(realm)) throw new ImageError(`${this.#host}: the registry does not say who gives tokens`);
    const url = new URL(realm);
    if (credentials !== undefined) mustBePrivate(url);
    const service = challenge.get("service") ?? "";
    const scope = challenge.get("scope") ?? `repository:${this.#path}:pull`;
    const identityToken = credentials?.identityToken;
    const answer =
      identityToken === undefined
        ? await this.#ask(url, service, scope, credentials)
        : await request(url, {
            method: "POST",
            headers: { "content-type": "application/x-www-form-urlencoded" },
            body: new URLSearchParams({
              grant_type: "refresh_token",
              refresh_token: identityToken,
              service,
              scope,
              client_id: "vmlet",
            }).toString(),
            signal: this.#signal,
          });
    if (answer.status !== 200) {
      throw new ImageError(`${show(url)}: gives no token (${await explainAnswer(answer)})`, {
        cure: `docker login ${this.#host}`,
      });
    }
    const json = Json.parse(await readBody(answer, MAX_ANSWER, show(url)), show(url), MAX_ANSWER);
    const token = json.atAny("token", "access_token").text();
    if (/[^\x21-\x7e]/.test(token)) throw new ImageError(`${show(url)}: gives no token that can be`);
    return token;
  }

  #ask(url: URL, service: string, scope: string, credentials: Credentials | undefined): ReturnType<typeof request> {
    if (service !== "") url.searchParams.set("service", service);
    url.searchParams.set("scope", scope);
    const headers: Record<string, string> = credentials === undefined ? {} : { authorization: basic(credentials) };
    return request(url, { headers, signal: this.#signal });
  }
}

function basic({ user, password }: Credentials): string {
  return `Basic ${Buffer.from(`${user}:${password}`).toString("base64")}`;
}

/** A password over HTTP could be read on the way, unless there is none. */
function mustBePrivate(url: URL): void {
  if (url.protocol === "https:" || (url.protocol === "http:" && isLoopback(url))) return;
  throw new ImageError(`${show(url)}: the registry wants a password over HTTP`);
}

/** name="value", name=value, …: RFC 9110 §11.2. */
function parameters(text: string): Map<string, string> {
  const found = new Map<string, string>();
  for (const [, name = "", quoted, plain] of text.matchAll(/([\w-]{1,50})\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))/g)) {
    found.set(name.toLowerCase(), quoted?.replace(/\\(.)/g, "$1") ?? plain ?? "");
  }
  return found;
}
