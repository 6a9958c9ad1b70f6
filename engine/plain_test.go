package engine

import (
	"path/filepath"
	"testing"

	"vfiouser/pci"
)

// plainDevice is a device of which a test says everything.
type plainDevice struct {
	BaseDevice
	desc     Description
	sessions chan *Session // receives for every client
	reset    func()
}

func (d *plainDevice) Describe() (Description, error) {
	var err error
	if d.desc.Config == nil {
		config := pci.Config{Vendor: 0x1b36, Device: 0x0001, Class: 0xff0000}
		for i := range config.BARs {
			config.BARs[i].Size = d.desc.Regions[i].Size
			if config.BARs[i].Size < 16 { // too little for memory
				config.BARs[i].Type = pci.IO
			}
		}
		d.desc.Config, err = pci.NewSpace(config)
	}
	return d.desc, err
}

func (d *plainDevice) NewDevice(s *Session) error { d.sessions <- s; return nil }

func (d *plainDevice) ResetDevice(*Session) {
	if d.reset != nil {
		d.reset()
	}
}

// plain adds an endpoint for a plain device to the bed's engine, and returns a bed for it.
func (b *bed) plain(desc Description) (*bed, *plainDevice) {
	b.t.Helper()
	d := &plainDevice{desc: desc, sessions: make(chan *Session, 100)}
	other := &bed{t: b.t, engine: b.engine, path: filepath.Join(b.t.TempDir(), "plain.sock")}
	var err error
	if other.ep, err = b.engine.Register(other.path, d); err != nil {
		b.t.Fatal(err)
	}
	if err := other.ep.Start(); err != nil {
		b.t.Fatal(err)
	}
	return other, d
}

// do runs fn on the reactor.
func (b *bed) do(fn func()) {
	b.t.Helper()
	if err := b.engine.reactor.Do(fn); err != nil {
		b.t.Fatal(err)
	}
}

// newPlainBed is a bed with a plain device alone in use.
func newPlainBed(t testing.TB, cfg Config, desc Description) (*bed, *plainDevice) {
	t.Helper()
	return newBed(t, cfg).plain(desc)
}
