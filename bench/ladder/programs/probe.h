/* What the programs of the probe share. One static binary holds them all: the smallest thing that
 * can be the same on every rung. */
#ifndef PROBE_H
#define PROBE_H

#include <stdint.h>

/* What the launcher waits for. */
#define MARKER "vmlet-ladder-first\n"

/* Runs batch(n) with n doubled until a few batches take the budget, and prints the fastest of them:
 * {"metric":"NAME","total_ns":1234,"count":4096}. Doubling keeps reads of the clock rare: on some
 * rungs even that is slow. */
void measure(const char *name, void (*batch)(long n), uint64_t budget_ns);

/* Prints {"metric":"NAME","skipped":"REASON"}. */
void skip(const char *name, const char *reason);

void integer_work(uint64_t budget_ns);
void memory_work(uint64_t budget_ns);
void system_calls(uint64_t budget_ns);
void fork_exec(uint64_t budget_ns);
void context_switches(uint64_t budget_ns);
void page_faults(uint64_t budget_ns);
void files(uint64_t budget_ns);
void disk(uint64_t budget_ns);
/* Against peer.c; skipped if it does not answer. */
void network(const char *address, const char *port, uint64_t budget_ns);
void isolation(const char *host_pid, const char *host_kernel);

/* What the harness gives a guest with its devices. */
void give_address(const char *interface, const char *address, const char *netmask);
void mount_scratch(const char *device);
void unmount_scratch(void);

#endif
