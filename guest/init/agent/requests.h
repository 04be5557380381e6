/* What the host's frames ask for. */
#ifndef VMLET_AGENT_REQUESTS_H
#define VMLET_AGENT_REQUESTS_H

#include "command.h"
#include "files.h"
#include "guest.h"
#include "hello.h"
#include "link.h"
#include "list.h"
#include "netlink.h"
#include "stream.h"
#include "task.h"

/* Then others have their turn. */
#define FRAMES_A_TURN 64

static int is_leaving, leaving_status;

/* A request for the connection itself. False if it breaks the protocol. */
static int handle_connection(const char *payload)
{
	const struct hello *hello = (const struct hello *)payload;

	switch (header.type) {
	case FRAME_HELLO:
		if (header.length != sizeof(*hello) || hello->magic != AGENT_MAGIC)
			return 0;
		/* The same once more says nothing new; another host begins anew. */
		return hello->nonce != 0 && hello->version == AGENT_VERSION;
	case FRAME_PING:
		if (header.length > MAX_PING)
			return 0;
		send_frame(0, FRAME_PONG, payload, header.length);
		return 1;
	default:
		return 0;
	}
}

static void cancel(struct stream *stream)
{
	if (stream->is_cancelled)
		return;
	stream->is_cancelled = 1;
	if (stream->kind == STREAM_COMMAND)
		kill_command(stream);
	else if (stream->kind == STREAM_TASK)
		call2(kill, stream->pid, SIGKILL);
	else
		fail_with(stream, -ECANCELED, "");
}

static int take_credit(struct stream *stream, const struct credit *credit)
{
	unsigned *what = credit->which == 1 ? &stream->out_credit : &stream->error_credit;

	if (header.length != sizeof(*credit) || credit->which < 1 || credit->which > 2 || credit->zero[0] || credit->zero[1] ||
	    credit->zero[2] || credit->bytes > WINDOW - *what)
		return 0;
	*what += credit->bytes;
	return 1;
}

/* A frame for a stream that is open. False if it breaks the protocol. */
static int handle_stream(struct stream *stream, const char *payload)
{
	const unsigned short *size = (const unsigned short *)payload;

	switch (header.type) {
	case FRAME_CANCEL:
		cancel(stream);
		return header.length == 0;
	case FRAME_END:
		if (header.length != 0)
			return 0;
		stream->has_host_ended = 1;
		return 1;
	case FRAME_CREDIT:
		return take_credit(stream, (const struct credit *)payload);
	case FRAME_SIGNAL:
		if (header.length != 4 || size[1] || (unsigned char)payload[1] > 1)
			return 0;
		if (stream->kind == STREAM_COMMAND)
			signal_command(stream, (unsigned char)payload[0], (unsigned char)payload[1]);
		return 1;
	case FRAME_RESIZE:
		if (header.length != 4)
			return 0;
		if (stream->kind == STREAM_COMMAND && (stream->flags & EXEC_TERMINAL) && stream->output >= 0)
			set_terminal_size(stream, size[0], size[1]);
		return 1;
	default:
		return 0;
	}
}

/* Content for a stream, straight from the ring. False if there is more than the host may send. */
static int handle_data(struct stream *stream)
{
	struct part parts[2] = { { 0, 0 }, { 0, 0 } };
	int count = ring_parts(&link.input, *link.input.tail, header.length, parts);

	if (header.length > stream->in_credit)
		return 0;
	stream->in_credit -= header.length;
	if (stream->has_host_ended || !header.length)
		return 1;
	if (stream->kind == STREAM_COMMAND) {
		if (!take_command_input(stream, parts, count, header.length))
			kill_command(stream);
	} else if (stream->kind == STREAM_WRITE) {
		take_file_input(stream, parts, count, header.length);
	}
	return 1;
}

