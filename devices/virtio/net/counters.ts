/** Numbers that only grow; RX and TX are the guest's. `bytes` without headers of virtio. */
export interface NetCounters {
  rxFrames: number;
  rxBytes: number;
  /** Frames that were shorter than an Ethernet header ... */
  rxTooShort: number;
  /** ... or longer than the buffers that the driver had given. */
  rxTooLong: number;
  rxErrors: number;
  /** Times that the driver had too few buffers there for the largest frame. */
  rxStarved: number;
  rxThrottled: number;
  txFrames: number;
  txBytes: number;
  txTooShort: number;
  txTooLong: number;
  /** Frames that the host has refused. */
  txErrors: number;
  /** Frames sent while the link was down. */
  txLinkDown: number;
  /** Times that the host could take no more for the moment. */
  txBusy: number;
  txThrottled: number;
  /** Frames for the backend itself. */
  txAside: number;
}

export function netCounters(): NetCounters {
  return {
    rxFrames: 0,
    rxBytes: 0,
    rxTooShort: 0,
    rxTooLong: 0,
    rxErrors: 0,
    rxStarved: 0,
    rxThrottled: 0,
    txFrames: 0,
    txBytes: 0,
    txTooShort: 0,
    txTooLong: 0,
    txErrors: 0,
    txLinkDown: 0,
    txBusy: 0,
    txThrottled: 0,
    txAside: 0,
  };
}
