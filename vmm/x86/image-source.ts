// A file that goes into guest memory: headers are read, segments are loaded where they belong.

export interface ImageSource {
  readonly path: string;
  /** `bytes` */
  readonly size: number;
  /** `length` bytes from `offset`; shorter only at the end of the file. */
  read(offset: number, length: number): Uint8Array;
  /** Loads `length` bytes from `offset` to guest memory, without a copy in between. */
  readInto(offset: number, gpa: number, length: number): void;
}
