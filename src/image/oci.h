/* Words and small readers of the OCI image format (opencontainers image-spec 1.1). */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct json_object;

#define OCI_MANIFEST "application/vnd.oci.image.manifest.v1+json"
#define OCI_CONFIG   "application/vnd.oci.image.config.v1+json"
#define OCI_EMPTY    "application/vnd.oci.empty.v1+json"
#define OCI_LAYER    "application/vnd.uvms.layer.v1.erofs"
#define OCI_KERNEL   "application/vnd.uvms.kernel.v1"
#define OCI_VMLINUX  "application/vnd.uvms.kernel.file.v1"
#define OCI_MODULES  "application/vnd.uvms.kernel.modules.v1.cpio"

#define OCI_NAME     "org.opencontainers.image.ref.name"
#define OCI_CREATED  "org.opencontainers.image.created"
#define OCI_RELEASE  "io.uvms.kernel.release"
#define OCI_DEFAULT  "io.uvms.kernel.default"

/* "sha256:" and 64 lower-case hex digits: safe as a file name behind the colon. */
bool oci_digest_is_valid(const char *digest);

/*
 * [a-z0-9][a-z0-9._-]*(:PORT/)?[a-z0-9._/-]*(:[a-zA-Z0-9._-]+)?, at most 255 bytes. NULL, or what is
 * wrong.
 */
const char *oci_name_problem(const char *name);

/*
 * The short form of a reference, on the heap: without "docker.io/" and "library/" at its front, without
 * ":latest" and without a digest at its end.
 */
char *oci_name_familiar(const char *ref);

/* Borrowed members of OBJ; NULL when it is no object, or there is none of that type. */
const char *oci_str(struct json_object *obj, const char *key);
struct json_object *oci_object(struct json_object *obj, const char *key);
struct json_object *oci_array(struct json_object *obj, const char *key);
const char *oci_annotation(struct json_object *obj, const char *key);

/* A descriptor's size; 0 when it has none. */
uint64_t oci_size(struct json_object *descriptor);

/* {mediaType, digest, size}: a new object, NULL without memory. */
struct json_object *oci_descriptor(const char *media_type, const char *digest, uint64_t size);

/* Sets annotations[KEY] of OBJ. */
void oci_annotate(struct json_object *obj, const char *key, const char *value);
