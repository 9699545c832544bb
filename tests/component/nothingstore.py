"""A store with the image `nothing` and a kernel that nothing boots: enough for the null back-end."""
import pathlib
import struct


def tiny_kernel():
    """An ELF file with nothing but the note that makes it bootable by PVH (XEN_ELFNOTE_PHYS32_ENTRY)."""
    note = struct.pack("<III4sI", 4, 4, 18, b"Xen\0", 0x100000)
    header = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\x02\x01\x01", 2, 62, 1, 0x100000, 64, 0, 0, 64, 56,
                         1, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 4, 4, 120, 0, 0, len(note), len(note), 4)
    return header + segment + note + b"Linux version 0.0.1 (nobody)\0"


def make_store(host, d):
    d = pathlib.Path(d)
    (d / "root").mkdir()
    (d / "kernel").write_bytes(tiny_kernel())
    modules = d / "modules"
    modules.mkdir()
    names = ("virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_blk vsock "
             "vmw_vsock_virtio_transport_common vmw_vsock_virtio_transport erofs overlay virtio-rng "
             "virtio_balloon").split()
    (modules / "modules.builtin").write_text("".join(f"kernel/x/{n}.ko\n" for n in names))
    for empty in ("modules.dep", "modules.order"):
        (modules / empty).write_text("")
    host.run("kernel", "add", str(d / "kernel"), "--modules", str(modules), "--name", "none", check=0)
    host.run("image", "build", "nothing", "--from-dir", str(d / "root"), check=0)
