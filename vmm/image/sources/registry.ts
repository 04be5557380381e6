// An image of a registry: distribution-spec v1.1, "Pull". What is downloaded goes straight into the cache; what breaks off
// goes on from where it was.
import { ImageError } from "../../errors.js";
import { readImageConfig } from "../image-config.js";
import { digitsOf } from "../json.js";
import { checkDigest } from "../layer-store.js";
import type { ImageLimits } from "../types.js";
import { explainAnswer, isLoopback, readBody, request, show, type HttpAnswer, type HttpOptions } from "./http.js";
import { chooseEntry, INDEX_TYPES, MANIFEST_TYPES, readManifest, type Descriptor } from "./manifest.js";
import { formatName, type RegistryName } from "./registry-name.js";
import { RegistryLogin } from "./registry-login.js";
import { sha256 } from "../../sys/sha256.js";
import type { ImageSource, SourceContext } from "./source.js";

const ACCEPT = [...MANIFEST_TYPES, ...INDEX_TYPES].join(", ");
const MAX_DEPTH = 4;
/** A download that breaks off is tried again so often, if it has come further each time or not. */
const TRIES = 6;
const RETRY_MS = 500;
const TRANSIENT = [408, 429, 500, 502, 503, 504];
/** How Docker's own registry is reached. */
const DOCKER_HUB = "registry-1.docker.io";

/** What a name leads to now. */
export interface RegistryImage {
  /** Digest of the manifest, 64 hexadecimal digits. */
  readonly digest: string;
  open(): Promise<ImageSource>;
}

/** Throws ImageError. */
export async function findInRegistry(name: RegistryName, { limits, signal }: SourceContext): Promise<RegistryImage> {
  const registry = await Registry.connect(name, signal);
  const { bytes, digest } = await registry.manifest(name.digest ?? name.tag ?? "latest", limits);
  return { digest, open: () => openImage(registry, bytes, digest, limits) };
}

async function openImage(registry: Registry, first: Buffer, digest: string, limits: ImageLimits): Promise<ImageSource> {
  let bytes = first;
  let what = `${registry.name}: manifest ${digest}`;
  for (let depth = 0; depth < MAX_DEPTH; depth++) {
    const manifest = readManifest(bytes, what, limits);
    if (manifest.is === "image") {
      const config = await registry.smallBlob(manifest.config, limits);
      // Refused before anything is downloaded.
      readImageConfig(config, limits);
      const layers = manifest.layers.map((layer) => ({
        digest: layer.digest,
        size: layer.size,
        open: () => registry.blob(layer),
      }));
      return { config, layers, close: () => Promise.resolve() };
    }
    const entry = chooseEntry(manifest.entries, registry.name);
    what = `${registry.name}: manifest ${entry.digest}`;
    ({ bytes } = await registry.manifest(`sha256:${entry.digest}`, limits));
  }
  throw new ImageError(`${registry.name}: more than ${String(MAX_DEPTH)} indexes in one another`);
}

class Registry {
  readonly name: string;
  readonly #base: URL;
  readonly #path: string;
  readonly #login: RegistryLogin;
  readonly #signal: AbortSignal | undefined;

  private constructor(name: RegistryName, base: URL, login: RegistryLogin, signal: AbortSignal | undefined) {
    this.name = formatName(name);
    this.#base = base;
    this.#path = name.path;
    this.#login = login;
    this.#signal = signal;
  }

  static async connect(name: RegistryName, signal: AbortSignal | undefined): Promise<Registry> {
    const host = name.host === "docker.io" ? DOCKER_HUB : name.host;
    const base = await baseOf(host, signal);
    return new Registry(name, base, new RegistryLogin(name.host, name.path, signal), signal);
  }

  async manifest(reference: string, limits: ImageLimits): Promise<{ bytes: Buffer; digest: string }> {
    const answer = await this.#get(`manifests/${reference}`, { accept: ACCEPT });
    if (answer.status !== 200) throw await this.#refused(answer, `manifest ${reference}`);
    const bytes = await readBody(answer, limits.jsonBytes, `${this.name}: manifest ${reference}`);
    const digest = sha256(bytes);
    if (reference.startsWith("sha256:")) checkDigest(`${this.name}: manifest`, digest, digitsOf(reference));
    return { bytes, digest };
  }

