// What a saved balloon goes on with. The pages in it are the guest's memory's matter: they are saved as empty.
import type { StateReader } from "../../state.js";

export type BalloonState = {
  /** num_pages: what the guest is asked to give up. */
  readonly targetPages: number;
  /** actual: what the guest says that it has given up. */
  readonly actualPages: number;
};

const U32 = { minimum: 0, maximum: 0xffff_ffff };

export function readBalloonState(state: StateReader): BalloonState {
  state.only(["targetPages", "actualPages"]);
  return { targetPages: state.integer("targetPages", U32), actualPages: state.integer("actualPages", U32) };
}
