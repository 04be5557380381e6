/* The real-time clock as hwclock and rtcwake use it: says what works, ends with 1 for what does not. */
#include <errno.h>
#include <fcntl.h>
#include <linux/rtc.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <unistd.h>

static int fail(const char *what)
{
	printf("no %s: %s\n", what, strerror(errno));
	return 1;
}

/* The flags of the next interrupt, 0 if none comes in time. */
static unsigned long interrupt(int fd, int seconds)
{
	fd_set set;
	struct timeval limit = { seconds, 0 };
	unsigned long data = 0;

	FD_ZERO(&set);
	FD_SET(fd, &set);
	errno = ETIMEDOUT;
	if (select(fd + 1, &set, NULL, NULL, &limit) != 1 || read(fd, &data, sizeof(data)) != sizeof(data))
		return 0;
	return data;
}

int main(int argc, char **argv)
{
	struct rtc_time time, set, seen;
	int limit = 30;
	int fd = open(argc > 1 ? argv[1] : "/dev/rtc0", O_RDWR);

	if (fd < 0)
		return fail("clock");
	if (ioctl(fd, RTC_UIE_ON, 0) != 0 || (interrupt(fd, limit) & RTC_UF) == 0)
		return fail("update interrupt");
	ioctl(fd, RTC_UIE_OFF, 0);
	puts("update interrupt");

	if (ioctl(fd, RTC_RD_TIME, &time) != 0)
		return fail("time");
	/* In the same hour, or the next; a day's end would need more. */
	set = time;
	set.tm_sec += 2;
	if (set.tm_sec > 59) {
		set.tm_sec -= 60;
		set.tm_min = (set.tm_min + 1) % 60;
		if (set.tm_min == 0)
			set.tm_hour = (set.tm_hour + 1) % 24;
	}
	if (ioctl(fd, RTC_ALM_SET, &set) != 0 || ioctl(fd, RTC_AIE_ON, 0) != 0 || (interrupt(fd, limit) & RTC_AF) == 0)
		return fail("alarm");
	ioctl(fd, RTC_AIE_OFF, 0);
	puts("alarm");

	memset(&set, 0, sizeof(set));
	set.tm_year = 101;
	set.tm_mon = 1;
	set.tm_mday = 3;
	set.tm_hour = 4;
	if (ioctl(fd, RTC_SET_TIME, &set) != 0 || ioctl(fd, RTC_RD_TIME, &seen) != 0)
		return fail("setting");
	if (seen.tm_year != 101 || seen.tm_mon != 1 || seen.tm_mday != 3 || seen.tm_hour != 4)
		return fail("time that was set");
	puts("setting");
	return 0;
}
