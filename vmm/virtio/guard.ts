// Callbacks of the event loop that run code of the devices: of sockets, files, descriptors, timers. Nobody
// stands above them, so what they throw (a defect of ours, brought to light by a guest) would end the
// process with every VM in it. Through a guard it ends the VM whose device it is.

/** Runs a task for the devices of one VM; what it throws is that VM's failure. */
export type Guard = (task: () => void) => void;

/** Where there is no VM. */
export const unguarded: Guard = (task) => {
  task();
};
