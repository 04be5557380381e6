// Needs: nothing. Whether a container's program is there, as the container sees its files.
import assert from "node:assert/strict";
import { chmodSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ConfigError } from "../../vmm/errors.js";
import { checkProgram } from "../../vmm/oci/find-program.js";

describe("oci find-program", () => {
  let root = "";

  before(() => {
    root = mkdtempSync(join(tmpdir(), "vmlet-find-"));
    for (const name of ["usr/bin", "data", "opt/tool"]) mkdirSync(join(root, name), { recursive: true });
    symlinkSync("/usr/bin", join(root, "bin"));
    writeFileSync(join(root, "usr/bin/tool"), "", { mode: 0o755 });
    writeFileSync(join(root, "usr/bin/text"), "", { mode: 0o644 });
    symlinkSync("../../usr/bin/tool", join(root, "opt/tool/up"));
    // Of the container's root, not of this host's.
    symlinkSync("/../../../usr/bin/tool", join(root, "opt/tool/over"));
    symlinkSync("/bin/sh", join(root, "opt/tool/broken"));
    symlinkSync("loop", join(root, "opt/tool/loop"));
    symlinkSync("/made/by/mount/tool", join(root, "opt/tool/made"));
    symlinkSync("/proc/self/exe", join(root, "opt/tool/self"));
  });

  after(() => {
    chmodSync(root, 0o755);
    rmSync(root, { recursive: true });
  });

  const look = (name: string, { path = "PATH=/usr/local/bin:/bin", hooks = {}, cwd = "/" } = {}): string => {
    const process = { user: { uid: 0, gid: 0 }, args: [name], cwd, env: path === "" ? [] : [path] };
    const mounts = ["/proc", "/data", "/made/by/mount"].map((destination) => ({ destination }));
    try {
      checkProgram({ ociVersion: "1.0.2", process, mounts, hooks }, root);
    } catch (error) {
      assert.ok(error instanceof ConfigError);
      return error.message;
    }
    return "";
  };

  it("what is there is found, by links of the container's root, in PATH, from the working directory", () => {
    for (const name of ["tool", "/bin/tool", "/usr/bin/tool", "/opt/tool/up", "/opt/tool/over", "/bin/../bin/tool"]) {
      assert.equal(look(name), "", name);
    }
    assert.equal(look("./tool", { cwd: "/bin" }), "");
  });

  it("what is not there, or no program, has the words by which engines choose 127 and 126", () => {
    assert.match(look("nosuch"), /exec: "nosuch": executable file not found in \$PATH$/);
    assert.match(look("/bin/nosuch"), /exec: "\/bin\/nosuch": stat \/bin\/nosuch: no such file or directory$/);
    assert.match(look("/opt/tool/broken"), /no such file or directory$/);
    assert.match(look("/opt"), /exec: "\/opt": is a directory: permission denied$/);
    assert.match(look("text"), /exec: "text": permission denied$/);
    assert.match(look("./bin/tool", { cwd: "/opt" }), /no such file or directory$/);
  });

  it("where a mount, a hook, the guest or the program itself decides, nothing is said", () => {
    assert.equal(look("/data/nosuch"), "");
    assert.equal(look("/made/by/mount"), "");
    assert.equal(look("/opt/tool/made"), "");
    assert.equal(look("/opt/tool/self"), "");
    assert.equal(look("/opt/tool/loop"), "");
    assert.equal(look("/bin/tool/below"), "");
    assert.equal(look("nosuch", { path: "" }), "");
    assert.equal(look("nosuch", { path: "PATH=/data:/bin" }), "");
    assert.equal(look("nosuch", { hooks: { prestart: [{ path: "/x", args: ["x"] }] } }), "");
    assert.match(
      look("nosuch", { hooks: { prestart: [{ path: "/x", args: ["libnetwork-setkey", "1"] }] } }),
      /not found/,
    );
  });
});
