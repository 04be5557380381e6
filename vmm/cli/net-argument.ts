// --net tap=auto|NAME[,ip=ADDRESS/PREFIX] or --net user[,forward=[ADDRESS:]PORT:PORT[/udp]]...[,host=off],
// each with [,vhost=auto|off|on][,mac=ADDRESS][,mtu=BYTES][,bw=SIZE][,ops=N].
import type { NetConfig, VhostChoice } from "../config/nets.js";
import type { PortForward, UserNetConfig } from "../config/user-net.js";
import { RateLimitWords, readSpec, specError } from "./spec.js";

const KEYS = "user, tap=, mac=, mtu=, ip=, vhost=, forward=, host=, bw=, ops=";

type Writable<Type> = { -readonly [Key in keyof Type]: Type[Key] };

export function parseNet(text: string): NetConfig {
  const net: Writable<NetConfig> = {};
  const user: Writable<UserNetConfig> = {};
  const forwards: PortForward[] = [];
  const limits = new RateLimitWords();
  readSpec(
    "--net",
    text,
    KEYS,
    (word) => {
      if (word.key === "user") {
        word.flag();
        net.user = user;
      } else if (word.key === "tap") net.tap = word.text();
      else if (word.key === "mac") net.mac = word.text();
      else if (word.key === "mtu") net.mtu = word.number();
      else if (word.key === "ip") net.hostAddress = word.text();
      else if (word.key === "vhost") net.vhost = word.text() as VhostChoice;
      else if (word.key === "forward") forwards.push(parseForward(word.text(), text));
      else if (word.key === "host") user.reachesHost = word.isOn();
      else return limits.take(word);
      return true;
    },
    ["forward"],
  );
  if (net.user === undefined) {
    if (net.tap === undefined) throw specError("--net", text, "neither user nor tap= is given");
    const onlyUser = forwards.length > 0 ? "forward=" : user.reachesHost === undefined ? undefined : "host=";
    if (onlyUser !== undefined) throw specError("--net", text, `${onlyUser} is only for user`);
  }
  if (forwards.length > 0) user.forwards = forwards;
  if (limits.config !== undefined) net.rateLimiter = limits.config;
  return net;
}

/** As container engines write it: [ADDRESS:]HOSTPORT:GUESTPORT[/udp]. */
function parseForward(forward: string, text: string): PortForward {
  const match = /^(?:([\d.]+):)?(\d{1,5}):(\d{1,5})(?:\/(tcp|udp))?$/.exec(forward);
  if (match === null) {
    throw specError(
      "--net",
      text,
      `forward ${forward} is not [ADDRESS:]HOSTPORT:GUESTPORT, with /udp behind it for UDP`,
    );
  }
  const [, hostAddress, hostPort, guestPort, protocol] = match;
  return {
    ...(protocol === undefined ? {} : { protocol: protocol as "tcp" | "udp" }),
    ...(hostAddress === undefined ? {} : { hostAddress }),
    hostPort: Number(hostPort),
    guestPort: Number(guestPort),
  };
}
