package virtionet

import (
	"bytes"
	"context"
	"encoding/binary"
	"path/filepath"
	"testing"
	"time"

	"vfiouser/engine"
	"vfiouser/link"
	"vfiouser/link/linktest"
)

const testTimeout = 20 * time.Second

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func testContext(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), testTimeout)
	t.Cleanup(cancel)
	return ctx
}

// rig is a card behind an engine.
type rig struct {
	t    testing.TB
	card *Card
	link *linktest.Link // nil: another kind
	ep   *engine.Endpoint
}

// newRig makes a card. Without a link it gets one for tests.
func newRig(t testing.TB, cfg Config) *rig {
	t.Helper()
	eng, err := engine.New(engine.Config{})
	must(t, err)
	t.Cleanup(func() { eng.Close() })
	return newRigOn(t, eng, cfg)
}

// newRigOn makes a card on an engine with others.
func newRigOn(t testing.TB, eng *engine.Engine, cfg Config) *rig {
	t.Helper()
	r := &rig{t: t}
	if cfg.Link == nil {
		r.link = &linktest.Link{}
		cfg.Link = r.link
	}
	if cfg.MAC == nil {
		m := mac(1)
		cfg.MAC = m[:]
	}
	var err error
	r.card, err = New(cfg)
	must(t, err)
	t.Cleanup(func() { must(t, r.card.Close()) })
	r.ep, err = eng.Register(filepath.Join(t.TempDir(), "card"), r.card)
	must(t, err)
	must(t, r.ep.Start())
	t.Cleanup(func() { r.ep.Close() })
	return r
}

// frameOf makes a frame of n bytes that begins with its number.
func frameOf(number, n int) []byte {
	b := packet{from: "10.0.0.1:1000", to: "10.0.0.2:2000", proto: protoUDP, payload: max(0, n-54)}.frame()[:n]
	if n >= 64 {
		binary.BigEndian.PutUint32(b[50:], uint32(number))
	}
	for i := 54; i < n; i++ {
		b[i] = byte(i * (number + 3))
	}
	return b
}

// equal compares frames.
func equal(t testing.TB, got []linktest.Frame, want ...[]byte) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d frames, want %d", len(got), len(want))
	}
	for i := range got {
		if !bytes.Equal(got[i].Data, want[i]) {
			t.Errorf("frame %d: %d bytes % x, want %d bytes % x", i, len(got[i].Data), clip(got[i].Data), len(want[i]), clip(want[i]))
		}
	}
}

func clip(b []byte) []byte { return b[:min(len(b), 64)] }

var _ link.Card = (*card)(nil)
