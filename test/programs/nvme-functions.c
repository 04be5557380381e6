/* nvme-functions DEVICE FUNCTION...: gives each virtual function of an NVMe controller queues and interrupts, and sets it online
 * (NVM Express Base 1.4 §5.22, Virtualization Management). */
#include <errno.h>
#include <fcntl.h>
#include <linux/nvme_ioctl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#define VIRTUALIZATION_MANAGEMENT 0x1c
enum resource { QUEUES, INTERRUPTS };
enum action { OFFLINE = 7, ASSIGN = 8, ONLINE = 9 };

static void manage(int fd, unsigned function, enum resource resource, enum action action, unsigned count)
{
	struct nvme_admin_cmd command = {
		.opcode = VIRTUALIZATION_MANAGEMENT,
		.cdw10 = function << 16 | resource << 8 | action,
		.cdw11 = count,
	};
	int status = ioctl(fd, NVME_IOCTL_ADMIN_CMD, &command);

	if (status == 0)
		return;
	fprintf(stderr, "function %u, action %u: %s\n", function, action, status < 0 ? strerror(errno) : "refused");
	exit(1);
}

int main(int argc, char **argv)
{
	int fd = argc < 3 ? -1 : open(argv[1], O_RDONLY);

	if (fd < 0) {
		fprintf(stderr, "usage: nvme-functions DEVICE FUNCTION...\n");
		return 1;
	}
	for (int i = 2; i < argc; i++) {
		unsigned function = (unsigned)atoi(argv[i]);

		/* One that is online takes no others. */
		manage(fd, function, QUEUES, OFFLINE, 0);
		manage(fd, function, INTERRUPTS, ASSIGN, 1);
		manage(fd, function, QUEUES, ASSIGN, 2);
		manage(fd, function, QUEUES, ONLINE, 0);
	}
	return 0;
}
