/*
 * What supervisor, CLI and guest agent say to each other over vsock.
 *
 * Theory of operation. A frame is an 8-byte header {u32 payload length, u8 type, u8 flags (0), u16
 * 0} and a payload; everything is little endian. This file turns frames into structs and back: pure,
 * no I/O, no allocation; decoded strings are views into the caller's buffer and not terminated. Both
 * ends are hostile to each other: a frame that does not decode, or that comes where it is not
 * expected, costs its connection and nothing else. A type's layout and meaning never change; a new
 * meaning is a new type, and AGENT_WIRE_VERSION says from which version on it may be sent.
 *
 * Call home. The guest dials CID 2, port AGENT_PORT:
 *
 *	guest  HELLO{stage, secret, boot_id}          host  WELCOME{realtime, seed}
 *
 * A wrong secret: the host closes. Stage INIT comes from the initramfs before the image's init runs,
 * and the guest closes after WELCOME. Stage AGENT stays open for the VM's life; in COMMAND mode it is
 * the only one. On it the guest sends READY, MAIN_EXIT, LOG, DONE and PONG, the host sends STOP, CLOCK,
 * ENTROPY, PING and, from version 3 on, NETWORK, FREEZE and THAW, from version 4 on MOUNT and UNMOUNT. All but PING are
 * answered by DONE; STOP, CLOCK, ENTROPY and THAW in order; NETWORK and MOUNT, which wait for their device to
 * come, when that is set up or does not come within AGENT_WIRE_LINK_MS (ETIMEDOUT); MOUNT and UNMOUNT after AGENT_WIRE_MOUNT_MS
 * even if the kernel does not come back from it (ETIMEDOUT). If the connection is
 * lost (a replaced device process), the guest dials again with stage AGENT and repeats its last READY;
 * on a second AGENT connection with the right secret the host drops the first.
 *
 * FREEZE: until THAW no other program of the guest runs; DONE says that none does, or why that cannot be had
 * (EOPNOTSUPP: its kernel has no cgroup2; ETIMEDOUT), and then all run. Connections that end in between
 * change nothing. So a guest is saved, and what goes on with what was saved first learns the time and gets
 * entropy by WELCOME (or CLOCK and ENTROPY), and only then THAW. THAW when nothing is frozen is no error.
 *
 * MOUNT: a device that was added is mounted at PATH, which is made with its parents where it is not there: of virtiofs
 * the one with this TAG, of pmem the one of this many BYTES that is not mounted yet (EROFS, read-only; ENOTUNIQ: there
 * are several). A second one of the same PATH and kind that is mounted already is no error (EBUSY: another kind is); ENODEV:
 * its kernel has no such driver or file system. UNMOUNT{path}: EBUSY says that it is in use, EINVAL that nothing of ours
 * is mounted there, ETIMEDOUT that it hangs, and its device is in use for as long as it does. Both are done one after the
 * other; one that repeats what is being done (its answer may be lost with a connection) has no answer of its own.
 *
 * READY is sent once per connection:
 *	COMMAND   the agent accepts sessions and a command can be executed; if the boot description has
 *	          a command of its own, it *has been* executed (execve succeeded).
 *	RUNNING   the image's init has ended its start-up.
 *	DEGRADED  the same, with failed units; text names them, one a line.
 * A boot description's own command that cannot be executed gives MAIN_EXIT{EXITED, 125…127} and no
 * READY.
 *
 * Sessions. The host connects to port AGENT_PORT of the guest:
 *
 *	host  AUTH{secret}                            guest  AUTH_OK (or closes; 2 s deadline)
 *	host  one of EXEC, ATTACH, FORWARD, INFO, COPY_GET, COPY_PUT
 *
 * The supervisor does the first line and hands the connected descriptor to the CLI for the rest.
 *
 *	EXEC      STARTED (execve has succeeded) or FAILED{code 125|126|127}, which ends the session.
 *	          Then DATA and EOF both ways, each numbered by the stream's byte offset: the host sends
 *	          stream 0 (only with AGENT_EXEC_STDIN), the guest streams 1 and 2 (a TTY has only 0 and
 *	          1). The receiver ACKs what it has consumed as an absolute offset; a sender has at most
 *	          AGENT_WIRE_WINDOW bytes unacknowledged per stream and sends nothing beyond it. EOF
 *	          carries the stream's length. EOF of stream 0 on a TTY is sent to it as ^D. The host may
 *	          send SIGNAL (to the foreground group of a TTY, else to the session's process group) and
 *	          WINSIZE. EXIT comes last, after all output; streams that a grandchild holds open are
 *	          given up 100 ms after the process's end, then EXIT comes without their EOF. EXIT_ACK
 *	          ends the session. A host that closes before: SIGHUP, 5 s later SIGKILL, to the group; from
 *	          version 2 on not before the time that ATTACH has.
 *	          With AGENT_EXEC_MAIN the VM powers off when the session is over.
 *	          From version 2 on the host may number its signals: SIGNAL_N{1, 2, …}, after STARTED. The
 *	          guest delivers each number once, in order, and answers SIGNAL_ACK with the last number
 *	          that it has delivered.
 *	ATTACH    from version 2 on; before, it is answered by FAILED{125, EOPNOTSUPP}. A session outlives its
 *	          connection: when that is lost, the guest goes on as far as the windows reach and waits. ATTACH
 *	          {id, bytes of streams 1 and 2 received so far; 0 for stream 0} makes this connection the
 *	          session's, also when the guest thinks that it has one: the older is closed then. ATTACHED says
 *	          whether STARTED was sent, how much of stream 0 and whether its EOF was received, and the last
 *	          SIGNAL_N. Then both go on from there: each sends again what the other has not received
 *	          (DATA, EOF, SIGNAL_N), an ACK for each stream that it receives, the host WINSIZE, the guest
 *	          EXIT if it came to that. STARTED comes only if ATTACHED did not say it. What was received
 *	          is never sent again.
 *	          FAILED{125, ENOENT}: no session ever had that id, so the EXEC has not arrived and may be sent
 *	          again with the same id. An EXEC whose id is known gets FAILED{125, EEXIST} and changes
 *	          nothing. FAILED{125, ESRCH}: that session is over, or was given up.
 *	          How long a session without a connection waits: AGENT_WIRE_GRACE_MS. If the agent's call home
 *	          was lost too (the device was replaced), until AGENT_WIRE_RETURN_MS after that stands again;
 *	          AGENT_WIRE_KEEP_MS in all. Then SIGHUP, 5 s later SIGKILL. The exit status and the rest of
 *	          the output of a process that has ended are kept for AGENT_WIRE_KEEP_MS; of an
 *	          AGENT_EXEC_MAIN one only as long as it would have waited.
 *	          HANGUP (from version 2 on) says that the host closes for good: SIGHUP at once.
 *	FORWARD   FORWARD_OK or FAILED; after FORWARD_OK the connection carries raw bytes, no frames, and
 *	          a half-close (shutdown(2)) in either direction is passed on.
 *	INFO      INFO_REPLY, and the guest closes.
 *	COPY_GET  COPY_OK or FAILED{1}; after COPY_OK the guest sends a tree as a tar stream (tar-wire.h) in
 *	          COPY_DATA, COPY_NOTE for entries that are not as they should be, and COPY_DONE at the end.
 *	COPY_PUT  the same the other way: after COPY_OK the host sends COPY_DATA and COPY_END, and the guest
 *	          COPY_NOTE at any time and COPY_DONE once: after COPY_END, or before it when it cannot go
 *	          on. A host that closes without COPY_END has given up: the file that was being
 *	          written is removed.
 *	          The stream carries no end mark of tar; one that has it may be sent. There is no window:
 *	          a receiver that does not read stalls the sender. An agent from before these types
 *	          closes the connection.
 *
 * Port AGENT_PORT is below 1024: in the guest only root can bind it or send from it; on the host no
 * policy, forward or sibling may reach it.
 */
