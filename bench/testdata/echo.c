// echo: the limit for a message round trip. It listens on a unix stream socket,
// waits with epoll, and answers each 32-byte request with 36 bytes, which is what a
// 4-byte REGION_READ and its reply take. One client, then it ends.
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int main(int argc, char **argv)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	struct epoll_event ev = { .events = EPOLLIN }, got[16];
	char buf[65536];
	int l, c, ep;

	if (argc != 2 || strlen(argv[1]) >= sizeof(a.sun_path))
		return 2;
	strcpy(a.sun_path, argv[1]);
	l = socket(AF_UNIX, SOCK_STREAM, 0);
	if (bind(l, (struct sockaddr *)&a, sizeof(a)) || listen(l, 1))
		return 1;
	puts("ready");
	fflush(stdout);
	c = accept(l, NULL, NULL);
	ep = epoll_create1(0);
	ev.data.fd = c;
	if (c < 0 || epoll_ctl(ep, EPOLL_CTL_ADD, c, &ev))
		return 1;
	for (;;) {
		if (epoll_wait(ep, got, 16, -1) < 1)
			continue;
		struct iovec iov = { buf, sizeof(buf) };
		struct msghdr msg = { .msg_iov = &iov, .msg_iovlen = 1 };
		ssize_t n = recvmsg(c, &msg, MSG_DONTWAIT);
		if (n <= 0)
			return 0;
		iov.iov_len = n + 4;
		if (sendmsg(c, &msg, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
			return 0;
	}
}
