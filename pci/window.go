package pci

// Window is a part of a capability behind which there is no memory: what it holds is made
// when it is read, and something happens when it is written. The functions are called by
// Space.Read and Space.Write, with what the bytes hold; they may use the rest of the space.
type Window struct {
	Read    func(p []byte) // puts into p what the bytes hold now
	Written func(p []byte) // follows a write, of which p has what the masks let through
}

type spaceWindow struct {
	off, n int
	Window
}

// AddWindow makes n bytes at off, which belong to a capability, a window. An access that
// touches any of them is one to all of them.
func (s *Space) AddWindow(off, n int, w Window) error {
	if w.Read == nil || w.Written == nil || n <= 0 {
		return configError("window of %d bytes at %#x without a function", n, off)
	}
	if err := s.check(off, n); err != nil {
		return err
	}
	for i := range n {
		if !s.used[off+i] {
			return configError("window at %#x: %#x belongs to no capability", off, off+i)
		}
	}
	for i := range s.windows {
		if s.windows[i].touches(off, n) {
			return configError("window at %#x: there is one at %#x", off, s.windows[i].off)
		}
	}
	s.windows = append(s.windows, spaceWindow{off, n, w})
	return nil
}

func (w *spaceWindow) touches(off, n int) bool { return off < w.off+w.n && w.off < off+n }

// look fills the windows that a read touches.
func (s *Space) look(off, n int) {
	for i := range s.windows {
		if w := &s.windows[i]; w.touches(off, n) {
			w.Read(s.now[w.off : w.off+w.n])
		}
	}
}

// tell follows a write to windows.
func (s *Space) tell(off, n int) {
	for i := range s.windows {
		if w := &s.windows[i]; w.touches(off, n) {
			w.Written(s.now[w.off : w.off+w.n])
		}
	}
}
