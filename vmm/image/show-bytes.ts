// Names out of archives in messages: any bytes may be in them, and a terminal must not obey them.

const MAX_SHOWN = 100;

/** `text`: one character a byte. */
export function showBytes(text: string): string {
  const cut = text.length > MAX_SHOWN ? `${text.slice(0, MAX_SHOWN)}...` : text;
  const decoded = Buffer.from(cut, "latin1").toString("utf8");
  const readable = decoded.includes("\ufffd") ? cut : decoded;
  // Control characters, those that turn the direction of writing, and what is no character.
  return `"${readable.replace(/["\\\p{C}\p{Zl}\p{Zp}]/gu, (character) => {
    if (character === '"' || character === "\\") return `\\${character}`;
    return `\\x${(character.codePointAt(0) ?? 0).toString(16).padStart(2, "0")}`;
  })}"`;
}
