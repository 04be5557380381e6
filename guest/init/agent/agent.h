/* The agent's three beginnings: as init over the command channel, as init over something else, and as a process. */
#ifndef VMLET_AGENT_AGENT_H
#define VMLET_AGENT_AGENT_H

#include <linux/utsname.h>

#include "../cmdline.h"
#include "../pipes.h"
#include "../template.h"
#include "../timer.h"
#include "serve.h"

#define USAGE_STATUS 64

/* Everything that a guest of this template will need is made, and at rest; then the snapshot is taken. */
static void wait_for_snapshot(void)
{
	static const struct timespec64 moment = { 0, 100000000 };

	warm_up();
	make_spare();
	for (unsigned i = 0; i < CHANNEL_BLOCK_BYTES; i += 4096)
		(void)*(volatile char *)(output_ring + i), (void)*(volatile char *)(input_ring + i);
	prepare_to_become_another();
	nonce = TEMPLATE_NONCE;
	/* The spare process comes to where it waits. */
	call2(nanosleep, &moment, 0);
	channel->looks = 1;
	timer->snapshot = 1;
	channel->looks = 0;
	struct restore_block *notice = has_notice();

	/* The host may have spoken already. */
	if (notice)
		become_another(notice);
	hook = HOOK_UNKNOWN;
}

/* False if there is no way to the host. */
static int open_agent_link(int has_channel)
{
	const char *port = value_of(agent_link, "vsock:");
	unsigned number;

	if (!agent_link[0] && has_channel) {
		link_over_channel();
		return 1;
	}
	/* A kernel without /dev/mem has a terminal. */
	if (!agent_link[0])
		append(agent_link, agent_link + sizeof(agent_link), terminal_device);
	if (port)
		return read_number(port, &number) && link_over_vsock(number);
	return link_over_device(agent_link);
}

static int run_agent_as_init(int has_channel)
{
	is_init = 1;
	if (!prepare_agent() || !open_agent_link(has_channel)) {
		say("init: the agent of vmlet.agent has no way to the host: ");
		say(agent_link);
		say("\n");
		return STATUS_CANNOT_RUN;
	}
	give_way();
	if (has_channel)
		channel->state = CHANNEL_OPEN;
	if (has_channel && is_template)
		wait_for_snapshot();
	else
		make_spare();
	milestone(MILESTONE_COMMAND_START);
	int status = serve_agent();

	reboot_if_asked();
	return status;
}

/* `init agent FD_IN FD_OUT`: for one conversation. `init agent LINK`: as vmlet.agent=LINK, until SIGTERM. */
static int run_agent_as_process(long count, char **words)
{
	static struct new_utsname names;
	unsigned in, out;

	int is_pair = count == 4 && read_number(words[2], &in) && read_number(words[3], &out);
	int is_link = count == 3 && length_of(words[2]) < sizeof(agent_link) && (words[2][0] == '/' || value_of(words[2], "vsock:"));

	if (count < 2 || !is_same(words[1], "agent") || (!is_pair && !is_link)) {
		say("usage: init agent FD_IN FD_OUT | vsock:PORT | /dev/NAME\n");
		return USAGE_STATUS;
	}
	if (is_link)
		append(agent_link, agent_link + sizeof(agent_link), words[2]);
	if (!prepare_agent() || !(is_pair ? link_over_pair(in, out) : open_agent_link(0))) {
		say(is_pair ? "init: agent: a descriptor is not open\n" : "init: agent: the link cannot be opened\n");
		return USAGE_STATUS;
	}
	if (call1(uname, &names) == 0)
		append(host_name + 9, host_name + sizeof(host_name), names.nodename);
	int status = serve_agent();

	restart_connection(1);
	kill_sessions();
	return status;
}

#endif
