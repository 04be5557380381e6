/* The lab's PID 1: mounts what programs expect, opens the way to the host, and starts the agent on it, which is that of the
 * guests (guest/init, docs/agent-protocol.md): over one virtio-serial port, or over two serial lines whose names it is given,
 * the one that is written to and the one that is read from. It reaps, and powers off once the agent has ended: the host has
 * hung up then; a serial line does not tell.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/serial.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#define AGENT "/sbin/agent"
#define PORT_TRIES 500
#define PORT_WAIT_US 10000

/* `why` is for the console, which the host shows when the lab has gone. */
static void power_off(const char *why)
{
	fprintf(stderr, "lab: %s\n", why);
	sync();
	reboot(RB_POWER_OFF);
	for (;;)
		pause();
}

static void mount_one(const char *type, const char *at, const char *data)
{
	if (mount(type, at, type, 0, data) < 0)
		fprintf(stderr, "lab: mount %s: %s\n", at, strerror(errno));
}

static void mount_all(void)
{
	mount_one("devtmpfs", "/dev", "mode=0755");
	mkdir("/dev/pts", 0755);
	mount_one("devpts", "/dev/pts", "gid=5,mode=0620,ptmxmode=0666");
	mkdir("/dev/shm", 01777);
	mount_one("tmpfs", "/dev/shm", "mode=1777");
	mount_one("proc", "/proc", NULL);
	mount_one("sysfs", "/sys", NULL);
	mount_one("tmpfs", "/tmp", "mode=1777");
	mount_one("tmpfs", "/run", "mode=0755");
	mount_one("tmpfs", "/root", "mode=0700");
	mount_one("tmpfs", "/output", "mode=0755");
	symlink("/proc/self/fd", "/dev/fd");
}

/* The emulated UART drops what does not fit into its FIFO; without one it waits until a byte is read.
 * The driver gives errors for an open line that changes its type: it is opened for this alone. */
static void turn_off_fifo(const char *path)
{
	struct serial_struct serial;
	int fd = open(path, O_RDONLY | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0 || ioctl(fd, TIOCGSERIAL, &serial) < 0)
		power_off(path);
	serial.type = PORT_16450;
	if (ioctl(fd, TIOCSSERIAL, &serial) < 0)
		power_off(path);
	close(fd);
}

/* Every byte as it is. */
static int open_line(const char *path, int flags)
{
	struct termios mode;
	int fd = open(path, flags | O_NOCTTY | O_NONBLOCK);

	if (fd < 0 || tcgetattr(fd, &mode) < 0)
		power_off(path);
	cfmakeraw(&mode);
	mode.c_cflag |= CLOCAL | CREAD;
	cfsetspeed(&mode, B115200);
	tcsetattr(fd, TCSANOW, &mode);
	return fd;
}

static int open_port(void)
{
	for (int tries = 0; tries < PORT_TRIES; tries++) {
		glob_t found;

		if (glob("/dev/vport*p1", 0, NULL, &found) == 0) {
			int port = open(found.gl_pathv[0], O_RDWR | O_NONBLOCK);

			globfree(&found);
			if (port >= 0)
				return port;
		}
		usleep(PORT_WAIT_US);
	}
	power_off("no virtio-serial port");
	return -1;
}

static pid_t start_agent(int in, int out)
{
	char input[16], output[16];
	pid_t agent = fork();

	if (agent != 0)
		return agent;
	snprintf(input, sizeof(input), "%d", in);
	snprintf(output, sizeof(output), "%d", out);
	chdir("/root");
	execl(AGENT, "agent", "agent", input, output, (char *)NULL);
	power_off(AGENT);
	return -1;
}

int main(int argc, char **argv)
{
	int in, out;

	mount_all();
	sethostname("lab", 3);
	if (argc == 3) {
		turn_off_fifo(argv[2]);
		out = open_line(argv[1], O_WRONLY);
		in = open_line(argv[2], O_RDONLY);
	} else {
		in = out = open_port();
	}
	pid_t agent = start_agent(in, out);

	if (agent < 0)
		power_off(strerror(errno));
	close(in);
	if (out != in)
		close(out);
	for (pid_t ended; (ended = wait(NULL)) != agent;)
		if (ended < 0 && errno != EINTR)
			break;
	power_off("the agent has ended: the host has hung up");
}
