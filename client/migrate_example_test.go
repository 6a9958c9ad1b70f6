package client_test

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"

	"vfiouser/client"
	"vfiouser/engine"
	"vfiouser/pci"
)

// counter is a device that counts what is written to it, and can be migrated: it is an engine.Migrator.
type counter struct {
	engine.BaseDevice
	count uint32
}

func (c *counter) Describe() (engine.Description, error) {
	config, err := pci.NewSpace(pci.Config{Vendor: 0x1b36, Device: 0x10, Class: 0xff0000, BARs: [6]pci.BAR{{Size: 4096, Type: pci.Mem32}}})
	desc := engine.Description{Config: config}
	desc.Regions[engine.RegionBAR0] = engine.Region{
		Size:  4096,
		Read:  func(_ uint64, p []byte) error { return put(p, c.count) },
		Write: func(uint64, []byte) error { c.count++; return nil },
	}
	return desc, err
}

func put(p []byte, v uint32) error {
	copy(p, binary.LittleEndian.AppendUint32(nil, v))
	return nil
}

func (c *counter) SaveState(_ *engine.Session, w io.Writer) error {
	return binary.Write(w, binary.LittleEndian, c.count)
}

func (c *counter) LoadState(_ *engine.Session, _ uint32, r io.Reader) error {
	return binary.Read(r, binary.LittleEndian, &c.count)
}

// A device moves from one server to another. Here both are in this process; they need not be.
func ExampleMigrate() {
	dir, err := os.MkdirTemp("", "migrate")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	eng, err := engine.New(engine.Config{})
	if err != nil {
		log.Fatal(err)
	}
	defer eng.Close()
	ctx := context.Background()
	attach := func(name string) *client.Device {
		path := filepath.Join(dir, name)
		ep, err := eng.Register(path, new(counter))
		if err == nil {
			err = ep.Start()
		}
		if err != nil {
			log.Fatal(err)
		}
		dev, err := client.Attach(ctx, path, client.WithReattach()) // which remembers memory and interrupts
		if err != nil {
			log.Fatal(err)
		}
		return dev
	}

	src, dst := attach("src"), attach("dst")
	defer dst.Close()
	for range 3 {
		if err := src.WriteRegion32(ctx, client.RegionBAR0, 0, 1); err != nil {
			log.Fatal(err)
		}
	}
	if _, err := client.Migrate(ctx, src, dst, client.MigrateOptions{}); err != nil {
		log.Fatal(err)
	}
	n, err := dst.ReadRegion32(ctx, client.RegionBAR0, 0)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(n)
	// Output: 3
}
