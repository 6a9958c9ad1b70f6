#!/bin/bash
# setup.sh DEST - makes the files of the test guest in the folder DEST: a QEMU that
# knows vfio-user-pci, a Linux kernel and an initramfs with the tools of the tests.
#
# All of it are unmodified Debian packages, unpacked but never installed; see debian.sh.
#
#   DEST/bin/...                  run unpacked programs with their own loader and libraries:
#                                 qemu-system-x86_64, and for networks ip, iperf3, passt, busybox
#   DEST/vmlinux                  the cloud kernel, decompressed
#   DEST/vmlinuz                  the same as it came, for kexec
#   DEST/disk.cpio                initramfs: busybox, util-linux, pciutils, kexec-tools, init; nvme-cli, fio, e2fsprogs,
#                                 the module of virtio_blk (for disks of QEMU's own)
#   DEST/network.cpio             initramfs: the same without what is for disks; iproute2, ethtool, iperf3, socat,
#                                 the modules of virtio_net and 8021q
#   DEST/VERSIONS                 "package version", one a line
#   DEST/debian                   the unpacked packages
#
# Exit status 3: this machine cannot have the guest; the last line says why.
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
. "$here/debian.sh"

qemu_packages=(qemu-system-x86) # (QEMU 11 comes from the backports)
guest_packages=(busybox-static dash util-linux util-linux-extra pciutils kexec-tools nvme-cli fio e2fsprogs
  iproute2 ethtool iperf3 socat)
host_packages=(passt)
build_packages=(zstd xz-utils)
base_tools=(usr/bin/dash usr/bin/lspci usr/bin/dmesg usr/bin/setpci usr/sbin/kexec usr/sbin/rtcwake)
disk_tools=(usr/sbin/nvme usr/bin/fio usr/sbin/mkfs.ext4 usr/sbin/e2fsck usr/sbin/blkdiscard usr/sbin/fstrim usr/sbin/blkpr)
network_tools=(usr/bin/ip usr/bin/ss usr/bin/nstat usr/sbin/bridge usr/sbin/ethtool usr/bin/iperf3 usr/bin/socat)
# Each after those that it needs (nothing but depmod knows, which runs at installation).
disk_modules=(drivers/block/virtio_blk)
network_modules=(net/core/failover drivers/net/net_failover drivers/net/virtio_net
  net/llc/llc net/802/stp net/802/garp net/802/mrp net/8021q/8021q)