/* Requests on one path, or two. */
static int handle_files(struct stream *stream, const char *payload, unsigned head)
{
	struct request_text text = { payload + head, payload + header.length };
	unsigned flags = *(const unsigned *)payload;
	const struct node_request *node = (const struct node_request *)payload;
	/* What a symbolic link says may be anything. */
	const char *path = header.type == FRAME_LINK && (flags & LINK_SYMBOLIC) ? take_text(&text) : take_path(&text), *other;
	int has_two = header.type == FRAME_RENAME || header.type == FRAME_LINK;

	other = has_two ? take_path(&text) : "";
	if (!path || !other || text.at != text.end)
		return 0;
	switch (header.type) {
	case FRAME_STAT:
		handle_stat(stream, flags, path);
		break;
	case FRAME_LIST:
		handle_list(stream, flags, path);
		break;
	case FRAME_READ:
		handle_read(stream, (const struct read_request *)payload, path);
		break;
	case FRAME_WRITE:
		handle_write(stream, (const struct write_request *)payload, path);
		break;
	case FRAME_MKDIR:
		handle_mkdir(stream, (const struct folder_request *)payload, path);
		break;
	case FRAME_REMOVE:
		handle_remove(stream, flags, path);
		break;
	case FRAME_RENAME:
		answer(stream, call2(rename, path, other));
		break;
	case FRAME_LINK:
		answer(stream, flags & LINK_SYMBOLIC ? call2(symlink, path, other) :
						       call5(linkat, AT_FDCWD, path, AT_FDCWD, other,
							     flags & PATH_FOLLOW ? AT_SYMLINK_FOLLOW : 0));
		break;
	case FRAME_READLINK:
		handle_readlink(stream, path);
		break;
	case FRAME_SETATTR:
		handle_attributes(stream, (const struct attributes_request *)payload, path);
		break;
	case FRAME_MKNOD:
		answer(stream, call3(mknod, path, node->mode, device_number(node->major, node->minor)));
		break;
	}
	return 1;
}

/* Requests on the guest. False if they are not valid ones. */
static int handle_guest(struct stream *stream, const char *payload, unsigned head)
{
	struct request_text text = { payload + head, payload + header.length };
	const char *word;

	switch (header.type) {
	case FRAME_WAIT_PORT:
		stream->port.request = *(const struct port_request *)payload;
		if (text.at != text.end)
			return 0;
		look_at_port(stream);
		return 1;
	case FRAME_IDENTITY:
		word = take_text(&text);
		if (!word || text.at != text.end)
			return 0;
		handle_identity(stream, (const struct identity_request *)payload, word);
		return 1;
	case FRAME_NETWORK:
		word = take_text(&text);
		if (!word || text.at != text.end)
			return 0;
		if (!has_address(word))
			fail_with(stream, -EINVAL, "it does not begin with an IPv4 address");
		else if (configure_network(word))
			finish_with(stream, 0, 0);
		else
			fail_with(stream, -ENODEV, "the kernel does not take this network");
		return 1;
	case FRAME_NETLINK:
		return handle_netlink(stream, payload, header.length);
	case FRAME_SYNC:
		if (text.at != text.end)
			return 0;
		start_task(stream, sync_all, "");
		return 1;
	case FRAME_POWER_OFF:
		leaving_status = (int)(*(const unsigned *)payload & 0xff);
		is_leaving = 1;
		return 1;
	case FRAME_MOUNT:
		handle_mount(stream, *(const unsigned *)payload, &text, 4);
		return 1;
	case FRAME_UMOUNT:
		handle_mount(stream, *(const unsigned *)payload, &text, 1);
		return 1;
	}
	return 0;
}

