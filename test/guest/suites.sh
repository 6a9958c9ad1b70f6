#!/bin/bash
# suites.sh DEST LAB - makes what the test suites of other projects need in the guest of the
# folder LAB (setup.sh): a small Debian with Python, bash, nvme-cli, fio, xfsprogs and all
# modules of the guest's kernel. Unmodified packages, unpacked but never installed; see debian.sh.
#
#   DEST/debian.img     that system, an ext4 filesystem
#   DEST/build          liburing.h, liburing.a and the kernel's headers, to build programs of the suites with
#   DEST/VERSIONS       "package version", one a line
set -euo pipefail
shopt -s extglob

here=$(cd "$(dirname "$0")" && pwd)
. "$here/debian.sh"

packages=(bash dash coreutils util-linux bsdextrautils mount login passwd libpam-modules libpam-runtime
  grep sed gawk findutils gzip procps kmod pciutils hostname python3 nvme-cli fio e2fsprogs xfsprogs blktrace acl bc
  libc-bin udev diffutils ncurses-bin ncurses-base sudo expect)
build_packages=(liburing-dev)

[ $# = 2 ] && [ -d "$1" ] && [ -f "$2/VERSIONS" ] || die "usage: suites.sh DEST LAB (existing folders)"
dest=$(cd "$1" && pwd)
lab=$(cd "$2" && pwd)
work=$dest/.work # apt's state and the unpacked packages, removed at the end
root=$work/root
versions=$dest/VERSIONS
mkdir -p "$root"

# download fetches the guest's kernel too, in the lab's version.
download() {
  fetch_lists
  retry apt apt-get --download-only install "${packages[@]/%//$suite}" "${build_packages[@]/%//$suite}"
  (cd "$work/debs" && retry apt apt-get download "$(sed -n 's/^\(linux-image-[0-9][^ ]*\) /\1=/p' "$lab/VERSIONS")")
  say "$(find "$work/debs" -name '*.deb' | wc -l) packages downloaded, $(du -sm "$work/debs" | cut -f1) MB"
}

# run PROGRAM ARGUMENT... runs one of the lab's unpacked programs.
run() {
  local program=$lab/debian/$1 libs=$lab/debian/usr/lib/x86_64-linux-gnu
  shift
  "$lab/debian/usr/lib64/ld-linux-x86-64.so.2" --library-path "$libs" "$program" "$@"
}

# configure does what the packages' own scripts would, as far as the suites need it.
configure() {
  local kernel i
  kernel=$(basename "$root"/usr/lib/modules/*)
  "$root/usr/lib64/ld-linux-x86-64.so.2" --argv0 depmod --library-path "$root/usr/lib/x86_64-linux-gnu" \
    "$root/usr/bin/kmod" -b "$root" "$kernel"
  mkdir -p "$root"/{proc,sys,dev,run,tmp,root,mnt,suite} "$root/etc/pam.d"
  ln -sf gawk "$root/usr/bin/awk"
  printf 'root:x:0:0::/root:/bin/bash\ntester:x:1000:1000::/tmp:/bin/bash\n' > "$root/etc/passwd"
  printf 'root:x:0:\ntester:x:1000:\n' > "$root/etc/group"
  echo "127.0.0.1 localhost guest" > "$root/etc/hosts"
  for i in su sudo other; do
    printf '%s sufficient pam_permit.so\n' auth account session > "$root/etc/pam.d/$i"
  done
  # (blktests looks for these, and does not understand the names of Debian's kernels)
  ln -s "config-$kernel" "$root/boot/config-${kernel/+deb*([0-9])/}"
  ln -s "$kernel" "$root/usr/lib/modules/${kernel/+deb*([0-9])/}"
}

download
unpack "$root"
configure
say "configured"
mkdir "$dest/build"
mv "$root"/usr/include/{liburing*,linux,asm-generic,x86_64-linux-gnu/asm} "$root/usr/lib/x86_64-linux-gnu/liburing.a" "$dest/build/"
rm -rf "$root"/usr/include "$root"/usr/lib/x86_64-linux-gnu/*.a "$root"/boot/{vmlinuz,System.map}*
run usr/sbin/mke2fs -q -t ext4 -L suites -O ^has_journal -E root_owner=0:0 -d "$root" "$dest/debian.img" 2G
say "image of $(du -sm "$dest/debian.img" | cut -f1) MB"
rm -rf "$work"
