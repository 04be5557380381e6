// Whether this process has been sealed (vmm/jail): then it opens no file and signals no other process.
export const processSeal = { isSealed: false };
