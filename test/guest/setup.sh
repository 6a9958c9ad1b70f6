#!/bin/bash
# setup.sh DEST - makes the files of the test guest in the folder DEST: a QEMU that
# knows vfio-user-pci, a Linux kernel and an initramfs with the tools of the tests.
#
# All of it are unmodified Debian packages, unpacked but never installed: it needs a
# Debian 12 or 13 machine with its apt mirror, but neither root nor a free dpkg lock.
# The mirror's address and keyring are those of the machine's own apt configuration.
#
#   DEST/bin/qemu-system-x86_64   runs the unpacked QEMU with its own loader and libraries
#   DEST/vmlinux                  the cloud kernel, decompressed
#   DEST/vmlinuz                  the same as it came, for kexec
#   DEST/initramfs.cpio           busybox, nvme-cli, fio, e2fsprogs, util-linux, pciutils, kexec-tools, init
#   DEST/VERSIONS                 "package version", one a line
#   DEST/debian                   the unpacked packages
#
# Exit status 3: this machine cannot have the guest; the last line says why.
set -euo pipefail

suite=trixie                # what runs in the guest
backports=trixie-backports  # where QEMU 11 comes from
qemu_packages=(qemu-system-x86)
guest_packages=(busybox-static dash nvme-cli fio util-linux e2fsprogs pciutils kexec-tools)
build_packages=(zstd xz-utils)
guest_tools=(usr/bin/dash usr/sbin/nvme usr/bin/fio usr/bin/lspci usr/sbin/mkfs.ext4
  usr/sbin/e2fsck usr/sbin/blkdiscard usr/sbin/fstrim usr/bin/dmesg
  usr/bin/setpci usr/sbin/kexec usr/sbin/rtcwake)

say() { printf '[%3d s] %s\n' "$SECONDS" "$*"; }
die() { echo "setup.sh: $*"; exit 1; }
cannot() { echo "$*"; exit 3; }

