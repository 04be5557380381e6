/* with-filter FILE COMMAND…: runs the command under the seccomp filter that the file has. */
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	static struct sock_filter filter[8192];
	int fd = argc > 2 ? open(argv[1], O_RDONLY | O_CLOEXEC) : -1;
	ssize_t count = fd < 0 ? -1 : read(fd, filter, sizeof(filter));
	struct sock_fprog program = { (unsigned short)(count / (ssize_t)sizeof(*filter)), filter };

	if (count <= 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 || syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) != 0) {
		perror("with-filter");
		return 120;
	}
	execvp(argv[2], argv + 2);
	perror(argv[2]);
	return 121;
}
