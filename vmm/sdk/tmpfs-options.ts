// Options of a folder in the guest's memory, as mount(8) takes them behind -o: flags of mount(2), and words that tmpfs reads itself.
// Linux: filesystems/tmpfs.rst; include/uapi/linux/mount.h.
import { show } from "../config/show.js";

const MS_RDONLY = 1;
const MS_NOSUID = 2;
const MS_NODEV = 4;
const MS_NOEXEC = 8;
const MS_SYNCHRONOUS = 16;
const MS_DIRSYNC = 128;
const MS_NOATIME = 1024;
const MS_NODIRATIME = 2048;
const MS_RELATIME = 1 << 21;
const MS_STRICTATIME = 1 << 24;
/** As Docker has it. */
const USUAL_FLAGS = MS_NOSUID | MS_NODEV | MS_NOEXEC;

const SET: Readonly<Record<string, number>> = {
  ro: MS_RDONLY,
  nosuid: MS_NOSUID,
  nodev: MS_NODEV,
  noexec: MS_NOEXEC,
  sync: MS_SYNCHRONOUS,
  dirsync: MS_DIRSYNC,
  noatime: MS_NOATIME,
  nodiratime: MS_NODIRATIME,
  relatime: MS_RELATIME,
  strictatime: MS_STRICTATIME,
};
const CLEAR: Readonly<Record<string, number>> = {
  defaults: 0,
  rw: MS_RDONLY,
  suid: MS_NOSUID,
  dev: MS_NODEV,
  exec: MS_NOEXEC,
  async: MS_SYNCHRONOUS,
  atime: MS_NOATIME,
  diratime: MS_NODIRATIME,
};
const NUMBER = /^\d{1,10}$/;
const VALUES: Readonly<Record<string, { readonly form: RegExp; readonly expected: string }>> = {
  size: { form: /^\d{1,15}[kmg%]?$/i, expected: "a size such as 65536, 64m or 50%" },
  nr_blocks: { form: /^\d{1,15}[kmg]?$/i, expected: "a number such as 1000 or 16k" },
  nr_inodes: { form: /^\d{1,15}[kmg]?$/i, expected: "a number such as 1000 or 16k" },
  mode: { form: /^[0-7]{1,5}$/, expected: "a mode in octal digits such as 1777" },
  uid: { form: NUMBER, expected: "the number of a user" },
  gid: { form: NUMBER, expected: "the number of a group" },
};

export interface TmpfsMount {
  /** MS_… */
  readonly flags: number;
  /** For tmpfs itself. */
  readonly data: string;
}

/** What mount(2) gets; a text that says what is wrong. */
export function tmpfsMount(options: string): TmpfsMount | string {
  let flags = USUAL_FLAGS;
  const data: string[] = [];
  for (const word of options.split(",")) {
    if (word === "") continue;
    const [name, value] = splitOnce(word);
    const known = VALUES[name];
    if (known !== undefined && Object.hasOwn(VALUES, name)) {
      if (value === undefined || !known.form.test(value)) return `${show(word)} is not ${name}= and ${known.expected}`;
      data.push(word);
    } else if (Object.hasOwn(SET, word)) flags |= SET[word] ?? 0;
    else if (Object.hasOwn(CLEAR, word)) flags &= ~(CLEAR[word] ?? 0);
    else {
      const names = [...Object.keys(VALUES).map((one) => `${one}=`), ...Object.keys(SET), ...Object.keys(CLEAR)];
      return `${show(word)} is no option of a tmpfs; known are ${names.join(", ")}`;
    }
  }
  return { flags, data: data.join(",") };
}

function splitOnce(word: string): [string, string | undefined] {
  const at = word.indexOf("=");
  return at < 0 ? [word, undefined] : [word.slice(0, at), word.slice(at + 1)];
}
