package block

import (
	"errors"
	"slices"
)

// PowerOff cuts the power of all write caches in front of some backends: from one moment on
// requests to any of them fail with ENODEV, until PowerOn, and then each cache forgets as PowerOff
// of a Volatile does. So what is left of several disks is of the same moment; requests that are
// being done at that moment may still end well. It returns how many caches there are, and how many
// of 4,096 bytes they have forgotten. An error says that what was to be kept could not be written
// everywhere.
func PowerOff(backends ...Backend) (caches, forgotten int, err error) {
	var stacks [][]*Volatile
	for _, b := range backends {
		if list := Volatiles(b); len(list) > 0 {
			stacks = append(stacks, list)
		}
	}
	for _, list := range stacks {
		list[0].dark.Store(true) // what is behind it hears of nobody else
	}
	var errs []error
	for _, list := range stacks {
		for _, v := range list {
			n, err := v.PowerOff()
			caches, forgotten, errs = caches+1, forgotten+n, append(errs, err)
		}
	}
	return caches, forgotten, errors.Join(errs...)
}

// PowerOn ends what PowerOff has begun, and returns how many caches there are.
func PowerOn(backends ...Backend) (caches int) {
	for _, b := range backends {
		for _, v := range slices.Backward(Volatiles(b)) {
			v.PowerOn()
			caches++
		}
	}
	return caches
}

// CutPower forgets what was not flushed, but for pages that are kept at random, and returns how
// many of 4,096 bytes it has forgotten. The device in front should be gone
// then, or be reset: a guest that goes on sees old data. An error says that what was to
// be kept could not be written, and is forgotten too.
func (v *Volatile) CutPower() (forgotten int, err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.cut()
}

// PowerOff is CutPower with no power afterwards: every request fails with ENODEV until PowerOn.
// So nothing that a guest still does is mixed with what it has lost.
func (v *Volatile) PowerOff() (forgotten int, err error) {
	v.dark.Store(true)
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.cut()
}

// PowerOn ends what PowerOff has begun.
func (v *Volatile) PowerOn() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.dark.Store(false)
}

// cut forgets; v.mu is held.
func (v *Volatile) cut() (forgotten int, err error) {
	v.cuts.Add(1)
	defer v.note()
	for _, off := range v.offsets(0, v.Size()) {
		if v.rng.Float64() < v.opt.Keep {
			if failed := v.writePage(off, false); failed == nil {
				continue
			} else if err == nil {
				err = failed
			}
		}
		forgotten++
		v.drop(off)
	}
	return forgotten, err
}

// note keeps what Stats tells; v.mu is held.
func (v *Volatile) note() { v.cached.Store(int64(len(v.pages)) * volatilePage) }

// VolatileStats is the state of a write cache.
type VolatileStats struct {
	Cached int64  // bytes that a power cut would take, in pages of 4,096
	Off    bool   // without power
	Cuts   uint64 // power cuts so far
}

// Stats tells what the cache is like after the last request that has ended. It does not wait.
func (v *Volatile) Stats() VolatileStats {
	return VolatileStats{v.cached.Load(), v.dark.Load(), v.cuts.Load()}
}

// Options are those that the cache was made with, completed.
func (v *Volatile) Options() VolatileOptions { return v.opt }