#pragma once

#include "boot-desc.h"
#include "wire.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define AGENT_WIRE_VERSION                                                                         \
	4 /* 2: ATTACH, ATTACHED, SIGNAL_N, SIGNAL_ACK, HANGUP; 3: NETWORK, FREEZE, THAW; 4: MOUNT, UNMOUNT */
#define AGENT_PORT                 1023

#define AGENT_WIRE_HEADER          8
#define AGENT_WIRE_PAYLOAD_MAX     (64 * 1024 + 64)
#define AGENT_WIRE_FRAME_MAX       (AGENT_WIRE_HEADER + AGENT_WIRE_PAYLOAD_MAX)

#define AGENT_WIRE_SECRET          32
#define AGENT_WIRE_SEED            64
#define AGENT_WIRE_ID              16
#define AGENT_WIRE_DATA_MAX        (32 * 1024) /* bytes in one DATA */
#define AGENT_WIRE_WINDOW          (64 * 1024) /* unacknowledged bytes per stream and direction */
#define AGENT_WIRE_ARGS_MAX        1024
#define AGENT_WIRE_ENV_MAX         1024
#define AGENT_WIRE_TEXT_MAX        4096 /* READY, LOG, FAILED */
#define AGENT_WIRE_INFO_MAX        (16 * 1024)
#define AGENT_WIRE_PATH_MAX        4095
#define AGENT_WIRE_USER_MAX        255
#define AGENT_WIRE_TERM_MAX        63
#define AGENT_WIRE_TAG_MAX         36          /* virtio spec 5.11.4 */
#define AGENT_WIRE_COPY_MAX        (64 * 1024) /* bytes in one COPY_DATA */

