// --balloon MIB[,deflate-on-oom][,reporting].
import type { BalloonConfig } from "../config/balloon.js";
import { parseWhole } from "./numbers.js";
import { formatSpec, readSpec, specError } from "./spec.js";

export function parseBalloon(text: string): BalloonConfig {
  const balloon: { -readonly [Key in keyof BalloonConfig]: BalloonConfig[Key] } = { targetMib: NaN };
  let isFirst = true;
  readSpec("--balloon", text, "a number of MiB, deflate-on-oom, reporting", (word) => {
    const mib = isFirst ? parseWhole(word.key) : undefined;
    if (mib !== undefined) {
      word.flag();
      balloon.targetMib = mib;
    } else if (word.key === "deflate-on-oom") balloon.deflateOnOom = word.flag();
    else if (word.key === "reporting") balloon.reporting = word.flag();
    else return false;
    isFirst = false;
    return true;
  });
  if (Number.isNaN(balloon.targetMib)) throw specError("--balloon", text, "begins with a number of MiB; 0 is one");
  return balloon;
}

/** The same balloon as an argument, for a command in the lab. */
export function formatBalloon({ targetMib, deflateOnOom, reporting }: BalloonConfig): string {
  return formatSpec([
    String(targetMib),
    ...(deflateOnOom === true ? ["deflate-on-oom"] : []),
    ...(reporting === true ? ["reporting"] : []),
  ]);
}