/* The bytes before a request's strings, and what its stream is then; 0 for what is no request. */
static unsigned request_head(unsigned type, enum stream_kind *kind)
{
	*kind = STREAM_TASK;
	switch (type) {
	case FRAME_EXEC:
		*kind = STREAM_COMMAND;
		return sizeof(struct exec_request);
	case FRAME_READ:
		*kind = STREAM_READ;
		return sizeof(struct read_request);
	case FRAME_WRITE:
		*kind = STREAM_WRITE;
		return sizeof(struct write_request);
	case FRAME_LIST:
		*kind = STREAM_LIST;
		return sizeof(unsigned);
	case FRAME_MKDIR:
		return sizeof(struct folder_request);
	case FRAME_SETATTR:
		return sizeof(struct attributes_request);
	case FRAME_MKNOD:
		return sizeof(struct node_request);
	case FRAME_STAT:
	case FRAME_REMOVE:
	case FRAME_RENAME:
	case FRAME_LINK:
	case FRAME_READLINK:
		return sizeof(unsigned);
	case FRAME_WAIT_PORT:
		*kind = STREAM_PORT;
		return sizeof(struct port_request);
	case FRAME_IDENTITY:
		return sizeof(struct identity_request);
	case FRAME_POWER_OFF:
	case FRAME_MOUNT:
	case FRAME_UMOUNT:
		return sizeof(unsigned);
	default:
		return 0;
	}
}

static void handle_request(enum stream_kind kind, unsigned head, const char *payload)
{
	struct stream *stream = new_stream(header.stream, kind);

	if (!stream) {
		send_failure(header.stream, -EAGAIN, "as many streams are open as there may be");
		return;
	}
	if (header.length < head)
		fail_with(stream, -EINVAL, "the request is not a valid one");
	else if (kind == STREAM_COMMAND)
		start_command(stream, payload, header.length);
	else if (!(header.type >= FRAME_WAIT_PORT ? handle_guest : handle_files)(stream, payload, head))
		fail_with(stream, -EINVAL, "the request is not a valid one");
}

/* The frame whose head is read, and whose payload is in the ring. False if it breaks the protocol. */
static int handle_frame(void)
{
	char *payload = agent->payload;
	enum stream_kind kind;
	unsigned head = request_head(header.type, &kind);
	int is_request = head > 0 || header.type == FRAME_NETWORK || header.type == FRAME_SYNC ||
			 header.type == FRAME_NETLINK;
	struct stream *stream = header.stream ? find_stream(header.stream) : 0;

	if (header.type == FRAME_DATA && header.stream)
		return !stream || handle_data(stream);
	ring_read(&link.input, *link.input.tail, payload, header.length);
	payload[header.length] = 0;
	if (!header.stream)
		return handle_connection(payload);
	if (is_request) {
		if (stream)
			return 0;
		handle_request(kind, head, payload);
		return 1;
	}
	if (stream)
		return handle_stream(stream, payload);
	/* Ends cross on their way. */
	return header.type == FRAME_CANCEL || header.type == FRAME_END || header.type == FRAME_CREDIT ||
	       header.type == FRAME_SIGNAL || header.type == FRAME_RESIZE;
}

/* Takes the head as soon as it is there: a frame must not wait for more room than the ring's half. */
static int take_header(void)
{
	if (ring_used(&link.input) < FRAME_HEADER)
		return 0;
	ring_read(&link.input, *link.input.tail, &header, FRAME_HEADER);
	*link.input.tail += FRAME_HEADER;
	link.has_taken = 1;
	has_header = 1;
	return 1;
}

/* False if the host has broken the protocol, or another host has come. */
static int take_frames(void)
{
	for (int i = 0; i < FRAMES_A_TURN; i++) {
		look_for_host();
		if (!has_host || (!has_header && !take_header()))
			return 1;
		if (header.length > FRAME_PAYLOAD || header.stream > LAST_STREAM || header.zero[0] || header.zero[1] || header.zero[2])
			return 0;
		if (ring_used(&link.input) < header.length)
			return 1;
		if (ring_room(&link.output) < ANSWER_ROOM) {
			is_output_blocked = 1;
			return 1;
		}
		int is_right = handle_frame();

		*link.input.tail += header.length;
		link.has_taken = 1;
		has_header = 0;
		if (!is_right)
			return 0;
		if (is_leaving)
			return 1;
	}
	is_busy = 1;
	return 1;
}

#endif
