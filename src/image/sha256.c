#include "sha256.h"

#include <dlfcn.h>
#include <errno.h>
#include <openssl/evp.h>
#include <openssl/opensslv.h>

#define SONAME_OF(major)   SONAME_TEXT(major)
#define SONAME_TEXT(major) "libcrypto.so." #major

#if OPENSSL_VERSION_MAJOR < 3
#error "libcrypto 3 or later is needed"
#endif

/* The function NAME of the loaded library with its own type; NULL when it has none. */
#define SHA256_SYMBOL(s, name) ((__typeof__(name) *)dlsym((s)->library, #name))

/* Second, where the loader does not look by itself: Nix, a prefix of its own. */
static void *sha256_load(void)
{
	void *library = dlopen(SONAME_OF(OPENSSL_VERSION_MAJOR), RTLD_NOW | RTLD_LOCAL);

	return library ? library
		       : dlopen(LIBCRYPTO_DIR "/" SONAME_OF(OPENSSL_VERSION_MAJOR),
				 RTLD_NOW | RTLD_LOCAL);
}

int sha256_begin(struct sha256 *ret)
{
	struct sha256 s = { .library = sha256_load() };
	__typeof__(EVP_MD_CTX_new) *new_ctx = s.library ? SHA256_SYMBOL(&s, EVP_MD_CTX_new) : NULL;
	__typeof__(EVP_DigestInit_ex) *init =
		s.library ? SHA256_SYMBOL(&s, EVP_DigestInit_ex) : NULL;
	__typeof__(EVP_sha256) *md = s.library ? SHA256_SYMBOL(&s, EVP_sha256) : NULL;

	if (!new_ctx || !init || !md) {
		sha256_finish(&s);
		return -ENOPKG;
	}
	s.ctx = new_ctx();
	if (!s.ctx || init(s.ctx, md(), NULL) != 1) {
		sha256_finish(&s);
		return -ENOMEM;
	}
	*ret = s;
	return 0;
}

int sha256_update(struct sha256 *s, const void *data, size_t len)
{
	__typeof__(EVP_DigestUpdate) *update = SHA256_SYMBOL(s, EVP_DigestUpdate);

	return update && update(s->ctx, data, len) == 1 ? 0 : -EIO;
}

int sha256_end(struct sha256 *s, uint8_t ret[static SHA256_BYTES])
{
	__typeof__(EVP_DigestFinal_ex) *final = SHA256_SYMBOL(s, EVP_DigestFinal_ex);

	return final && final(s->ctx, ret, NULL) == 1 ? 0 : -EIO;
}

void sha256_finish(struct sha256 *s)
{
	__typeof__(EVP_MD_CTX_free) *free_ctx = s->ctx ? SHA256_SYMBOL(s, EVP_MD_CTX_free) : NULL;

	if (free_ctx)
		free_ctx(s->ctx);
	if (s->library)
		dlclose(s->library);
	*s = (struct sha256){ 0 };
}
