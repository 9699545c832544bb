#include "boot-desc.h"

#include <errno.h>
#include <sys/param.h>

#include "str.h"

static const char magic[8] = { 'U', 'V', 'M', 'S', 'B', 'O', 'O', 'T' };

static void require(struct wire *w, bool ok)
{
	if (!ok && w->error == 0)
		w->error = w->out ? -EINVAL : -EBADMSG;
}

static void xfer_head(struct wire *w)
{
	uint32_t version = BOOT_DESC_VERSION;
	char found[sizeof magic];

	memcpy(found, magic, sizeof magic);
	wire_bytes(w, found, sizeof found);
	require(w, memcmp(found, magic, sizeof magic) == 0);
	wire_range32(w, &version, BOOT_DESC_VERSION, BOOT_DESC_VERSION);
}

/* Whitelisted before it is compared with names in /sys or becomes a mount's source. */
static void xfer_name(struct wire *w, struct wire_str *s, uint32_t max)
{
	wire_str(w, s, max);
	require(w, w->error == 0 && str_is_name(s->s, s->len, max));
}

static bool has_dot_dot(const struct wire_str *s)
{
	for (uint32_t i = 0; i + 2 < s->len; i++)
		if (memcmp(s->s + i, "/..", 3) == 0 && (i + 3 == s->len || s->s[i + 3] == '/'))
			return true;
	return false;
}

static void xfer_layers(struct wire *w, struct boot_desc *d)
{
	wire_range32(w, &d->n_layers, 1, BOOT_DESC_LAYERS_MAX);
	for (uint32_t i = 0; w->error == 0 && i < d->n_layers; i++) {
		xfer_name(w, &d->layers[i].serial, BOOT_DESC_SERIAL_MAX);
		xfer_name(w, &d->layers[i].fstype, BOOT_DESC_FSTYPE_MAX);
	}
}

static void xfer_mounts(struct wire *w, struct boot_desc *d)
{
	wire_range32(w, &d->n_mounts, 0, BOOT_DESC_MOUNTS_MAX);
	for (uint32_t i = 0; w->error == 0 && i < d->n_mounts; i++) {
		struct boot_desc_mount *m = &d->mounts[i];

		xfer_name(w, &m->source, BOOT_DESC_TAG_MAX);
		xfer_name(w, &m->fstype, BOOT_DESC_FSTYPE_MAX);
		wire_str(w, &m->target, BOOT_DESC_PATH_MAX);
		require(w, w->error == 0 && m->target.len > 1 && m->target.s[0] == '/' &&
				   !has_dot_dot(&m->target));
		wire_range32(w, &m->flags, 0, BOOT_DESC_MOUNT_FLAGS);
	}
}

void boot_desc_xfer_network(struct wire *w, struct boot_desc_network *n)
{
	wire_bytes(w, n->mac, sizeof n->mac);
	wire_bytes(w, n->address, sizeof n->address);
	wire_bytes(w, n->gateway, sizeof n->gateway);
	wire_bytes(w, n->dns, sizeof n->dns);
	wire_range8(w, &n->prefix, 1, 32);
	wire_range32(w, &n->mtu, 576, 65535);
}

static void xfer(struct wire *w, struct boot_desc *d)
{
	xfer_head(w);
	wire_range8(w, &d->mode, BOOT_DESC_COMMAND, BOOT_DESC_INIT);
	wire_range32(w, &d->flags, 0, BOOT_DESC_FLAGS);
	wire_bytes(w, d->secret, sizeof d->secret);
	wire_bytes(w, d->seed, sizeof d->seed);
	wire_u64(w, &d->realtime_ns);
	wire_bytes(w, d->machine_id, sizeof d->machine_id);
	wire_u64(w, &d->root_size_bytes);
	wire_str(w, &d->hostname, BOOT_DESC_HOSTNAME_MAX);
	wire_str(w, &d->init, BOOT_DESC_PATH_MAX);
	wire_str(w, &d->user, BOOT_DESC_USER_MAX);
	wire_str(w, &d->workdir, BOOT_DESC_PATH_MAX);
	wire_strv(w, &d->argv, BOOT_DESC_ARGS_MAX);
	wire_strv(w, &d->env, BOOT_DESC_ENV_MAX);
	if (d->flags & BOOT_DESC_NETWORK)
		boot_desc_xfer_network(w, &d->network);
	xfer_layers(w, d);
	xfer_mounts(w, d);
}

ssize_t boot_desc_encode(const struct boot_desc *d, void *buf, size_t size)
{
	struct boot_desc copy = *d; /* the list of calls is shared with decoding */
	struct wire w = { .out = buf, .size = MIN(size, (size_t)BOOT_DESC_MAX) };

	xfer(&w, &copy);
	return w.error < 0 ? w.error : (ssize_t)w.pos;
}

int boot_desc_decode(const void *buf, size_t len, struct boot_desc *ret)
{
	struct boot_desc d = {};
	struct wire w = { .in = buf, .size = len };
	int r;

	if (len > BOOT_DESC_MAX)
		return -EBADMSG;
	xfer(&w, &d);
	r = wire_finish(&w);
	if (r < 0)
		return r;
	*ret = d;
	return 0;
}
