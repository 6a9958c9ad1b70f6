package dma

import (
	"testing"

	"golang.org/x/sys/unix"
)

func TestUnmapNeedsAnExactRegion(t *testing.T) {
	tab := newTable(t, Config{})
	must(t, tab.Map(Mapping{IOVA: 4 * page, Size: 2 * page, Prot: rw, FD: -1}))
	for _, r := range [][2]uint64{{4 * page, page}, {5 * page, page}, {4 * page, 3 * page}, {0, page}, {6 * page, page}, {4 * page, 0}} {
		err := tab.Unmap(r[0], r[1], func() { t.Error("done was called") })
		wantErr(t, err, ErrNotFound, unix.ENOENT)
	}
	must(t, tab.Unmap(4*page, 2*page, nil))
	wantErr(t, tab.Unmap(4*page, 2*page, nil), ErrNotFound, unix.ENOENT)
}

// TestUnmapWaits: done is called once, at the moment when the last user goes, and the memory
// is gone from the process by then.
func TestUnmapWaits(t *testing.T) {
	for _, tc := range []struct {
		name    string
		hold    func(*testing.T, *fixture)
		release []func(*fixture) // done comes with the last one
	}{
		{"for nobody", func(*testing.T, *fixture) {}, nil},
		{"for a reader", func(_ *testing.T, f *fixture) { f.a.Enter() }, []func(*fixture){
			func(f *fixture) { f.a.Exit() },
		}},
		{"for a reader that closes", func(_ *testing.T, f *fixture) { f.a.Enter() }, []func(*fixture){
			func(f *fixture) { f.a.Close() },
		}},
		{"for two readers", func(_ *testing.T, f *fixture) { f.a.Enter(); f.b.Enter() }, []func(*fixture){
			func(f *fixture) { f.a.Exit() },
			func(f *fixture) { f.a.Enter() }, // too late to see the region
			func(f *fixture) { f.b.Exit() },
		}},
		{"for a pin", func(t *testing.T, f *fixture) { f.take(t) }, []func(*fixture){
			func(f *fixture) { f.a.Enter(); f.a.Exit() },
			func(f *fixture) { f.pin.Release() },
		}},
		{"for a reader, then a pin", func(t *testing.T, f *fixture) { f.take(t); f.b.Enter() }, []func(*fixture){
			func(f *fixture) { f.b.Exit() },
			func(f *fixture) { f.pin.Release() },
		}},
		{"for a pin, then a reader", func(t *testing.T, f *fixture) { f.take(t); f.b.Enter() }, []func(*fixture){
			func(f *fixture) { f.pin.Release() },
			func(f *fixture) { f.b.Exit() },
		}},
		{"for two pins of one region", func(t *testing.T, f *fixture) { f.take(t) }, []func(*fixture){
			func(f *fixture) { p := f.pin; p.r.pins.Add(1); p.Release() },
			func(f *fixture) { f.pin.Release() },
		}},
	} {
		for _, all := range []bool{false, true} {
			t.Run(tc.name+map[bool]string{true: ", all"}[all], func(t *testing.T) {
				checkFDs(t)
				tab := newTable(t, Config{})
				must(t, tab.Map(Mapping{IOVA: page, Size: page, Prot: rw, FD: dup(t, newFile(t, page))}))
				f := &fixture{a: newReader(t, tab), b: newReader(t, tab)}
				tc.hold(t, f)
				done := 0
				count := func() {
					done++
					if n := mapsOf(t); n != 0 {
						t.Errorf("%d mappings are left when done is called", n)
					}
				}
				if all {
					tab.UnmapAll(count)
				} else {
					must(t, tab.Unmap(page, page, count))
				}
				for k, release := range tc.release {
					if done != 0 || mapsOf(t) != 1 {
						t.Fatalf("before release %d: done %d times, %d mappings", k, done, mapsOf(t))
					}
					release(f)
				}
				if done != 1 {
					t.Errorf("done was called %d times", done)
				}
				f.a.Exit()
			})
		}
	}
}

// fixture is a table with one region at address page, and who may hold it.
type fixture struct {
	a, b *Reader
	pin  Pin
}

func (f *fixture) take(t *testing.T) {
	t.Helper()
	f.a.Enter()
	_, pin, err := f.a.Pin(page, page, rw)
	must(t, err)
	f.a.Exit()
	f.pin = pin
}

// Seen is done when no section is left that does not see what is mapped.
func TestSeenWaitsForOlderSections(t *testing.T) {
	tab := newTable(t, Config{})
	old, young := newReader(t, tab), newReader(t, tab)
	old.Enter()
	must(t, tab.Map(Mapping{IOVA: page, Size: page, Prot: rw, FD: -1}))
	young.Enter()
	defer young.Exit()
	done := 0
	tab.Seen(func() { done++ })
	if done != 0 {
		t.Error("done with a section that does not see the region")
	}
	old.Exit()
	if done != 1 {
		t.Errorf("done %d times after the last of them", done)
	}
	tab.Seen(func() { done++ })
	if done != 2 {
		t.Error("a section that sees the region is waited for")
	}
}

// UnmapAll is done when the table holds nothing, also of what was unmapped before.
func TestUnmapAllWaitsForEarlierUnmaps(t *testing.T) {
	tab := newTable(t, Config{})
	file := newFile(t, 4*page)
	for i := range uint64(3) {
		must(t, tab.Map(Mapping{IOVA: i * page, Size: page, Offset: i * page, Prot: rw, FD: dup(t, file)}))
	}
	r := newReader(t, tab)
	r.Enter()
	_, first, err := r.Pin(0, 1, rw)
	must(t, err)
	_, second, err := r.Pin(page, 1, rw)
	must(t, err)
	r.Exit()
	var order []string
	log := func(s string) func() { return func() { order = append(order, s) } }
	must(t, tab.Unmap(0, page, log("first")))
	tab.UnmapAll(log("all"))
	must(t, tab.Map(Mapping{IOVA: 0, Size: page, Prot: rw, FD: dup(t, file)}))
	must(t, tab.Unmap(0, page, log("later"))) // nobody is in its way
	second.Release()
	if s := tab.Stats(); s.Retired != 2 || s.Mmaps != 1 {
		t.Errorf("%+v", s)
	}
	first.Release()
	if len(order) != 3 || order[0] != "later" || order[1] != "first" || order[2] != "all" {
		t.Errorf("order %v", order)
	}
}

// done may use the table.
func TestDoneMayMapAgain(t *testing.T) {
	tab := newTable(t, Config{})
	m := Mapping{IOVA: page, Size: page, Prot: rw, FD: -1}
	must(t, tab.Map(m))
	must(t, tab.Unmap(page, page, func() { must(t, tab.Map(m)) }))
	r := newReader(t, tab)
	r.Enter()
	must(t, tab.Unmap(page, page, func() { must(t, tab.Map(m)); r.Close() }))
	r.Exit()
	if s := tab.Stats(); s.Regions != 1 || s.Readers != 0 {
		t.Errorf("%+v", s)
	}
}

func TestReleaseOfOnePinTwicePanics(t *testing.T) {
	tab := newTable(t, Config{})
	must(t, tab.Map(Mapping{IOVA: page, Size: page, Prot: rw, FD: dup(t, newFile(t, page))}))
	r := newReader(t, tab)
	r.Enter()
	_, pin, err := r.Pin(page, 1, rw)
	must(t, err)
	r.Exit()
	Pin{}.Release()
	pin.Release()
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
		pin.r.pins.Store(0)
	}()
	pin.Release()
}