#define AGENT_WIRE_VERSION_ATTACH  2
#define AGENT_WIRE_VERSION_NETWORK 3
#define AGENT_WIRE_VERSION_FREEZE  3
#define AGENT_WIRE_VERSION_MOUNT   4
#define AGENT_WIRE_LINK_MS         5000
#define AGENT_WIRE_MOUNT_MS        6000
#define AGENT_WIRE_GRACE_MS        2000
#define AGENT_WIRE_RETURN_MS       (10 * 1000)
#define AGENT_WIRE_KEEP_MS         (60 * 1000)

enum agent_wire_type {
	/* call home */
	AGENT_WIRE_HELLO = 0x01,
	AGENT_WIRE_WELCOME = 0x02,
	AGENT_WIRE_READY = 0x03,
	AGENT_WIRE_MAIN_EXIT = 0x04,
	AGENT_WIRE_LOG = 0x05,
	AGENT_WIRE_STOP = 0x06,
	AGENT_WIRE_DONE = 0x07,
	AGENT_WIRE_CLOCK = 0x08,
	AGENT_WIRE_ENTROPY = 0x09,
	AGENT_WIRE_PING = 0x0a,
	AGENT_WIRE_PONG = 0x0b,
	AGENT_WIRE_NETWORK = 0x0c,
	AGENT_WIRE_FREEZE = 0x0d,
	AGENT_WIRE_THAW = 0x0e,
	AGENT_WIRE_MOUNT = 0x0f,
	AGENT_WIRE_UNMOUNT = 0x10,
	/* a session's start */
	AGENT_WIRE_AUTH = 0x20,
	AGENT_WIRE_AUTH_OK = 0x21,
	AGENT_WIRE_EXEC = 0x22,
	AGENT_WIRE_ATTACH = 0x23,
	AGENT_WIRE_FORWARD = 0x24,
	AGENT_WIRE_INFO = 0x25,
	/* file copy; the rest up to 0x2f is reserved for it */
	AGENT_WIRE_COPY_GET = 0x26,
	AGENT_WIRE_COPY_PUT = 0x27,
	AGENT_WIRE_COPY_OK = 0x28,
	AGENT_WIRE_COPY_DATA = 0x29,
	AGENT_WIRE_COPY_END = 0x2a,
	AGENT_WIRE_COPY_NOTE = 0x2b,
	AGENT_WIRE_COPY_DONE = 0x2c,
	AGENT_WIRE_STARTED = 0x30,
	AGENT_WIRE_FAILED = 0x31,
	AGENT_WIRE_FORWARD_OK = 0x32,
	AGENT_WIRE_INFO_REPLY = 0x33,
	AGENT_WIRE_ATTACHED = 0x34,
	/* a session's streams */
	AGENT_WIRE_DATA = 0x40,
	AGENT_WIRE_EOF = 0x41,
	AGENT_WIRE_ACK = 0x42,
	AGENT_WIRE_SIGNAL = 0x43,
	AGENT_WIRE_WINSIZE = 0x44,
	AGENT_WIRE_EXIT = 0x45,
	AGENT_WIRE_EXIT_ACK = 0x46,
	AGENT_WIRE_SIGNAL_N = 0x47,
	AGENT_WIRE_SIGNAL_ACK = 0x48,
	AGENT_WIRE_HANGUP = 0x49,
};

enum agent_wire_stage {
	AGENT_STAGE_INIT = 1,
	AGENT_STAGE_AGENT = 2,
};

enum agent_wire_ready {
	AGENT_READY_COMMAND = 1,
	AGENT_READY_RUNNING = 2,
	AGENT_READY_DEGRADED = 3,
};

enum agent_wire_exit {
	AGENT_EXITED = 1,   /* code is the exit status, 0 … 255 */
	AGENT_SIGNALED = 2, /* code is the signal's number (x86-64 Linux) */
};

enum agent_wire_stop {
	AGENT_STOP_POWEROFF = 1,
	AGENT_STOP_REBOOT = 2,
	AGENT_STOP_HALT = 3,
};

