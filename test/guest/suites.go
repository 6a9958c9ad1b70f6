package guest

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
)

// Tools is a small Debian in which test suites of other projects run in the guest: Python,
// bash, nvme-cli, fio, xfsprogs and all modules of the guest's kernel.
type Tools struct {
	dir string
}

// Tools returns the tools for guests of the lab, and makes them first if need be, as [Open]
// makes the lab: that downloads another 120 MB and takes a minute.
func (l *Lab) Tools(ctx context.Context, progress io.Writer) (*Tools, error) {
	dir, err := cached(ctx, progress, "suites", []string{"debian.sh", "setup.sh", "init", "suites.sh"}, "suites.sh", l.dir)
	if err != nil {
		return nil, err
	}
	return &Tools{dir}, nil
}

// Image makes at path a filesystem of the files in a folder, for a guest.
func (l *Lab) Image(ctx context.Context, path, folder string) error {
	libs := l.path("debian/usr/lib/x86_64-linux-gnu")
	output, err := exec.CommandContext(ctx, l.path("debian/usr/lib64/ld-linux-x86-64.so.2"), "--library-path", libs,
		l.path("debian/usr/sbin/mke2fs"), "-q", "-t", "ext4", "-E", "root_owner=0:0", "-d", folder, path, "512M").CombinedOutput()
	if err != nil {
		return fmt.Errorf("mke2fs: %w: %s", err, output)
	}
	return nil
}

// Build is the folder with liburing.h, liburing.a and headers of Linux, for programs that run in
// the guest.
func (t *Tools) Build() string { return filepath.Join(t.dir, "build") }

// Args are arguments for QEMU that give the guest the tools and, as /suite in them, the
// filesystem in the file at suite. What the guest writes to either is forgotten.
func (t *Tools) Args(suite string) []string {
	var args []string
	for i, file := range []string{filepath.Join(t.dir, "debian.img"), suite} {
		args = append(args,
			"-drive", fmt.Sprintf("if=none,id=tools%d,format=raw,snapshot=on,file.filename=%s", i, file),
			"-device", fmt.Sprintf("virtio-blk-pci,drive=tools%d,addr=%x", i, i+1))
	}
	return args
}

// MountTools is a script that mounts what [Tools.Args] gave to a guest. [InTools] runs
// scripts in it.
const MountTools = `
mkdir -p /tools
mount -t ext4 /dev/vda /tools
mount -t ext4 /dev/vdb /tools/suite
for i in dev proc sys; do mount --rbind /$i /tools/$i; done
mount -t debugfs debug /tools/sys/kernel/debug
hostname guest
chroot /tools /usr/sbin/modprobe configfs
mount -t configfs config /tools/sys/kernel/config
ln -sfn /proc/self/fd /dev/fd
mkdir -p /tools/dev/pts
mount -t devpts pts /tools/dev/pts
mount -t tmpfs tmp /tools/tmp
`

// InTools makes of a script for bash one that runs among the tools, in the folder /suite.
func InTools(script string) string {
	return "cat > /tools/tmp/script <<'END OF SCRIPT'\nexport SYSTEMD_IGNORE_CHROOT=1 TERM=dumb\ncd /suite\n" + script + "\nEND OF SCRIPT\n" +
		"chroot /tools /usr/bin/bash /tmp/script"
}

// Versions are the lines "package version" of the tools.
func (t *Tools) Versions() (string, error) {
	content, err := os.ReadFile(filepath.Join(t.dir, "VERSIONS"))
	return string(content), err
}
