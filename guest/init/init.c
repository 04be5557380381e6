/* PID 1 of a micro-VM: marks the milestone, mounts what programs expect, runs the command
 * that the kernel command line names, reaps, and powers off with the command's exit status;
 * or serves the agent's protocol (docs/agent-protocol.md) instead of one command.
 *
 *   console=NAME,...      the terminal, the last one if there are several; without it: ttyS0
 *   vmlet.root=DEVICE     disk to change into before anything runs
 *   ro, rw, rootfstype=, rootflags=   how it is mounted (root.h)
 *   vmlet.image=DEVICE    a container's image to change into (image.h); vmlet.image.ro: nothing in it can be written
 *   vmlet.exec=BASE64URL  argv, its strings separated by NUL; without it: /bin/sh
 *   vmlet.agent           the agent, over the command channel; without one over the terminal
 *   vmlet.agent=vsock:PORT, vmlet.agent=/dev/NAME   over vsock, or a console port or serial line
 *   vmlet.tty=raw         the host is not a terminal: a channel is used if there is one (channel.h), else the
 *                         terminal has no echo and no newline translation
 *   vmlet.template        wait for the command where a snapshot is taken (template.h)
 *   vmlet.term=NAME       TERM
 *   vmlet.size=ROWSxCOLS  window size
 *   ip=CLIENT:...         the network (network.h)
 *
 * As an ordinary process, `init agent FD FD` is the agent that reads the one descriptor and writes the other, and `init agent
 * vsock:PORT` or `init agent /dev/NAME` the one of that link; `init connect PORT` is a connection (connect.h).
 *
 * The monitor listens at one MMIO page (timer.h).
 */
#include <asm/signal.h>

#include "channel.h"
#include "cmdline.h"
#include "connect.h"
#include "execute.h"
#include "image.h"
#include "network.h"
#include "pipes.h"
#include "power.h"
#include "program.h"
#include "signals.h"
#include "syscall.h"
#include "template.h"
#include "terminal.h"
#include "text.h"
#include "timer.h"
#include "world.h"
#include "agent/agent.h"

static void fail_to_mount(const char *device)
{
	char number[32];

	say("init: cannot mount ");
	say(device);
	if (mount_error == ENOENT || mount_error == ENXIO || mount_error == ENOTBLK) {
		say(": there is no such disk");
	} else if (mount_error == EINVAL || mount_error == ENODEV) {
		say(": it has no file system that the kernel knows");
	} else if (mount_error) {
		append_number(append(number, number + sizeof(number), ": error "), number + sizeof(number),
			      (unsigned long)mount_error);
		say(number);
	}
	say("\n");
	root_device[0] = 0;
	power_off(STATUS_CANNOT_RUN);
}

/* What each of the three ways to run needs of the terminal and the channel. True if it is the channel. */
static int open_ways(void)
{
	int wants_channel = is_agent ? !agent_link[0] : raw_tty;
	int has_channel = wants_channel && has_timer() && open_channel(timer->channel, &timer->channel);

	if (has_channel)
		open_wake_up();
	else if (!is_agent)
		open_terminal();
	return has_channel;
}

static void run_as_init(void)
{
	environment = first_environment;
	open_timer();
	milestone(MILESTONE_INIT);
	mount_all();
	read_cmdline();
	if (!argv[0]) {
		argv[0] = "/bin/sh";
		argv[1] = "-l";
	}
	set_limits();
	raise_loopback();
	int has_channel = open_ways();

	handle(SIGUSR1, on_signal);
	handle(SIGUSR2, on_signal);
	handle(SIGTERM, on_signal);
	if (image_device[0] && !enter_image(image_device, is_image_readonly))
		fail_to_mount(image_device);
	else if (!image_device[0] && root_device[0] && !change_root(root_device))
		fail_to_mount(root_device);
	set_names();
	if (root_kind == ROOT_IMAGE)
		put_own_files();
	if (network && !configure_network(network))
		say("init: cannot set up the network of the command line's ip=\n");
	if (is_agent)
		power_off(run_agent_as_init(has_channel));
	power_off(has_channel ? run_with_pipes() : run_on_terminal());
}

/* `stack` is what the kernel leaves there: the count of arguments, then they. */
__attribute__((used)) static void start(long *stack)
{
	char **words = (char **)(stack + 1);

	unsigned port;

	if (call0(getpid) != 1 && stack[0] == 3 && is_same(words[1], "connect") && read_number(words[2], &port) && port < 65536)
		call1(exit_group, run_connection(port));
	if (call0(getpid) != 1)
		call1(exit_group, run_agent_as_process(stack[0], words));
	run_as_init();
}

/* The kernel enters with a 16-byte aligned stack; a called function expects it 8 bytes off. */
__asm__(".globl _start\n_start:\n\txor %ebp, %ebp\n\tmov %rsp, %rdi\n\tcall start\n\thlt\n");
