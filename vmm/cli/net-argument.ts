// --net tap=auto|NAME[,mac=ADDRESS][,mtu=BYTES][,ip=ADDRESS/PREFIX][,bw=SIZE][,ops=N].
import type { NetConfig } from "../config/nets.js";
import { RateLimitWords, readSpec, specError } from "./spec.js";

const KEYS = "tap=, mac=, mtu=, ip=, bw=, ops=";

export function parseNet(text: string): NetConfig {
  const net: { -readonly [Key in keyof NetConfig]: NetConfig[Key] } = { tap: "" };
  const limits = new RateLimitWords();
  readSpec("--net", text, KEYS, (word) => {
    if (word.key === "tap") net.tap = word.text();
    else if (word.key === "mac") net.mac = word.text();
    else if (word.key === "mtu") net.mtu = word.number();
    else if (word.key === "ip") net.hostAddress = word.text();
    else return limits.take(word);
    return true;
  });
  if (net.tap === "") throw specError("--net", text, "no tap= is given; tap=auto makes an interface");
  if (limits.config !== undefined) net.rateLimiter = limits.config;
  return net;
}
