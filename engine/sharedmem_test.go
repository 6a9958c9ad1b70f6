package engine

import (
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/dma"
)

func TestSharedMemoryIsMappedAndSealed(t *testing.T) {
	fd, mem, err := SharedMemory("test", 2*pageSize)
	if err != nil {
		t.Fatal(err)
	}
	dma.Store32(mem, pageSize, 0x12345678)
	var b [4]byte
	if _, err := unix.Pread(fd, b[:], pageSize); err != nil || dma.Load32(b[:], 0) != 0x12345678 {
		t.Errorf("% x, %v", b, err)
	}
	for _, size := range []int64{0, pageSize, 3 * pageSize} {
		if err := unix.Ftruncate(fd, size); err == nil {
			t.Errorf("could be made %d bytes long", size)
		}
	}
	if err := ReleaseSharedMemory(fd, mem); err != nil {
		t.Error(err)
	}
	if _, _, err := SharedMemory("test", 0); err == nil {
		t.Error("memory of no size")
	}
}
