package guest

import (
	"fmt"
	"os"
	"testing"
)

// TestRestarts has a guest let go of a disk and take it again in every way there is:
// removal and rescan, D3hot, reboot, kexec. Its files outlive all of
// them, and the server never holds more than when the disk was found first.
func TestRestarts(t *testing.T) {
	d := disk{nsid: 1, size: 256 << 20}
	kernel, kernelSize := kernelImage(t)
	s := serve(t, served{namespaces: []string{"mem:256M", "file:" + kernel}})
	before := s.holdings(t)
	g := boot(t, Config{Sockets: s.sockets})
	writeFiles(t, g, d)
	during := s.holdings(t)
	address := fmt.Sprintf("0000:00:%02x.0", firstSlot)

	t.Run("remove and rescan", func(t *testing.T) {
		for range removeRounds {
			run(t, g, fmt.Sprintf("echo 1 > %s/remove; [ ! -e %[1]s ]; echo 1 > /sys/bus/pci/rescan", pciDevice(address)))
			d.name(t, g)
		}
		checkFiles(t, g, d)
		s.checkReleased(t, during)
	})
	t.Run("D3hot without a driver", func(t *testing.T) {
		for range 3 {
			run(t, g, fmt.Sprintf(`
echo %[1]s > /sys/bus/pci/drivers/nvme/unbind
setpci -s %[1]s CAP_PM+4.w=3
[ $((0x$(setpci -s %[1]s CAP_PM+4.b) & 3)) = 3 ]
setpci -s %[1]s CAP_PM+4.w=0
echo %[1]s > /sys/bus/pci/drivers/nvme/bind`, address))
			checkFiles(t, g, d)
		}
		s.checkReleased(t, during)
	})
	t.Run("reboot", func(t *testing.T) {
		reboot(t, g)
		checkFiles(t, g, d)
		s.checkReleased(t, during)
	})
	t.Run("kexec", func(t *testing.T) {
		kexec(t, g, disk{nsid: 2}, kernelSize)
		checkFiles(t, g, d)
		s.checkReleased(t, during)
	})
	powerOff(t, g)
	s.checkReleased(t, before)
}

// kernelImage copies the guest's kernel to a file for a namespace, from which a guest loads
// it, and returns its size.
func kernelImage(t *testing.T) (path string, size int) {
	t.Helper()
	kernel, err := os.ReadFile(lab(t).Kernel())
	if err != nil {
		t.Fatal(err)
	}
	path = image(t, 0)
	if err := os.WriteFile(path, kernel, 0o600); err != nil {
		t.Fatal(err)
	}
	const block = 4096
	if err := os.Truncate(path, int64(len(kernel)+block-1)/block*block); err != nil {
		t.Fatal(err)
	}
	return path, len(kernel)
}

// kexec loads the kernel from a disk, and what checkFiles needs of the guest's files for an
// initramfs, and starts it. (All files, or checksums of them, take the emulated processor
// most of a minute.)
func kexec(t *testing.T, g *Guest, from disk, kernelSize int) {
	t.Helper()
	run(t, g, from.script(fmt.Sprintf(`
head -c %d $disk > /tmp/vmlinuz
cd /
{
  find . -xdev -type d
  find init bin etc lib64 usr/bin/dash usr/sbin/e2fsck
  for lib in libc. libext2fs libcom_err libblkid libuuid libe2p; do find lib/x86_64-linux-gnu -name "$lib*"; done
} | cpio -o -H newc 2> /dev/null > /tmp/initramfs
kexec -l -i /tmp/vmlinuz --initrd=/tmp/initramfs --reuse-cmdline`, kernelSize)))
	ctx, cancel := timeout(t, scriptTimeout) // (the emulated processor decompresses the kernel)
	defer cancel()
	if err := g.Kexec(ctx); err != nil {
		t.Fatalf("kexec: %v", err)
	}
}
