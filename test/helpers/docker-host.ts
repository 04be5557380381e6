// Docker for a test: an engine of our own (that of the ladder), and images that need no registry.
import { cpSync, existsSync, mkdirSync, readFileSync, rmSync, symlinkSync } from "node:fs";
import { dirname, join, resolve } from "node:path";
import { isRoot, program } from "../../bench/ladder/detect.js";
import { startEngine } from "../../bench/ladder/rungs/docker-engine.js";
import { runProgram } from "../../bench/ladder/run-program.js";
import { openWorkspace } from "../../bench/ladder/workspace.js";
import { cacheFolder } from "../../vmm/host/cache-folder.js";
import { findProgram } from "../../vmm/host/programs.js";
import { hostCertificates } from "./certificates.js";

export interface DockerHost {
  /** The client with the words that lead it to the engine. */
  readonly client: readonly string[];
  /** Folder of the test; goes with `close`. */
  readonly folder: string;
  /** Makes an image of a tree, `changes` as in a Dockerfile. */
  importTree(tree: string, image: string, changes?: readonly string[]): void;
  close(): Promise<void>;
}

/** Why there can be no engine here; undefined if there can. */
export function whyNoDocker(): string | undefined {
  if (!isRoot()) return "starting Docker's engine needs root";
  const missing = ["dockerd", "docker", "runc", "gcc", "cpio"].filter((name) => findProgram(name) === undefined);
  return missing.length === 0 ? undefined : `not installed: ${missing.join(", ")} (Debian: docker.io gcc cpio)`;
}

/** `options`: of the engine. */
export async function openDocker(options: readonly string[] = []): Promise<DockerHost> {
  const workspace = await openWorkspace(new AbortController().signal);
  try {
    const engine = await startEngine(workspace, program("docker"), options);
    const client = [program("docker"), ...engine.host];
    return {
      client,
      folder: workspace.folder,
      importTree: (tree, image, changes = []) => {
        const archive = join(workspace.folder, "image.tar");
        runProgram("tar", ["-C", tree, "-cf", archive, "."]);
        const words = changes.flatMap((change) => ["--change", change]);
        runProgram(program("docker"), [...engine.host, "import", ...words, archive, image]);
        rmSync(archive);
      },
      close: async () => {
        await engine.stop();
        workspace.close();
      },
    };
  } catch (error) {
    workspace.close();
    throw error;
  }
}

const BARE_IMAGE = "vmlet-bare:1";

/** Why a container with this host's /usr could not run Node; undefined if it can. */
export function whyNoBareContainer(): string | undefined {
  return process.execPath.startsWith("/usr/") ? whyNoDocker() : `Node is not below /usr: ${process.execPath}`;
}

/** An image without a distribution, whose /usr is this host's and whose /vmlet is this package: argv of a container without network. */
export function bareContainer(
  docker: DockerHost,
): (options: readonly string[], command: readonly string[]) => string[] {
  const root = join(docker.folder, "bare");
  for (const name of ["usr", "proc", "sys", "dev", "tmp", "etc", "run", "vmlet"]) {
    mkdirSync(join(root, name), { recursive: true });
  }
  for (const name of ["bin", "sbin", "lib", "lib64"]) symlinkSync(`usr/${name}`, join(root, name));
  docker.importTree(root, BARE_IMAGE);
  const volumes = ["--volume", "/usr:/usr:ro", "--volume", `${resolve(".")}:/vmlet:ro`];
  return (options, command) => [
    ...docker.client,
    ...["run", "--rm", "--network", "none", ...volumes, ...options, BARE_IMAGE, ...command],
  ];
}

/** Some forty packages to fetch and unpack, `ms`. */
const DEBIAN_LIMIT_MS = 300_000;
const HOST_CERTIFICATES = "/etc/ssl/certs/of-the-host.crt";

/**
 * An image like node:20-bookworm-slim, of Debian's own packages (by mmdebstrap, kept in the cache) and this
 * host's Node and npm. Throws if Debian's archive is out of reach and the cache has none.
 */
export function importDebianWithNode(docker: DockerHost, image: string): void {
  const archive = join(cacheFolder() ?? docker.folder, "test/bookworm.tar");
  if (!existsSync(archive)) {
    mkdirSync(dirname(archive), { recursive: true });
    const words = ["--quiet", "--variant=apt", "--include=ca-certificates", "bookworm", `${archive}.new.tar`];
    runProgram("mmdebstrap", words, { limitMs: DEBIAN_LIMIT_MS });
    runProgram("mv", [`${archive}.new.tar`, archive]);
  }
  const root = join(docker.folder, "debian");
  mkdirSync(root);
  runProgram("tar", ["-C", root, "--exclude=./dev/*", "-xf", archive]);
  cpSync(process.execPath, join(root, "usr/bin/node"));
  const npm = resolve(runProgram("readlink", ["-f", program("npm")]).trim(), "../..");
  cpSync(npm, join(root, "usr/lib/node_modules/npm"), { recursive: true });
  symlinkSync("../lib/node_modules/npm/bin/npm-cli.js", join(root, "usr/bin/npm"));
  // Behind a proxy with an authority of its own, the image has to know it as this host does.
  const certificates = hostCertificates();
  if (certificates !== undefined) cpSync(certificates, join(root, HOST_CERTIFICATES), { dereference: true });
  docker.importTree(root, image, certificates === undefined ? [] : [`ENV NODE_EXTRA_CA_CERTS=${HOST_CERTIFICATES}`]);
  rmSync(root, { recursive: true });
}

/** What `docker build .` would send: the files of the checkout with .dockerignore's left out, links followed. */
export function buildContext(docker: DockerHost): string {
  const context = join(docker.folder, "context");
  mkdirSync(context);
  const left = readFileSync(".dockerignore", "utf8").split("\n").filter(Boolean);
  const names = runProgram("git", ["ls-files", "-co", "--exclude-standard"]).split("\n").filter(Boolean);
  const built = [
    "dist",
    "guest/out/default/vmlinux",
    "guest/out/fast/vmlinux",
    "guest/out/initramfs.cpio",
    "guest/out/tiny.cpio",
  ];
  for (const name of [...names, ...built]) {
    if (!existsSync(name) || left.some((pattern) => name === pattern || name.startsWith(`${pattern}/`))) continue;
    cpSync(name, join(context, name), { recursive: true, dereference: true });
  }
  return context;
}
