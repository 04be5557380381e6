// Who we are to a registry: Docker's config.json with its helpers, and the auth.json of Podman and skopeo.
import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { homedir } from "node:os";
import { join } from "node:path";
import { ImageError } from "../../errors.js";
import { findProgram } from "../../host/programs.js";
import { Json } from "../json.js";

export interface Credentials {
  readonly user: string;
  readonly password: string;
  /** In place of both: what an identity provider has given. */
  readonly identityToken: string | undefined;
}

const MAX_CONFIG = 4 * 1024 * 1024;
const HELPER_MS = 30_000;
/** How Docker calls its own registry there. */
const DOCKER_HUB_KEY = "https://index.docker.io/v1/";
const HELPER = /^[A-Za-z0-9._-]{1,100}$/;

/** Undefined where nothing is known. Throws ImageError for a file that cannot be, and a helper that fails. */
export async function credentialsFor(host: string): Promise<Credentials | undefined> {
  for (const path of configFiles()) {
    const json = readConfig(path);
    if (json === undefined) continue;
    const keys =
      host === "docker.io"
        ? [DOCKER_HUB_KEY, "docker.io", "index.docker.io"]
        : [host, `https://${host}`, `http://${host}`];
    const helpers = json.at("credHelpers");
    for (const key of keys) {
      const helper = helpers.isMissing ? "" : helpers.at(key).optionalText();
      if (helper !== "") return askHelper(helper, key);
    }
    const auths = json.at("auths");
    const store = json.at("credsStore").optionalText();
    for (const key of keys) {
      const auth = auths.isMissing ? undefined : auths.at(key);
      if (auth === undefined || auth.isMissing) continue;
      const found = readAuth(auth);
      if (found !== undefined) return found;
    }
    if (store !== "") {
      const found = await askHelper(store, keys[0] ?? host);
      if (found !== undefined) return found;
    }
  }
  return undefined;
}

function configFiles(): string[] {
  const { DOCKER_CONFIG: docker, REGISTRY_AUTH_FILE: file, XDG_RUNTIME_DIR: runtime } = process.env;
  return [
    ...(file === undefined || file === "" ? [] : [file]),
    join(docker === undefined || docker === "" ? join(homedir(), ".docker") : docker, "config.json"),
    ...(runtime === undefined || runtime === "" ? [] : [join(runtime, "containers/auth.json")]),
  ];
}

function readConfig(path: string): Json | undefined {
  let bytes: Buffer;
  try {
    bytes = readFileSync(path);
  } catch {
    return undefined;
  }
  return Json.parse(bytes, path, MAX_CONFIG);
}

function readAuth(json: Json): Credentials | undefined {
  const identityToken = json.at("identitytoken").optionalText();
  const text = Buffer.from(json.at("auth").optionalText(), "base64").toString("utf8");
  const colon = text.indexOf(":");
  if (colon < 0 && identityToken === "") return undefined;
  return {
    user: text.slice(0, Math.max(colon, 0)),
    // Docker pads with zero bytes.
    password: text.slice(colon + 1).replace(/\0+$/, ""),
    identityToken: identityToken === "" ? undefined : identityToken,
  };
}

/** `docker-credential-NAME get`: the registry on its standard input, JSON on its output. */
async function askHelper(name: string, key: string): Promise<Credentials | undefined> {
  const program = HELPER.test(name) ? findProgram(`docker-credential-${name}`) : undefined;
  if (program === undefined) {
    throw new ImageError(
      `Docker's configuration wants credentials from docker-credential-${name.slice(0, 100)}, which is not there`,
    );
  }
  const { error, output } = await new Promise<{ error: Error | null; output: string }>((resolve) => {
    const child = execFile(program, ["get"], { timeout: HELPER_MS, maxBuffer: MAX_CONFIG }, (failure, stdout) => {
      resolve({ error: failure, output: stdout });
    });
    child.stdin?.on("error", () => undefined);
    child.stdin?.end(key);
  });
  if (/credentials not found/i.test(output)) return undefined;
  if (error !== null) throw new ImageError(`${program} has no credentials for ${key}`, { cause: error });
  const json = Json.parse(Buffer.from(output), program, MAX_CONFIG);
  const user = json.at("Username").optionalText();
  const password = json.at("Secret").optionalText();
  return { user, password, identityToken: user === "<token>" ? password : undefined };
}