  async smallBlob({ digest, size }: Descriptor, limits: ImageLimits): Promise<Buffer> {
    const what = `${this.name}: the configuration`;
    if (size > limits.jsonBytes)
      throw new ImageError(`${what}: ${String(size)} bytes, more than ${String(limits.jsonBytes)}`);
    const answer = await this.#get(`blobs/sha256:${digest}`, {});
    if (answer.status !== 200) throw await this.#refused(answer, `blob sha256:${digest}`);
    const bytes = await readBody(answer, limits.jsonBytes, what);
    checkDigest(what, sha256(bytes), digest);
    return bytes;
  }

  /** The bytes of a layer, over as many connections as it takes. */
  async *blob({ digest, size }: Descriptor): AsyncGenerator<Buffer> {
    let done = 0;
    for (let left = TRIES; ; left--) {
      try {
        const range: Record<string, string> = done === 0 ? {} : { range: `bytes=${String(done)}-` };
        const answer = await this.#get(`blobs/sha256:${digest}`, range);
        if (answer.status !== 200 && answer.status !== 206) throw await this.#refused(answer, `blob sha256:${digest}`);
        // One that cannot begin in the middle begins again.
        let skip = answer.status === 200 ? done : 0;
        for await (const chunk of answer.body as AsyncIterable<Buffer>) {
          const fresh = chunk.subarray(Math.min(skip, chunk.length));
          skip -= chunk.length - fresh.length;
          if (fresh.length === 0) continue;
          done += fresh.length;
          yield fresh;
        }
        if (done >= size) return;
        throw new TransientError(`${this.name}: blob sha256:${digest} came to an end after ${String(done)} bytes`);
      } catch (error) {
        if (left <= 1 || this.#signal?.aborted === true || !isTransient(error) || done >= size)
          throw plain(error, this.name);
        await pause(RETRY_MS * (TRIES - left + 1), this.#signal);
      }
    }
  }

  async #get(path: string, headers: Readonly<Record<string, string>>): Promise<HttpAnswer> {
    const url = new URL(`/v2/${this.#path}/${path}`, this.#base);
    for (let isFirst = true; ; isFirst = false) {
      const options: HttpOptions = { headers: { ...headers, ...this.#login.headers }, signal: this.#signal };
      const answer = await request(url, options);
      if (answer.status !== 401 || !isFirst) return answer;
      answer.body.destroy();
      await this.#login.answer(answer.headers["www-authenticate"] ?? "", url);
    }
  }

  async #refused(answer: HttpAnswer, what: string): Promise<ImageError> {
    const words = await explainAnswer(answer);
    if (TRANSIENT.includes(answer.status)) return new TransientError(`${this.name}: ${what}: ${words}`);
    if (answer.status === 401 || answer.status === 403) {
      return new ImageError(`${this.name}: the registry does not let us have it (${words})`, {
        cure: "log in to it: docker login; or look whether the name is right",
      });
    }
    if (answer.status === 404) return new ImageError(`${this.name}: the registry does not have it (${words})`);
    return new ImageError(`${this.name}: ${what}: the registry says ${words}`);
  }
}

/** It may go better the next time. */
class TransientError extends ImageError {}

function isTransient(error: unknown): boolean {
  return error instanceof TransientError || !(error instanceof ImageError) || error.cause !== undefined;
}

function plain(error: unknown, name: string): unknown {
  if (error instanceof ImageError) return error;
  const { code, message } = error as NodeJS.ErrnoException;
  if (code === undefined) return error;
  return new ImageError(`${name}: the connection broke off (${code}): ${message}`, { cause: error });
}

/** HTTPS; on this host's loopback HTTP, if that is what is spoken there. */
async function baseOf(host: string, signal: AbortSignal | undefined): Promise<URL> {
  const secure = new URL(`https://${host}`);
  if (!isLoopback(secure)) return secure;
  const open = new URL(`http://${host}`);
  try {
    const answer = await request(new URL("/v2/", open), { signal });
    answer.body.destroy();
    // What a server says that wants HTTPS.
    return answer.status === 400 ? secure : open;
  } catch (error) {
    signal?.throwIfAborted();
    const { code = "" } = ((error as Error).cause ?? {}) as NodeJS.ErrnoException;
    if (code === "ECONNREFUSED") throw new ImageError(`${show(open)}: nobody listens there`, { cause: error });
    return secure;
  }
}

function pause(ms: number, signal: AbortSignal | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    const stop = (): void => {
      clearTimeout(timer);
      reject(signal?.reason instanceof Error ? signal.reason : new Error("called off"));
    };
    const timer = setTimeout(() => {
      signal?.removeEventListener("abort", stop);
      resolve();
    }, ms);
    signal?.addEventListener("abort", stop, { once: true });
  });
}
