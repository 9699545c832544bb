/*
 * What Cloud Hypervisor is told, as JSON: the bodies of vm.create and vm.add-net (vmm/src/vm_config.rs of
 * v53). Files are /proc/self/fd/N, by the numbers of enum vmm_fd; sockets are relative to the working directory.
 */
#pragma once

#include <stdbool.h>

struct vmm_config;
struct vmm_op;

/* Text on the heap, or NULL: out of memory. */
char *ch_config_vm(const struct vmm_config *c);
char *ch_config_net(const char *mac);

/* What is added while the VM runs: it opens their paths itself. */
char *ch_config_disk(const struct vmm_op *op);
char *ch_config_pmem(const struct vmm_op *op);
char *ch_config_fs(const struct vmm_op *op);

/* {KEY: "file://PATH"}. */
char *ch_config_url(const char *key, const char *path);

/*
 * What vm.restore is told: the snapshot, whose descriptor comes beside it (NULL: nobody's), and whether memory is read as
 * the guest needs it, instead of before.
 */
char *ch_config_restore(const char *path, const char *net_id, bool on_demand);