[ $# = 1 ] && [ -d "$1" ] || die "usage: setup.sh DEST (an existing folder)"
dest=$(cd "$1" && pwd)
tree=$dest/debian           # the unpacked packages
work=$dest/.work            # apt's state and the initramfs's folder, removed at the end
libs=$tree/usr/lib/x86_64-linux-gnu
loader=$tree/usr/lib64/ld-linux-x86-64.so.2
versions=$dest/VERSIONS
mkdir "$tree" "$work" "$dest/bin"

# ---- download ---------------------------------------------------------------------

download() {
  fetch_lists
  # (by its real name: the metapackage would bring an initramfs builder with it)
  kernel=$(apt apt-cache depends linux-image-cloud-amd64/$suite | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p')
  [ -n "$kernel" ] || die "no cloud kernel in $suite"
  retry apt apt-get --download-only -t "$backports" install "${qemu_packages[@]}" \
    "${guest_packages[@]/%//$suite}" "${host_packages[@]/%//$suite}" "${build_packages[@]/%//$suite}"
  (cd "$work/debs" && retry apt apt-get download "$kernel")
  say "$(find "$work/debs" -name '*.deb' | wc -l) packages downloaded, $(du -sm "$work/debs" | cut -f1) MB"
}

# ---- unpack -----------------------------------------------------------------------

# run PROGRAM ARGUMENT... runs an unpacked program with the unpacked libraries. (The
# folder ceph/ holds a private library of librbd, which fio is linked with.)
run() { "$loader" --library-path "$libs:$libs/ceph" "$@"; }

# wrap PROGRAM [ARGUMENTS] makes a command of an unpacked program; ARGUMENTS may name the
# tree $t.
wrap() {
  cat > "$dest/bin/$1" <<WRAPPER
#!/bin/sh
# Runs the unpacked program with its own loader, libraries and files, wherever this folder is.
t=\$(cd "\$(dirname "\$0")/../debian" && pwd) || exit
l=\$t/usr/lib/x86_64-linux-gnu
QEMU_MODULE_DIR=\$l/qemu exec "\$t/usr/lib64/ld-linux-x86-64.so.2" --library-path "\$l" \
  "\$t/usr/bin/$1" ${2:-} "\$@"
WRAPPER
  chmod +x "$dest/bin/$1"
}

install_programs() {
  local program
  wrap qemu-system-x86_64 '-L "$t/usr/share/qemu" -L "$t/usr/share/seabios"'
  for program in ip iperf3 passt; do wrap "$program"; done
  ln -s ../debian/usr/bin/busybox "$dest/bin/busybox"
  "$dest/bin/qemu-system-x86_64" -device help | grep -q '"vfio-user-pci"' ||
    die "this QEMU has no vfio-user-pci"
  say "$("$dest/bin/qemu-system-x86_64" --version | head -n1)"
}

# install_kernel takes the ELF image out of the compressed one: the emulated CPU would
# need seconds for it. The payload starts at one of the places where its magic occurs.
install_kernel() {
  local image offset
  image=$(echo "$tree"/boot/vmlinuz-*)
  offsets() { LC_ALL=C grep -abo -P "$1" "$image" | cut -d: -f1; }
  from() { tail -c +$(($1 + 1)) "$image"; }
  is_elf() { [ "$(head -c4 "$dest/vmlinux" | tail -c3)" = ELF ]; }
  for offset in $(offsets '\x28\xb5\x2f\xfd'); do
    from "$offset" | run "$tree/usr/bin/zstd" -dcq > "$dest/vmlinux" 2> /dev/null || true
    is_elf && break
  done
  is_elf || for offset in $(offsets '\xfd7zXZ\x00'); do
    from "$offset" | run "$tree/usr/bin/xz" -dc > "$dest/vmlinux" 2> /dev/null || true
    is_elf && break
  done
  is_elf || die "no ELF image found in $image"
  ln -s "debian/boot/${image##*/}" "$dest/vmlinuz"
  say "kernel ${image##*vmlinuz-}"
}

# put_tools FOLDER TOOL... copies programs with the libraries that they need, but for those
# of the base.
put_tools() {
  local root=$1 tool lib
  shift
  mkdir -p "$root"/usr/{bin,sbin} "$root/lib/x86_64-linux-gnu"
  for tool in "$@"; do
    cp -L "$tree/$tool" "$root/$tool"
    run --list "$tree/$tool" | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p'
  done | sort -u | while read -r lib; do
    [ -e "$work/base/lib/x86_64-linux-gnu/${lib##*/}" ] || cp -L "$lib" "$root/lib/x86_64-linux-gnu/"
  done
}

# put_modules FOLDER MODULE... puts kernel modules, decompressed and numbered in the order in
# which init loads them, into lib/modules.
put_modules() {
  local root=$1 module n=10 from=./usr/lib/modules/${kernel#linux-image-}/kernel
  shift
  mkdir -p "$root/lib/modules" "$work/modules"
  for module in "$@"; do echo "$from/$module.ko.xz"; done > "$work/modules/list"
  dpkg-deb --fsys-tarfile "$work/debs/$kernel"_*.deb | tar -x -C "$work/modules" -T "$work/modules/list"
  for module in "$@"; do
    run "$tree/usr/bin/xz" -dc "$work/modules/$from/$module.ko.xz" > "$root/lib/modules/$n-${module##*/}.ko"
    n=$((n + 1))
  done
}

# pack FOLDER FILE
pack() {
  (cd "$1" && find . | LC_ALL=C sort | "$tree/usr/bin/busybox" cpio -o -H newc -R 0:0 2> /dev/null) > "$2"
}

# make_initramfs makes the base, and what only guests with disks or networks need: their
# libraries take the emulated processor a while to unpack. An initramfs may consist of
# several archives.
make_initramfs() {
  local root=$work/base name kind
  mkdir -p "$root"/{bin,usr/share/misc,lib64,proc,sys,dev,tmp,run,mnt,etc,root}
  put_tools "$root" "${base_tools[@]}"
  cp -L "$loader" "$root/lib64/"
  cp "$tree/usr/share/misc/pci.ids" "$root/usr/share/misc/"
  # busybox for all the rest. Its own shell would run its applets in place of the real
  # tools, so the shell is dash.
  cp "$tree/usr/bin/busybox" "$root/bin/"
  ln -s ../usr/bin/dash "$root/bin/sh"
  for name in $("$tree/usr/bin/busybox" --list); do
    [ -e "$root/bin/$name" ] || [ -h "$root/bin/$name" ] || [ -e "$root/usr/bin/$name" ] ||
      [ -e "$root/usr/sbin/$name" ] || ln -s busybox "$root/bin/$name"
  done
  cp "$here/init" "$root/init"
  chmod +x "$root/init"
  pack "$root" "$work/base.cpio"

  put_tools "$work/disk" "${disk_tools[@]}"
  mkdir "$work/disk/etc"
  cp "$tree/etc/mke2fs.conf" "$work/disk/etc/"
  put_modules "$work/disk" "${disk_modules[@]}"
  put_tools "$work/network" "${network_tools[@]}"
  cp -L "$libs/libgcc_s.so.1" "$work/network/lib/x86_64-linux-gnu/" # (which iperf3 loads when it ends)
  put_modules "$work/network" "${network_modules[@]}"
  for kind in disk network; do
    pack "$work/$kind" "$work/$kind.cpio"
    cat "$work/base.cpio" "$work/$kind.cpio" > "$dest/$kind.cpio"
    say "initramfs for $kind guests, $(du -sm "$dest/$kind.cpio" | cut -f1) MB"
  done
}

download
unpack "$tree" --exclude=./usr/lib/modules
install_programs
install_kernel
make_initramfs
rm -rf "$work"