enum agent_wire_mount {
	AGENT_MOUNT_VIRTIOFS = 1,
	AGENT_MOUNT_PMEM = 2,
};

enum agent_wire_forward {
	AGENT_FORWARD_TCP = 1,   /* port, on 127.0.0.1, then ::1 */
	AGENT_FORWARD_UNIX = 2,  /* path, absolute */
	AGENT_FORWARD_VSOCK = 3, /* port, in the guest itself */
};

enum agent_wire_exec_flags {
	AGENT_EXEC_TTY = 1 << 0,
	AGENT_EXEC_STDIN = 1 << 1, /* else /dev/null; implied by TTY */
	AGENT_EXEC_MAIN = 1 << 2,
	AGENT_EXEC_FLAGS = (1 << 3) - 1,
};

enum agent_wire_attached_flags {
	AGENT_ATTACHED_STARTED = 1 << 0,   /* pid is valid */
	AGENT_ATTACHED_STDIN_END = 1 << 1, /* EOF of stream 0 was received */
	AGENT_ATTACHED_FLAGS = (1 << 2) - 1,
};

enum agent_wire_copy_flags {
	AGENT_COPY_FOLLOW = 1 << 0,    /* GET: if PATH is a symbolic link, what it points to */
	AGENT_COPY_ONE_FS = 1 << 1,    /* GET: nothing of other file systems below PATH */
	AGENT_COPY_OWNER = 1 << 2,     /* PUT: owners, setuid and setgid are kept */
	AGENT_COPY_DIRECTORY = 1 << 3, /* PUT: PATH has to be a directory */
	AGENT_COPY_CONTENTS =
		1 << 4, /* PUT: names are those below PATH, which is made if need be */
	AGENT_COPY_FLAGS = (1 << 5) - 1,
};

/* What an entry of a copied tree suffered. */
enum agent_wire_copy_note {
	/* it is not there, or not whole */
	AGENT_COPY_FAILED = 1, /* error says why */
	AGENT_COPY_CHANGED,    /* it grew smaller while it was read: filled up with zeros */
	AGENT_COPY_OUTSIDE,    /* its name leads out of the target */
	AGENT_COPY_FORM,       /* a form or type that is not supported */
	AGENT_COPY_REFUSED,    /* a device node, which is never made */
	/* worth a warning */
	AGENT_COPY_APART,  /* copied, but as a file apart instead of a hard link */
	AGENT_COPY_SOCKET, /* left out: a socket */
	AGENT_COPY_DEVICE, /* left out: a device node */
	AGENT_COPY_MOUNT,  /* left out: another file system */
	AGENT_COPY_OWNED,  /* copied, but owners cannot be given; said once */
	AGENT_COPY_NOTES,
};

enum agent_wire_stream {
	AGENT_STDIN = 0,
	AGENT_STDOUT = 1,
	AGENT_STDERR = 2,
	AGENT_STREAMS,
};

