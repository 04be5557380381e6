// What --share needs: virtiofsd, and the right to shut it into a folder.
import { VIRTIOFSD, VIRTIOFSD_PACKAGE } from "../../virtio/backends/virtiofsd-command.js";
import { here, type Check } from "../checks.js";
import { CAP_SYS_ADMIN, identity } from "../identity.js";

/** Settings that keep an ordinary user from user namespaces, with the value that does. */
export const NO_USER_NAMESPACES = [
  ["user.max_user_namespaces", "0", "15000"],
  ["kernel.unprivileged_userns_clone", "0", "1"],
  ["kernel.apparmor_restrict_unprivileged_userns", "1", "0"],
] as const;

export const shares: Check = {
  code: "shares",
  area: "extra",
  worst: "note",
  look: ({ files }) => {
    const title = "Shared folders";
    if (files.facts(VIRTIOFSD) === undefined) {
      const install = `sudo apt-get install --no-install-recommends ${VIRTIOFSD_PACKAGE}`;
      const detail = "virtiofsd is missing: no --share";
      return { status: "note", title, detail, cure: install, commands: [here(install)] };
    }
    const isFree = identity(files).has(CAP_SYS_ADMIN);
    const obstacle = NO_USER_NAMESPACES.find(
      ([name, value]) => files.read(`/proc/sys/${name.replaceAll(".", "/")}`) === value,
    );
    if (isFree || obstacle === undefined) return { status: "ok", title, detail: VIRTIOFSD };
    const [name, value, other] = obstacle;
    const command = `sudo sysctl -w ${name}=${other}`;
    return {
      status: "note",
      title,
      detail: `--share needs root rights, or user namespaces, which ${name}=${value} forbids`,
      cure: `allow them: ${command}`,
      commands: [here(command)],
    };
  },
};
