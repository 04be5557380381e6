// Docker for a test: an engine of our own (that of the ladder), and an image without a distribution,
// whose /usr is this host's.
import { mkdirSync, symlinkSync } from "node:fs";
import { join, resolve } from "node:path";
import { isRoot, program } from "../../bench/ladder/detect.js";
import { startEngine } from "../../bench/ladder/docker-engine.js";
import { runProgram } from "../../bench/ladder/run-program.js";
import { openSite } from "../../bench/ladder/site.js";
import { findProgram } from "../../vmm/lab/programs.js";

export interface DockerHost {
  /** The client with the words that lead it to the engine. */
  readonly client: readonly string[];
  /** Folder of the test; goes with `close`. */
  readonly folder: string;
  /** argv of a container without network in which /vmlet is this package; `options` stand before the image. */
  run(options: readonly string[], command: readonly string[]): readonly string[];
  close(): Promise<void>;
}

/** Why there can be no engine here; undefined if there can. */
export function whyNoDocker(): string | undefined {
  if (!isRoot()) return "starting Docker's engine needs root";
  const missing = ["dockerd", "docker", "runc", "gcc", "cpio"].filter((name) => findProgram(name) === undefined);
  return missing.length === 0 ? undefined : `not installed: ${missing.join(", ")} (Debian: docker.io gcc cpio)`;
}

const IMAGE = "vmlet-test:1";

export async function openDocker(): Promise<DockerHost> {
  const site = openSite(new AbortController().signal);
  try {
    const engine = await startEngine(site, program("docker"));
    const client = [program("docker"), ...engine.host];
    const root = join(site.folder, "image");
    for (const name of ["usr", "proc", "sys", "dev", "tmp", "etc", "run", "vmlet"]) {
      mkdirSync(join(root, name), { recursive: true });
    }
    for (const name of ["bin", "sbin", "lib", "lib64"]) symlinkSync(`usr/${name}`, join(root, name));
    const archive = join(site.folder, "image.tar");
    runProgram("tar", ["-C", root, "-cf", archive, "."]);
    runProgram(program("docker"), [...engine.host, "import", archive, IMAGE]);
    const volumes = ["--volume", "/usr:/usr:ro", "--volume", `${resolve(".")}:/vmlet:ro`];
    return {
      client,
      folder: site.folder,
      run: (options, command) => [
        ...client,
        ...["run", "--rm", "--network", "none", ...volumes, ...options, IMAGE, ...command],
      ],
      close: async () => {
        await engine.stop();
        site.close();
      },
    };
  } catch (error) {
    site.close();
    throw error;
  }
}
