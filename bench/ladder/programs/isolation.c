/* What a program sees of the host: its kernel, its processes, its network, and how many of its
 * system calls answer. Each call is tried in a child of its own with arguments that make no
 * sense (-1), so it does nothing but tell whether the kernel would look at it: EPERM, ENOSYS and
 * SIGSYS are what a filter or a missing call look like. Calls that act whatever their arguments
 * are not tried.
 */
#include <asm/errno.h>
#include <linux/capability.h>
#include <linux/if.h>
#include <linux/prctl.h>
#include <linux/sockios.h>
#include <linux/utsname.h>
#include <sys/socket.h>

#include "probe.h"
#include "runtime.h"

/* The highest number that x86-64 has today is below this; numbers without a call answer ENOSYS everywhere. */
#define SYSTEM_CALLS 470
/* Numbers of interfaces that are gone are not given again: this many are looked at. */
#define INTERFACES 1024
#define NOT_TRIED (-1)
#define KILLED 1000

static int acts_anyway(int number)
{
	static const int calls[] = {
		__NR_fork, __NR_vfork, __NR_exit, __NR_exit_group, __NR_pause, __NR_rt_sigreturn, __NR_restart_syscall,
		__NR_sync, __NR_vhangup, __NR_kill, __NR_tkill, __NR_tgkill, __NR_reboot, __NR_alarm, __NR_close_range,
		__NR_sched_yield, __NR_personality, __NR_syslog, __NR_acct,
	};

	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
		if (calls[i] == number)
			return 1;
	return 0;
}

/* 0 for success, errno, KILLED or NOT_TRIED. */
static int try_call(int number)
{
	int answer[2];
	int result = KILLED;

	if (acts_anyway(number))
		return NOT_TRIED;
	if (CALL(__NR_pipe, answer) < 0)
		die("pipe", 0);
	long pid = CALL(__NR_fork);

	if (pid < 0)
		die("fork", pid);
	if (pid == 0) {
		long returned = syscall6(number, -1, -1, -1, -1, -1, -1);
		int seen = returned < 0 && returned > -4096 ? (int)-returned : 0;

		CALL(__NR_write, answer[1], &seen, sizeof seen);
		CALL(__NR_exit_group, 0);
	}
	CALL(__NR_close, answer[1]);
	if (CALL(__NR_read, answer[0], &result, sizeof result) != sizeof result)
		result = KILLED;
	CALL(__NR_close, answer[0]);
	wait_for(pid);
	return result;
}

static void print_key(const char *key)
{
	print("\"");
	print(key);
	print("\":");
}

static void print_string(const char *key, const char *text)
{
	print_key(key);
	print("\"");
	for (; *text; text++) {
		char one[2] = { *text, 0 };

		if (*text == '"' || *text == '\\')
			print("\\");
		if ((unsigned char)*text >= 0x20)
			print(one);
	}
	print("\",");
}

static void print_integer(const char *key, int64_t value)
{
	print_key(key);
	print_number(value);
	print(",");
}

static void print_boolean(const char *key, int value)
{
	print_key(key);
	print(value ? "true," : "false,");
}

static int count_capabilities(void)
{
	struct __user_cap_header_struct header = { _LINUX_CAPABILITY_VERSION_3, 0 };
	struct __user_cap_data_struct data[2];
	int count = 0;

	if (CALL(__NR_capget, &header, data) < 0)
		return -1;
	for (int bit = 0; bit < 32; bit++)
		count += (data[0].effective >> bit & 1) + (data[1].effective >> bit & 1);
	return count;
}

static void print_interfaces(void)
{
	long socket = CALL(__NR_socket, AF_INET, SOCK_DGRAM, 0);
	int found = 0;

	print("\"interfaces\":[");
	for (int index = 1; index < INTERFACES; index++) {
		struct ifreq request = { .ifr_ifindex = index };

		if (CALL(__NR_ioctl, socket, SIOCGIFNAME, &request) < 0)
			continue;
		print(found++ ? ",\"" : "\"");
		print(request.ifr_name);
		print("\"");
	}
	print("],");
	CALL(__NR_close, socket);
}

/* Of uname: "release version". */
static int is_host_kernel(const struct new_utsname *name, const char *host_kernel)
{
	const char *parts[] = { name->release, " ", name->version };

	for (int i = 0; i < 3; i++)
		for (const char *at = parts[i]; *at; at++)
			if (*host_kernel++ != *at)
				return 0;
	return *host_kernel == 0;
}

void isolation(const char *host_pid, const char *host_kernel)
{
	struct new_utsname name;

	CALL(__NR_uname, &name);
	int own_kernel = !is_host_kernel(&name, host_kernel);
	long signalled = CALL(__NR_kill, parse_number(host_pid), 0);

	print("{\"isolation\":{");
	print_string("kernel", name.release);
	print_string("hostname", name.nodename);
	print_boolean("own_kernel", own_kernel);
	print_integer("pid", CALL(__NR_getpid));
	print_integer("uid", CALL(__NR_getuid));
	print_boolean("sees_host_processes", !own_kernel && (signalled == 0 || signalled == -EPERM));
	print_interfaces();
	print_integer("capabilities", count_capabilities());
	print_integer("seccomp", CALL(__NR_prctl, PR_GET_SECCOMP));
	print_boolean("no_new_privileges", CALL(__NR_prctl, PR_GET_NO_NEW_PRIVS) == 1);
	/* With a kernel of its own, it is not the host's calls that it reaches. */
	print("\"calls\":[");
	for (int number = 0; !own_kernel && number < SYSTEM_CALLS; number++) {
		if (number > 0)
			print(",");
		/* A child must not write what waits here. */
		flush();
		print_number(try_call(number));
	}
	print("]}}\n");
	flush();
}
