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

// Two controllers in front of the same namespaces, which change while hosts use them, as do the
// filters in front of their storage.
func ExampleSubsystem() {
	pool, err := block.OpenPool("mem:4G") // of which hosts create namespaces
	if err != nil {
		panic(err)
	}
	s, err := nvme.NewSubsystem(nvme.SubsystemConfig{Serial: "EXAMPLE2", Pool: pool})
	if err != nil {
		panic(err)
	}
	defer s.Close()
	for range 2 {
		ctrl, err := nvme.New(nvme.Config{Subsystem: s}) // to be registered with an engine
		if err != nil {
			panic(err)
		}
		defer ctrl.Close()
	}

	backend, err := block.Open("delay:off,mem:1M")
	if err != nil {
		panic(err)
	}
	id, err := s.AddNamespace(nvme.Namespace{Backend: backend, BlockSize: 4096})
	if err != nil {
		panic(err)
	}
	if err := s.ResizeNamespace(id, 2<<20); err != nil {
		panic(err)
	}
	if err := block.Filters(backend)[0].Set("write:50ms"); err != nil {
		panic(err)
	}
	for _, n := range s.Namespaces() {
		fmt.Printf("namespace %d: %d blocks of %d bytes, attached to %v\n", n.ID, n.Blocks, n.BlockSize, n.Controllers)
	}
	if err := s.RemoveNamespace(id); err != nil {
		panic(err)
	}
	fmt.Println(len(s.Namespaces()), "left")
	// Output:
	// namespace 1: 512 blocks of 4096 bytes, attached to [1 2]
	// 0 left
}
