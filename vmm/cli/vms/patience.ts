/** So often a signal is handed on to a VM's program; the next one ends the VM, or the wait. */
export const PATIENCE = 2;
