// --vsock cid=N[,path=SOCKET].
import type { VsockConfig } from "../config/vsock.js";
import { readSpec, specError } from "./spec.js";

export function parseVsock(text: string): VsockConfig {
  let cid: number | undefined;
  let path: string | undefined;
  readSpec("--vsock", text, "cid=, path=", (word) => {
    if (word.key === "cid") cid = word.number();
    else if (word.key === "path") path = word.text();
    else return false;
    return true;
  });
  if (cid === undefined) throw specError("--vsock", text, "no cid= is given; 3 is the first that a guest may have");
  return { cid, path };
}
