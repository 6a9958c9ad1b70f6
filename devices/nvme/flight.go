package nvme

// flight is a command's place in the list of those of its queue that are in flight, and the
// ends of that list. It belongs to the owner of the queue.
type flight struct {
	cmd          *command // nil: the ends
	older, newer *flight
}

// add puts a command at the newer end.
func (f *flight) add(c *command) {
	if f.newer == nil {
		f.older, f.newer = f, f
	}
	p := &c.flight
	p.cmd, p.older, p.newer = c, f.older, f
	f.older.newer, f.older = p, p
}

// remove takes a command out of its list.
func (f *flight) remove() {
	f.older.newer, f.newer.older = f.newer, f.older
	f.older, f.newer = nil, nil
}

// each calls do for the commands in flight, the oldest first, until it returns false. do may
// not change the list.
func (f *flight) each(do func(*command) bool) {
	for p := f.newer; p != nil && p != f; p = p.newer {
		if !do(p.cmd) {
			return
		}
	}
}
