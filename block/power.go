package block

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
	v.mu.Lock()
	defer v.mu.Unlock()
	v.off = true
	v.dark.Store(true)
	return v.cut()
}

// PowerOn ends what PowerOff has begun.
func (v *Volatile) PowerOn() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.off = false
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
