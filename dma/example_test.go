package dma_test

import (
	"fmt"
	"log"

	"golang.org/x/sys/unix"

	"vfiouser/dma"
)

// A worker reads a queue entry from guest memory; later the client takes the memory
// away.
func Example() {
	fd, err := unix.MemfdCreate("guest-ram", unix.MFD_CLOEXEC)
	if err != nil {
		log.Fatal(err)
	}
	if err := unix.Ftruncate(fd, 1<<20); err != nil {
		log.Fatal(err)
	}

	memory := dma.NewTable(dma.Config{})
	err = memory.Map(dma.Mapping{IOVA: 0x10000, Size: 1 << 20, Prot: dma.ProtRead | dma.ProtWrite, FD: fd})
	if err != nil {
		log.Fatal(err)
	}

	r := memory.NewReader() // one for each worker
	defer r.Close()

	var entry [64]byte
	r.Enter()
	if b, err := r.Bytes(0x10040, 64, dma.ProtRead); err == nil {
		dma.CopyIn64(&entry, b) // validate the copy, not the guest's memory
	}
	_, err = r.Bytes(0x10040, 1<<20, dma.ProtRead)
	fmt.Println(err)

	_ = memory.Unmap(0x10000, 1<<20, func() { fmt.Println("released") })
	fmt.Println("leaving the section")
	r.Exit()

	// Output:
	// dma: address range is not mapped
	// leaving the section
	// released
}