struct agent_wire_msg {
	uint8_t type; /* enum agent_wire_type; says which member of the union */
	union {
		struct {
			uint32_t version;
			uint8_t stage; /* enum agent_wire_stage */
			uint8_t secret[AGENT_WIRE_SECRET];
			uint8_t boot_id[AGENT_WIRE_ID];
		} hello;
		struct {
			uint32_t version;
			uint64_t realtime_ns; /* CLOCK_REALTIME of the host */
			uint8_t seed[AGENT_WIRE_SEED];
		} welcome;
		struct {
			uint8_t state; /* enum agent_wire_ready */
			struct wire_str text;
		} ready;
		struct {
			struct wire_str text;
		} log;
		struct {
			uint8_t mode;         /* enum agent_wire_stop */
			uint32_t deadline_ms; /* COMMAND mode: SIGTERM to SIGKILL; 0 means 5 s */
		} stop;
		struct {
			uint8_t request; /* enum agent_wire_type: STOP and all below but PING */
			uint32_t error;  /* 0 or a positive errno of x86-64 Linux */
		} done;
		struct {
			uint64_t realtime_ns;
		} clock;
		struct {
			uint8_t seed[AGENT_WIRE_SEED];
		} entropy;
		struct boot_desc_network network;
		struct {
			uint8_t kind;         /* enum agent_wire_mount */
			uint64_t bytes;       /* PMEM: of the device */
			struct wire_str tag;  /* VIRTIOFS: 1 … AGENT_WIRE_TAG_MAX bytes */
			struct wire_str path; /* absolute */
		} mount;
		struct {
			struct wire_str path;
		} unmount;
		struct {
			uint64_t cookie;
		} ping; /* and PONG: the same cookie */
		struct {
			uint32_t version;
			uint8_t secret[AGENT_WIRE_SECRET];
		} auth;
		struct {
			uint32_t version;
		} auth_ok;
		struct {
			uint32_t flags; /* enum agent_wire_exec_flags */
			uint8_t id[AGENT_WIRE_ID];
			uint16_t rows, cols;     /* TTY; 0: leave alone */
			struct wire_str user;    /* "", name, uid, uid:gid, name:group */
			struct wire_str workdir; /* "" is / */
			struct wire_str term;    /* $TERM of a TTY; "" is "linux" */
			struct wire_strv argv;   /* at least one */
			struct wire_strv env;    /* NAME=VALUE, over the defaults */
		} exec;
		struct {
			uint8_t id[AGENT_WIRE_ID];
			uint64_t offsets[AGENT_STREAMS]; /* received so far */
		} attach;
		struct {
			uint8_t flags; /* enum agent_wire_attached_flags */
			uint32_t pid;
			uint64_t received;    /* of stream 0 */
			uint32_t signal_last; /* number of the last SIGNAL_N; 0: none */
		} attached;
		struct {
			uint8_t kind; /* enum agent_wire_forward */
			uint32_t port;
			struct wire_str path;
		} forward;
		struct {
			uint32_t flags;       /* enum agent_wire_copy_flags */
			struct wire_str path; /* of the guest; relative to / */
		} copy;                       /* GET and PUT */
		struct {
			const void *bytes;
			uint32_t n_bytes; /* 1 … AGENT_WIRE_COPY_MAX */
		} copy_data;
		struct {
			uint8_t kind;   /* enum agent_wire_copy_note */
			uint32_t error; /* FAILED: positive errno of x86-64 Linux */
			struct wire_str path;
		} copy_note;
		struct {
			uint32_t error; /* what ended it before its time; 0: nothing */
			uint64_t n_entries;
			struct wire_str path; /* with an error: where */
		} copy_done;
		struct {
			uint32_t pid; /* in the guest; for messages only */
		} started;
		struct {
			uint8_t code;   /* exit status for the user: 125, 126, 127; 1 for FORWARD */
			uint32_t error; /* positive errno */
			struct wire_str text;
		} failed;
		struct {
			struct wire_str text; /* "key=value\n" … */
		} info_reply;
		struct {
			uint8_t stream; /* enum agent_wire_stream */
			uint64_t offset;
			const void *bytes;
			uint32_t n_bytes; /* 1 … AGENT_WIRE_DATA_MAX */
		} data;
		struct {
			uint8_t stream;
			uint64_t offset;
		} eof; /* offset: the stream's length */
		struct {
			uint8_t stream;
			uint64_t offset;
		} ack; /* offset: bytes consumed */
		struct {
			uint8_t signo; /* 1 … 64 */
		} signal;
		struct {
			uint32_t number;
			uint8_t signo;
		} signal_n;
		struct {
			uint32_t number;
		} signal_ack;
		struct {
			uint16_t rows, cols;
		} winsize;
		struct {
			uint8_t kind;  /* enum agent_wire_exit */
			uint32_t code; /* 0 … 255 */
			uint8_t core;  /* 1: it left a core dump */
		} exit;                /* and MAIN_EXIT */
	};
};

/*
 * Writes the whole frame to BUF (AGENT_WIRE_FRAME_MAX always suffices for a message that fits at all).
 * Returns its length; -ENOBUFS: SIZE or the payload limit exceeded; -EINVAL: a field is out of its
 * range, a string too long or with a NUL in it; -EOPNOTSUPP: no such type.
 */
ssize_t agent_wire_encode(const struct agent_wire_msg *m, void *buf, size_t size);

/*
 * Decodes the frame at the start of BUF. Returns its length in bytes; 0: more bytes are needed;
 * -EBADMSG: malformed, close the connection. Views in *RET stay valid as long as BUF is unchanged.
 */
ssize_t agent_wire_decode(const void *buf, size_t len, struct agent_wire_msg *ret);

/* What the header at BUF (AGENT_WIRE_HEADER bytes) says of its payload's length; it may be too large. */
uint32_t agent_wire_payload_length(const uint8_t buf[static AGENT_WIRE_HEADER]);

/* The header of a COPY_DATA frame of N bytes, for senders that have these in place. */
void agent_wire_copy_head(uint8_t ret[static AGENT_WIRE_HEADER], uint32_t n);

const char *agent_wire_type_name(uint8_t type); /* "EXEC"; NULL if there is none */