[ $# = 1 ] && [ -d "$1" ] || die "usage: setup.sh DEST (an existing folder)"
here=$(cd "$(dirname "$0")" && pwd)
dest=$(cd "$1" && pwd)
tree=$dest/debian           # the unpacked packages
work=$dest/.work            # apt's state and the initramfs's folder, removed at the end
libs=$tree/usr/lib/x86_64-linux-gnu
loader=$tree/usr/lib64/ld-linux-x86-64.so.2
mkdir "$tree" "$work" "$dest/bin"

# ---- download ---------------------------------------------------------------------

# find_mirror prints "URI KEYRING" of the archive that serves this machine's release.
find_mirror() {
  local codename entry uri key
  codename=$(. /etc/os-release && echo "${VERSION_CODENAME:-}")
  IFS='|' read -r uri entry < <(apt-get indextargets --no-release-info \
      --format '$(RELEASE)|$(COMPONENT)|$(REPO_URI)|$(SOURCESENTRY)' 'Created-By: Packages' |
    awk -F'|' -v r="$codename" '$1 == r && $2 == "main" && !n++ { print $3 "|" $4 }') || return 1
  key=$(sed -n 's/.*[Ss]igned-[Bb]y[:=] *\(\/[^] ]*\).*/\1/p' "${entry%:*}" | head -n1)
  echo "$uri ${key:-/usr/share/keyrings/debian-archive-keyring.gpg}"
}

# apt TOOL ARGUMENT... runs an apt tool on a world of its own: own package lists, and an
# empty dpkg status, so that every dependency is downloaded. Proxies and the like stay.
apt() {
  local tool=$1
  shift
  "$tool" -q=2 -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=/dev/null \
    -o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts=/dev/null \
    -o "Dir::State=$work/state" -o "Dir::State::status=$work/status" \
    -o "Dir::Cache=$work/cache" -o "Dir::Cache::archives=$work/debs" \
    -o APT::Architecture=amd64 -o APT::Architectures=amd64 -o APT::Install-Recommends=false \
    -o APT::Get::Assume-Yes=true -o "APT::Sandbox::User=$(id -un)" -o Debug::NoLocking=true \
    -o Acquire::Languages=none -o Acquire::Retries=3 -o Acquire::http::Timeout=30 "$@"
}

# retry COMMAND... tries four times, with pauses: mirrors have bad moments.
retry() {
  local pause
  for pause in 2 8 20; do
    "$@" && return
    say "failed, once more in $pause s: $*"
    sleep "$pause"
  done
  "$@"
}

download() {
  local uri key kernel
  # shellcheck disable=SC1091
  read -r uri key < <(find_mirror) || cannot "apt's configuration names no Debian mirror"
  mkdir -p "$work"/{state/lists/partial,cache,debs/partial}
  : > "$work/status"
  printf "deb [signed-by=$key] $uri %s main\n" "$suite" "$backports" > "$work/sources.list"
  retry apt apt-get update --error-on=any
  say "package lists fetched"
  # (by its real name: the metapackage would bring an initramfs builder with it)
  kernel=$(apt apt-cache depends linux-image-cloud-amd64/$suite | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p')
  [ -n "$kernel" ] || die "no cloud kernel in $suite"
  retry apt apt-get --download-only -t "$backports" install "${qemu_packages[@]}" \
    "${guest_packages[@]/%//$suite}" "${build_packages[@]/%//$suite}"
  (cd "$work/debs" && retry apt apt-get download "$kernel")
  say "$(find "$work/debs" -name '*.deb' | wc -l) packages downloaded, $(du -sm "$work/debs" | cut -f1) MB"
}

# ---- unpack -----------------------------------------------------------------------

unpack() {
  local d
  for d in bin sbin lib lib64; do # Debian's merged /usr
    mkdir -p "$tree/usr/$d"
    ln -s "usr/$d" "$tree/$d"
  done
  export tree
  find "$work/debs" -name '*.deb' -print0 | sort -z | xargs -0 -n1 -P"$(nproc)" sh -c '
    dpkg-deb --fsys-tarfile "$1" | tar -x -C "$tree" --keep-directory-symlink --no-same-owner \
      --exclude="./usr/share/doc" --exclude="./usr/share/man" --exclude="./usr/share/locale" \
      --exclude="./usr/share/info" --exclude="./usr/share/lintian" --exclude="./usr/share/bug" \
      --exclude="./usr/lib/modules"' sh
  find "$work/debs" -name '*.deb' -exec dpkg-deb -W --showformat '${Package} ${Version}\n' {} \; |
    sort > "$dest/VERSIONS"
  say "unpacked, $(du -sm "$tree" | cut -f1) MB"
}

# run PROGRAM ARGUMENT... runs an unpacked program with the unpacked libraries. (The
# folder ceph/ holds a private library of librbd, which fio is linked with.)
run() { "$loader" --library-path "$libs:$libs/ceph" "$@"; }

install_qemu() {
  cat > "$dest/bin/qemu-system-x86_64" <<'WRAPPER'
#!/bin/sh
# Runs the unpacked QEMU with its own loader, libraries and firmware, wherever this folder is.
t=$(cd "$(dirname "$0")/../debian" && pwd) || exit
l=$t/usr/lib/x86_64-linux-gnu
QEMU_MODULE_DIR=$l/qemu exec "$t/usr/lib64/ld-linux-x86-64.so.2" --library-path "$l" \
  "$t/usr/bin/qemu-system-x86_64" -L "$t/usr/share/qemu" -L "$t/usr/share/seabios" "$@"
WRAPPER
  chmod +x "$dest/bin/qemu-system-x86_64"
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

make_initramfs() {
  local root=$work/root tool lib name
  mkdir -p "$root"/{bin,usr/bin,usr/sbin,usr/share/misc,lib64,lib/x86_64-linux-gnu,proc,sys,dev,tmp,mnt,etc,root}
  for tool in "${guest_tools[@]}"; do
    cp -L "$tree/$tool" "$root/$tool"
    run --list "$tree/$tool" | sed -n 's/.*=> \(\/[^ ]*\) .*/\1/p'
  done | sort -u | while read -r lib; do
    cp -L "$lib" "$root/lib/x86_64-linux-gnu/"
  done
  cp -L "$loader" "$root/lib64/"
  cp "$tree/etc/mke2fs.conf" "$root/etc/"
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
  (cd "$root" && find . | LC_ALL=C sort | "$tree/usr/bin/busybox" cpio -o -H newc -R 0:0 2> /dev/null) > "$dest/initramfs.cpio"
  say "initramfs, $(du -sm "$dest/initramfs.cpio" | cut -f1) MB"
}

download
unpack
install_qemu
install_kernel
make_initramfs
rm -rf "$work"
