// Debian's docker-registry on a free port of the loopback, with a folder of its own.
import { spawn } from "node:child_process";
import { createServer, type AddressInfo } from "node:net";
import { writeFileSync } from "node:fs";
import { join } from "node:path";
import { findProgram } from "../../vmm/host/programs.js";
import { ociFiles, sha256, type MadeImage } from "./image-archives.js";

export interface TestRegistry {
  /** HOST:PORT */
  readonly host: string;
  /** Puts an image there as NAME:TAG; the manifest's digest. */
  push(image: MadeImage, name: string, tag: string): Promise<string>;
  /** Puts any manifest there. */
  pushManifest(name: string, tag: string, manifest: string, mediaType: string): Promise<void>;
  close(): Promise<void>;
}

export function whyNoRegistry(): string | undefined {
  return findProgram("docker-registry") === undefined
    ? "no program docker-registry (Debian: docker-registry)"
    : undefined;
}

/** `htpasswd`: who may use it, as Apache's htpasswd -B writes it, and the header that says so. */
export async function startRegistry(
  folder: string,
  login?: { readonly htpasswd: string; readonly authorization: string },
): Promise<TestRegistry> {
  const host = `127.0.0.1:${String(await freePort())}`;
  if (login !== undefined) writeFileSync(join(folder, "htpasswd"), login.htpasswd);
  const auth = login === undefined ? "" : `auth: {htpasswd: {realm: test, path: ${join(folder, "htpasswd")}}}\n`;
  const config = `version: 0.1\nlog: {level: error}\nstorage: {filesystem: {rootdirectory: ${folder}}, delete: {enabled: true}}\nhttp: {addr: "${host}"}\n${auth}`;
  writeFileSync(join(folder, "config.yml"), config);
  const child = spawn(findProgram("docker-registry") ?? "", ["serve", join(folder, "config.yml")], { stdio: "ignore" });
  const ended = new Promise((resolve) => child.once("close", resolve));
  const headers: Record<string, string> = login === undefined ? {} : { authorization: login.authorization };
  for (let tries = 0; ; tries++) {
    const answer = await fetch(`http://${host}/v2/`, { headers }).catch(() => undefined);
    if (answer?.ok === true) break;
    if (tries > 200) throw new Error("The registry does not start");
    await new Promise((resolve) => setTimeout(resolve, 50));
  }
  const must = async (answer: Response): Promise<Response> => {
    if (!answer.ok) throw new Error(`${String(answer.status)} ${await answer.text()}`);
    return answer;
  };
  const pushManifest = async (name: string, tag: string, manifest: string, mediaType: string): Promise<void> => {
    const url = `http://${host}/v2/${name}/manifests/${tag}`;
    await must(await fetch(url, { method: "PUT", body: manifest, headers: { ...headers, "content-type": mediaType } }));
  };
  return {
    host,
    pushManifest,
    push: async (image, name, tag) => {
      const { files, manifest } = ociFiles(image);
      for (const [path, bytes] of files) {
        if (!path.startsWith("blobs/")) continue;
        const started = await must(
          await fetch(`http://${host}/v2/${name}/blobs/uploads/`, { method: "POST", headers }),
        );
        const to = new URL(started.headers.get("location") ?? "", `http://${host}`);
        to.searchParams.set("digest", `sha256:${sha256(bytes)}`);
        await must(
          await fetch(to, {
            method: "PUT",
            body: new Uint8Array(bytes),
            headers: { ...headers, "content-type": "application/octet-stream" },
          }),
        );
      }
      // The manifest says of itself what it is.
      const text = JSON.stringify({
        ...(JSON.parse(manifest.toString()) as object),
        mediaType: "application/vnd.oci.image.manifest.v1+json",
      });
      await pushManifest(name, tag, text, "application/vnd.oci.image.manifest.v1+json");
      return sha256(text);
    },
    close: async () => {
      child.kill();
      await ended;
    },
  };
}

async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
