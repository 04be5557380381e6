// Needs: root, Docker's packages, a /dev/kvm on which guests run, a built program, busybox. `vmlet run` and `vmlet exec` beside
// `docker run` and `docker exec` of the same image, one word for one: what a program finds, writes and ends with.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { once } from "node:events";
import { chmodSync, existsSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { isDeepStrictEqual } from "node:util";
import { countBoot } from "../helpers/booted.js";
import { busyboxTree, whyNoBusybox } from "../helpers/busybox-image.js";
import { openDocker, whyNoDocker, type DockerHost } from "../helpers/docker-host.js";
import { whyNoKvm } from "../helpers/kvm-guard.js";
import { PROGRAM } from "../helpers/program.js";
import { skip } from "../helpers/skip.js";

/** Of a boot on a host that is busy with other tests. */
const LIMIT_MS = 240_000;
const IMAGE = "vmlet-compared:1";
const CHANGES = [
  'ENV A=image B="two words"',
  'ENTRYPOINT ["/bin/echo","entry"]',
  'CMD ["cmd","a b"]',
  "WORKDIR /srv/made/here",
  "USER user:extra",
];
/** What both find and nobody chose. */
const ENVIRONMENT = "env | sort | grep -v ^HOSTNAME=";

interface Case {
  readonly options?: readonly string[];
  readonly command?: readonly string[];
  readonly input?: Uint8Array;
  /** Refused, or not to be run: the words are each one's own. */
  readonly fails?: number;
}

interface Answer {
  readonly status: number | null;
  /** A character a byte. */
  readonly stdout: string;
  readonly stderr: string;
}

type Rest = readonly [ours: readonly string[], theirs: readonly string[], images: readonly [string, string]];

const sh = (script: string, ...options: string[]): Case => ({
  options: [...options, "--entrypoint", "sh"],
  command: ["-c", script],
});

const BYTES = Buffer.concat([randomBytes(70_000), Buffer.from([0, 3, 4, 10, 13, 26, 255])]);

/** Of the image as it is, and with what the command line says in its place. */
const RUNS: readonly Case[] = [
  {},
  { command: ["x", "", " y  z ", "*", "é\n"] },
  { options: ["--entrypoint="], command: ["id"] },
  sh(`${ENVIRONMENT}; pwd; stat -c "%a %u %g" .; id; umask; ulimit -c -s -l; echo err >&2; exit 3`),
  sh(`${ENVIRONMENT}; id; pwd`, "-u", "0", "-e", "A=", "-e", "NEW=1=2", "-e", "GIVEN", "-e", "NOWHERE", "-e", "A B=c"),
  sh('id; echo "$HOME"; pwd; stat -c "%a %u %g" .', "-u", "nohome", "-w", "/other/new", "-e", "PATH=/bin"),
  sh('id; echo "$HOME"; hostname; cat /etc/hostname', "-u", "1234:5678", "-h", "box"),
  sh(
    'id; echo "$HOME"; stat -c "%a %u %n" /t /v; touch /t/x; grep -E " /(t|v) " /proc/mounts | sort',
    ...["-u", "1000", "--tmpfs", "/t:size=64k,mode=700,uid=1000,exec", "--tmpfs", "/v"],
  ),
  sh('echo "$TERM"; tty; exit 255', "-t"),
  { options: ["-i", "--entrypoint", "cat"], input: BYTES },
  { options: ["--entrypoint", "script"], command: ["a", "b c"] },
  { options: ["--entrypoint", ""], command: ["id"] },
  sh(
    `cat /etc/resolv.conf | sort; tail -n 2 /etc/hosts; id; ulimit -n; ulimit -Hn; ulimit -c; cat /proc/sys/kernel/shmmni
     df -k /dev/shm | awk 'END { print $2 }'; stat -c "%a %n" /t; touch /v/x; ls /v/file; touch /new`,
    ...["--dns", "9.9.9.9", "--dns-search", "a.b", "--dns-opt", "ndots:2", "--add-host", "db:10.0.0.5"],
    ...["--add-host=v6=[::1]", "--ulimit", "nofile=100:200", "--ulimit", "core=-1", "--group-add", "3000"],
    ...["--sysctl", "kernel.shmmni=4097", "--shm-size", "1m", "--read-only=true", "--user", "0:0"],
    ...["--mount", "type=tmpfs,dst=/t,tmpfs-size=1m,tmpfs-mode=700", "--restart=no"],
    ...["--mount", "type=bind,src=GIVEN,destination=/v,ro", "--security-opt", "seccomp=unconfined"],
  ),
  { options: ["--entrypoint", "nosuch"], fails: 127 },
  { options: ["--entrypoint", "/bin/noexec"], fails: 126 },
  { options: ["--entrypoint", "/bin/folder"], fails: 126 },
  { options: ["-u", "nobody"], fails: 125 },
  { options: ["-u", "4294967295"], fails: 125 },
  { options: ["-w", "here"], fails: 125 },
  { options: ["-e", "=x"], fails: 125 },
  { options: ["-l", "=x"], fails: 125 },
  { options: ["--tmpfs", "/t:bogus"], fails: 125 },
  { options: ["--tmpfs", "/t", "-v", "/tmp:/t"], fails: 125 },
  { options: ["--env-file", "/no/such/file"], fails: 125 },
  { options: ["--entrypoint="], fails: 125 },
  { options: ["--ulimit", "nofile=2:1"], fails: 125 },
  { options: ["--ulimit", "none=1"], fails: 125 },
  { options: ["--sysctl", "none.such=1"], fails: 125 },
  { options: ["--add-host", "name"], fails: 125 },
  { options: ["--dns", "name"], fails: 125 },
  { options: ["--group-add", "nosuch"], fails: 125 },
  { options: ["--shm-size", "x"], fails: 125 },
  { options: ["--stop-timeout", "x"], fails: 125 },
  { options: ["--mount", "type=none,target=/x"], fails: 125 },
  { options: ["--mount", "type=bind,target=/x"], fails: 125 },
  { options: ["--label-file", "/no/such/file"], fails: 125 },
  { options: ["--cidfile", "/etc/passwd"], fails: 125 },
];

const EXECS: readonly Case[] = [
  { command: ["sh", "-c", `id; ${ENVIRONMENT}; pwd; umask`] },
  { options: ["-u", "0"], command: ["sh", "-c", `id; ${ENVIRONMENT}`] },
  { options: ["-u", "user:more", "-w", "/bin", "-e", "A=exec"], command: ["sh", "-c", 'id; pwd; ./script "$A-$B"'] },
  { options: ["-i"], command: ["cat"], input: BYTES },
  { command: ["cat"], input: BYTES },
  { command: ["sh", "-c", "echo out; echo err >&2; exit 7"] },
  { command: ["sh", "-c", "kill -TERM $$"] },
  { command: ["sh", "-c", "kill -SEGV $$"] },
  { options: ["-d"], command: ["sh", "-c", "exit 3"] },
  { command: ["/bin/noexec"], fails: 126 },
  { options: ["-u", "nobody"], command: ["id"], fails: 126 },
  { options: ["-w", "/no/such"], command: ["pwd"], fails: 126 },
  { options: ["-w", "/bin/script"], command: ["pwd"], fails: 126 },
];

describe("boot: beside docker run", function () {
  this.timeout(LIMIT_MS);
  let folder = "";
  let docker: DockerHost | undefined;
  let reference = "";
  const environment = process.env["VMLET_STATE"];

  before(async function () {
    const reason =
      whyNoKvm() ?? (existsSync(PROGRAM) ? undefined : "dist/vmlet.js is not built") ?? whyNoBusybox() ?? whyNoDocker();
    if (reason !== undefined) skip(this, reason);
    folder = mkdtempSync(join(tmpdir(), "vmlet-docker-"));
    process.env["VMLET_STATE"] = join(folder, "state");
    process.env["GIVEN"] = "of this process";
    mkdirSync(join(folder, "given"));
    writeFileSync(join(folder, "given/file"), "");
    docker = await openDocker();
    docker.importTree(makeTree(folder), IMAGE, CHANGES);
    const archive = join(folder, "saved.tar");
    reference = `docker-archive:${archive}`;
    assert.equal((await ask([...docker.client, "save", "-o", archive, IMAGE])).status, 0);
  });

  after(async () => {
    await docker?.close();
    if (environment === undefined) delete process.env["VMLET_STATE"];
    else process.env["VMLET_STATE"] = environment;
    delete process.env["GIVEN"];
    if (folder !== "") rmSync(folder, { recursive: true, force: true });
  });

  async function ask([file = "", ...words]: readonly string[], input: Uint8Array = new Uint8Array()): Promise<Answer> {
    const child = spawn(file, words, { stdio: ["pipe", "pipe", "pipe"], timeout: LIMIT_MS, killSignal: "SIGKILL" });
    // It need not read all of it.
    child.stdin.on("error", () => undefined).end(input);
    const closed = once(child, "close") as Promise<[number | null]>;
    const [stdout, stderr] = await Promise.all([text(child.stdout), text(child.stderr)]);
    const [status] = await closed;
    return { status, stdout, stderr };
  }

  /** Both at once: what differs, or nothing. */
  async function difference(
    { options = [], command = [], input, fails }: Case,
    ours: readonly string[],
    theirs: readonly string[],
    [own, other]: readonly [string, string],
  ): Promise<string[]> {
    const given = options.map((option) => option.replace("src=GIVEN", `src=${join(folder, "given")}`));
    const [vmlet, real] = await Promise.all([
      ask([...ours, ...given, own, ...command], input),
      ask([...theirs, ...given, other, ...command], input),
    ]);
    const isSame =
      fails === undefined
        ? isDeepStrictEqual(vmlet, real)
        : vmlet.status === fails &&
          real.status === fails &&
          vmlet.stdout === "" &&
          /^vmlet: [^\n]+\n$/.test(vmlet.stderr);
    if (isSame) return [];
    const shown = (answer: Answer): string => JSON.stringify(answer).slice(0, 1000);
    return [`${[...options, ...command].join(" ")}\n  vmlet:  ${shown(vmlet)}\n  docker: ${shown(real)}`];
  }

  async function differences(cases: readonly Case[], ...rest: Rest): Promise<string> {
    const found: string[] = [];
    for (const one of cases) found.push(...(await difference(one, ...rest)));
    return found.join("\n");
  }

  it("a program finds, writes and ends with the same, and what is refused has the same exit code", async () => {
    assert.ok(docker !== undefined);
    const ours = [PROGRAM, "run", "--quiet", "--memory", "128"];
    const theirs = [...docker.client, "run", "--rm", "--network", "none"];
    countBoot();
    assert.equal(await differences(RUNS, ours, theirs, [reference, IMAGE]), "");
  });

  it("so does another one in it", async () => {
    assert.ok(docker !== undefined);
    const forever = ["--name", "compared", "--entrypoint", "sleep"];
    try {
      const ours = await ask([PROGRAM, "run", "-d", "--memory", "128", ...forever, reference, "100000"]);
      assert.equal(ours.status, 0, ours.stderr);
      const theirs = await ask([...docker.client, "run", "-d", "--network", "none", ...forever, IMAGE, "100000"]);
      assert.equal(theirs.status, 0, theirs.stderr);
      const client = docker.client;
      assert.equal(await differences(EXECS, [PROGRAM, "exec"], [...client, "exec"], ["compared", "compared"]), "");
    } finally {
      await ask([PROGRAM, "rm", "--force", "compared"]);
      await ask([...docker.client, "rm", "--force", "compared"]);
    }
  });
});

/** With users, groups, and files that cannot be run. */
function makeTree(folder: string): string {
  const root = busyboxTree(folder);
  const users = [
    "root:x:0:0:root:/root:/bin/sh",
    "user:x:1000:1000:User:/home/user:/bin/sh",
    "nohome:x:1001:1001::/no:/bin/sh",
  ];
  const groups = ["root:x:0:", "user:x:1000:", "extra:x:2000:user,other", "more:x:2001:other,user", "nohome:x:1001:"];
  writeFileSync(join(root, "etc/passwd"), `${users.join("\n")}\n`);
  writeFileSync(join(root, "etc/group"), groups.join("\n"));
  for (const name of ["home/user", "root", "bin/folder"]) mkdirSync(join(root, name), { recursive: true });
  symlinkSync("/etc", join(root, "link"));
  const script = join(root, "bin/script");
  writeFileSync(script, '#!/bin/sh\nprintf "<%s>" script "$@"\n');
  chmodSync(script, 0o755);
  writeFileSync(join(root, "bin/noexec"), "x");
  return root;
}

async function text(stream: Readable): Promise<string> {
  return Buffer.concat((await stream.toArray()) as Buffer[]).toString("latin1");
}
