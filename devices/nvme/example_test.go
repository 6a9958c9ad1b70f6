package nvme_test

import (
	"fmt"
	"os"
	"path/filepath"

	"vfiouser/block"
	"vfiouser/devices/nvme"
	"vfiouser/engine"
)

// A disk of 1 GiB in memory, served on a socket. QEMU attaches with
//
//	-device '{"driver":"vfio-user-pci","socket":{"type":"unix","path":"…/disk.sock"}}'
func Example() {
	dir, err := os.MkdirTemp("", "disk")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	backend, err := block.Open("mem:1G")
	if err != nil {
		panic(err)
	}
	disk, err := nvme.New(nvme.Config{
		Namespaces: []nvme.Namespace{{Backend: backend, BlockSize: 4096}},
		Serial:     "EXAMPLE1",
	})
	if err != nil {
		panic(err)
	}
	defer disk.Close()

	e, err := engine.New(engine.Config{})
	if err != nil {
		panic(err)
	}
	defer e.Close()
	ep, err := e.Register(filepath.Join(dir, "disk.sock"), disk)
	if err != nil {
		panic(err)
	}
	if err := ep.Start(); err != nil {
		panic(err)
	}
	fmt.Println("a client may attach to", filepath.Base(ep.Path()))
	// Output: a client may attach to disk.sock
}
