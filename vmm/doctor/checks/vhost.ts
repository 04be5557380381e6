// What the host's kernel can do in vmlet's place: move a TAP interface's frames, and a socket device's packets.
import { here, type Check } from "../checks.js";
import { identity, modeAllows } from "../identity.js";

const DEVICES = [
  {
    path: "/dev/vhost-net",
    module: "vhost_net",
    use: "--net tap=",
    without: "vmlet moves the frames of --net tap= itself",
  },
  { path: "/dev/vhost-vsock", module: "vhost_vsock", use: "--vsock cid=", without: "--vsock needs a path=" },
] as const;

export const vhost: Check = {
  code: "vhost",
  area: "extra",
  worst: "note",
  look: ({ files }) => {
    const title = "vhost";
    const who = identity(files);
    const missing = DEVICES.filter(({ path }) => files.facts(path) === undefined);
    const forbidden = DEVICES.filter(({ path }) => {
      const facts = files.facts(path);
      return facts !== undefined && !modeAllows(who, facts);
    });
    if (missing.length + forbidden.length === 0) {
      return { status: "ok", title, detail: DEVICES.map(({ path, use }) => `${path} for ${use}`).join(", ") };
    }
    const load = `sudo modprobe -a ${missing.map(({ module }) => module).join(" ")}`;
    const open = `sudo setfacl -m u:${who.user}:rw ${forbidden.map(({ path }) => path).join(" ")}`;
    return {
      status: "note",
      title,
      detail: [
        ...missing.map(({ path, without }) => `there is no ${path}: ${without}`),
        ...forbidden.map(({ path, without }) => `${path} is not for your user: ${without}`),
      ].join("; "),
      cure: [
        ...(missing.length > 0 ? [`load it: ${load}; in a container: --device`] : []),
        ...(forbidden.length > 0 ? [`let your user open it: ${open}`] : []),
      ].join("; "),
      commands: [...(missing.length > 0 ? [here(load)] : []), ...(forbidden.length > 0 ? [here(open)] : [])],
    };
  },
};
