// ioctl request numbers as <asm-generic/ioctl.h> encodes them:
// direction (2 bits), argument size (14 bits), type (8 bits), number (8 bits).

const IOC_WRITE = 1;
const IOC_READ = 2;

function ioc(direction: number, type: number, number: number, size: number): number {
  return ((direction << 30) | (size << 16) | (type << 8) | number) >>> 0;
}

/** Request without an argument structure. */
export function IO(type: number, number: number): number {
  return ioc(0, type, number, 0);
}

/** Request that fills a structure of `size` bytes for the caller. */
export function IOR(type: number, number: number, size: number): number {
  return ioc(IOC_READ, type, number, size);
}

/** Request that reads a structure of `size` bytes from the caller. */
export function IOW(type: number, number: number, size: number): number {
  return ioc(IOC_WRITE, type, number, size);
}

/** Request that reads and fills a structure of `size` bytes. */
export function IOWR(type: number, number: number, size: number): number {
  return ioc(IOC_READ | IOC_WRITE, type, number, size);
}
