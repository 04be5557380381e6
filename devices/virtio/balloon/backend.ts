/** Gives guest memory back to the host. */
export interface GuestPages {
  /**
   * The guest does not need what is in these pages: whole pages of RAM, which read anything and
   * cost nothing until they are touched again. 0 or an error number.
   */
  release(gpa: number, length: number): number;
  /** An error number in words, such as "EINVAL". */
  explain(error: number): string;
}
